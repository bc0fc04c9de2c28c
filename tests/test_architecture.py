"""The rules of the folder tree, read from the source: who may import whom, how long, how light."""

import ast
import dataclasses
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clip_adapter
from clip_adapter.methods import get_method, method_names

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "clip_adapter"

# Imports go from a row to those above it, those for types included; names in one row may not import
# each other in a circle. "jobs", "export", "serve" and "trust" are planned: their places are kept.
ROWS = """
errors _version
wording
paths
files
reporting threads
hub known_names
nn
backbones
datasets
features
options
keywords
sources
heads
task
training
towers
trust
finetuning classifier
methods
fitting
evaluation estimator
jobs export doctor
demo
bench scale serve
cli
__main__
"""


class Ranks(dict):
    def __missing__(self, name):
        pytest.fail(
            f"src/clip_adapter/{name} has no place in ROWS of {Path(__file__).name}: write its "
            "name into a row below all that it imports, and above all that imports it."
        )


RANK = Ranks((name, rank) for rank, row in enumerate(ROWS.split("\n")) for name in row.split())
# Seconds to import, or optional: only functions may ask for them.
ONLY_IN_FUNCTIONS = {"datasets", "matplotlib", "open_clip", "pyarrow", "sklearn", "torchvision"}
# A scikit-learn estimator cannot do without it; nothing imports this module before it is used.
EXCEPTIONS = {("estimator.py", "sklearn")}
HEAVY = {*ONLY_IN_FUNCTIONS, "numpy", "pandas", "pydantic", "scipy", "torch", "PIL"}
MAX_LINES = 400
FOLDERS = ("src", "tests", "tools", "benchmarks", "examples")

FILES = sorted(PACKAGE.rglob("*.py"))
METHOD_FILES = [p for p in (PACKAGE / "methods").glob("*.py") if "\n@register(" in p.read_text()]


def short(path):
    return path.relative_to(PACKAGE).as_posix()


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def top(module):
    """The folder or file below the package that ``module`` is of."""
    return [*module.split("."), "__init__"][1]


@dataclasses.dataclass(frozen=True)
class Import:
    name: str  # a.b.c
    member: str = ""  # of "from a.b.c import member"
    in_function: bool = False
    for_types: bool = False

    @property
    def module(self):
        """What is loaded: a member may be a module itself."""
        whole = f"{self.name}.{self.member}"
        return whole if whole in MODULES else self.name


def find_imports(node, **where):
    for child in ast.iter_child_nodes(node):
        inside = dict(where)
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, **where) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            yield from (Import(child.module, alias.name, **where) for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            inside["for_types"] = True
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside["in_function"] = True
        yield from find_imports(child, **inside)


IMPORTS = {path: list(find_imports(ast.parse(path.read_text("utf-8")))) for path in FILES}
OWN = {
    path: [i for i in found if i.name.split(".")[0] == PACKAGE.name]
    for path, found in IMPORTS.items()
}


def test_every_module_has_a_row():
    for name in {top(module) for module in MODULES} - {"__init__"}:
        assert RANK[name]


def test_the_package_imports_its_parts_when_they_are_used():
    root = PACKAGE / "__init__.py"
    loaded = {i.module for i in IMPORTS[root] if not i.for_types}
    assert loaded == {"__future__", "importlib", "typing", "clip_adapter._version"}
    for path, own in OWN.items():
        assert path == root or PACKAGE.name not in {i.module for i in own}, short(path)


def test_imports_go_one_way_and_in_no_circle():
    against = {
        f"{short(path)} imports {i.module}"
        for path, own in OWN.items()
        for i in own
        if top(module_of(path)) != "__init__" and RANK[top(i.module)] > RANK[top(module_of(path))]
    }
    assert not against
    graph = {module_of(path): {i.module for i in own} for path, own in OWN.items()}
    del graph[PACKAGE.name]
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle
    print("\n".join(["", "The order of the modules:", *order]))


def test_names_with_an_underscore_stay_in_their_package():
    abroad = {
        f"{short(path)} imports {i.name}.{i.member}"
        for path, own in OWN.items()
        for i in own
        if i.member.startswith("_")
        and f"{i.name}.{i.member}" not in MODULES
        and not i.member.startswith("__")
        and top(i.name) != top(module_of(path))
    }
    assert not abroad


@pytest.mark.parametrize("path", METHOD_FILES, ids=short)
def test_methods_do_not_import_each_other(path):
    siblings = {module_of(other) for other in METHOD_FILES} - {module_of(path)}
    assert not {i.module for i in OWN[path]} & siblings


def test_only_evaluation_and_what_follows_it_name_the_test_split():
    # Methods and what trains them, and the way there; "datasets" and "features" read any split.
    kept_away = {"nn", "sources", "heads", "task", "training", "towers", "finetuning", "classifier"}
    kept_away |= {"methods", "fitting", "estimator"}
    for module, path in MODULES.items():
        if top(module) in kept_away:
            tree = ast.parse(path.read_text("utf-8"))
            words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
            assert "test" not in words, f"{short(path)} names the test split"


def test_heavy_packages_are_imported_in_functions():
    at_top = {
        (short(path), i.name.split(".")[0])
        for path, found in IMPORTS.items()
        for i in found
        if not i.in_function and not i.for_types
    }
    assert not {(file, name) for file, name in at_top if name in ONLY_IN_FUNCTIONS} - EXCEPTIONS


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


def test_no_line_of_the_log_says_its_level():
    texts = [
        (path, node.value)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [(short(path), text) for path, text in texts if text.startswith("Warning: ")]
