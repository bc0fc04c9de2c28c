"""The rules of the folder tree, read from the source: who may import whom, how long, how light."""

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clip_adapter
from clip_adapter.methods import get_method, method_names

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "clip_adapter"

# Imports go from right to left only. Names in one row may import each other.
LAYERS = (
    ("errors",),
    ("files",),
    ("nn",),
    ("backbones",),
    ("data",),
    ("features",),
    ("options",),
    ("training",),
    ("towers",),
    ("heads",),
    ("classifier", "persistence", "model_card"),
    ("methods",),
    ("sources",),
    ("estimator",),
    ("api",),
    ("evaluation",),
    ("bench",),
    ("scale",),
    ("serve",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
# Seconds to import, or optional: only functions may ask for them.
ONLY_IN_FUNCTIONS = {"datasets", "matplotlib", "open_clip", "pyarrow", "sklearn", "torchvision"}
# A scikit-learn estimator cannot do without it; nothing imports this module before it is used.
EXCEPTIONS = {("estimator.py", "sklearn")}
HEAVY = {*ONLY_IN_FUNCTIONS, "numpy", "pandas", "pydantic", "scipy", "torch", "PIL"}
MAX_LINES = 400
FOLDERS = ("src", "tests", "tools", "benchmarks", "examples")

MODULES = sorted(PACKAGE.rglob("*.py"))
# What all methods share; the others are methods.
SHARED = {"__init__", "base", "block_adapter", "sizes"}
METHOD_FILES = [p for p in sorted((PACKAGE / "methods").glob("*.py")) if p.stem not in SHARED]


def short(path):
    return path.relative_to(PACKAGE).as_posix()


def only_for_types(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(node, in_function=False):
    """(module, inside a function) of every import that runs below ``node``."""
    for child in ast.iter_child_nodes(node):
        if only_for_types(child):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, in_function) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            if child.module == "clip_adapter":
                yield from ((f"clip_adapter.{alias.name}", in_function) for alias in child.names)
            else:
                yield child.module, in_function
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, in_function or function)


def imports_of(path):
    return list(imports(ast.parse(path.read_text("utf-8"))))


def own_imports(path):
    """Top-level names of this package that ``path`` imports, anywhere in it."""
    own = (name.split(".") for name, _ in imports_of(path))
    return {parts[1] for parts in own if parts[0] == "clip_adapter" and len(parts) > 1}


def test_every_module_has_a_layer():
    found = {short(path).split("/")[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert found <= set(RANK), "a new folder or module: give it a place in LAYERS"


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_imports_go_one_way(path):
    name = short(path).split("/")[0].removesuffix(".py")
    if name == "__init__":
        assert imports_of(path) == [
            ("__future__", False),
            ("importlib", False),
            ("typing", False),
        ], "the package imports its parts when they are used"
        return
    later = {other for other in own_imports(path) & set(RANK) if RANK[other] > RANK[name]}
    assert not later


@pytest.mark.parametrize("path", METHOD_FILES, ids=short)
def test_methods_do_not_import_each_other(path):
    siblings = {f"clip_adapter.methods.{other.stem}" for other in METHOD_FILES}
    siblings -= {f"clip_adapter.methods.{path.stem}"}
    assert not {name for name, _ in imports_of(path)} & siblings


def test_only_evaluation_and_what_follows_it_name_the_test_split():
    # Methods and what trains them, and the way there; "data" and "features" read any split.
    kept_away = {"nn", "training", "classifier", "methods", "sources", "estimator", "api"}
    for path in MODULES:
        if short(path).split("/")[0].removesuffix(".py") in kept_away:
            tree = ast.parse(path.read_text("utf-8"))
            words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
            assert "test" not in words, f"{short(path)} names the test split"


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_heavy_packages_are_imported_in_functions(path):
    at_top = {name.split(".")[0] for name, in_function in imports_of(path) if not in_function}
    allowed = {package for file, package in EXCEPTIONS if file == short(path)}
    assert not (at_top & ONLY_IN_FUNCTIONS) - allowed


@pytest.mark.parametrize("entry", ["clip_adapter", "clip_adapter.cli.main"])
def test_importing_is_light(entry):
    code = f"import sys, {entry}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


def test_files_are_short():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := len(path.read_text("utf-8").splitlines())) > MAX_LINES
    }
    assert not long


def test_public_names_are_sorted_and_documented():
    names = clip_adapter.__all__
    assert names == sorted(names)
    assert set(clip_adapter._HOME) == set(names)
    for name in names:
        assert (getattr(clip_adapter, name).__doc__ or "").strip(), name
        assert name in dir(clip_adapter)


@pytest.mark.parametrize("name", method_names())
def test_registered_means_documented(name):
    method = get_method(name)
    opening = sys.modules[method.__module__].__doc__ or ""
    assert "arXiv" in opening, "a method file opens with its citation"
    assert " = " in opening, "a method file opens with its formula"
    assert method.summary
    assert re.search(r"arXiv \d{4}\.\d{5}", method.citation)
    for field in (f.name for f in dataclasses.fields(method)):
        assert f"{field}:" in (method.__doc__ or ""), f"{field} has no line in the docstring"
    assert method.trains != "unknown"
    page = (ROOT / "docs/methods.md").read_text("utf-8")
    assert f"`{name}`" in page, "make docs writes the page anew"


def test_every_command_is_in_the_readme():
    import typer

    from clip_adapter.cli.main import app

    readme = (ROOT / "README.md").read_text("utf-8")
    commands = list(typer.main.get_command(app).commands)
    assert commands
    assert [name for name in commands if f"clip-adapter {name}" not in readme] == []
