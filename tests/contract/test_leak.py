"""The first rule: what is tested on cannot reach training. Read from the source, and tried."""

import ast
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick import quick

import clip_adapter
from clip_adapter.backbones import load_backbone
from clip_adapter.datasets.open import load_dataset
from clip_adapter.errors import LeakError
from clip_adapter.evaluation import evaluate, held_out_features
from clip_adapter.features.files import load_features, write_features
from clip_adapter.fitting import fit_task, fit_tasks, make_task
from clip_adapter.methods import Method, make_method, method_names
from clip_adapter.options import SourceOptions
from clip_adapter.sources import open_source

BACKBONE = "demo"
PACKAGE = Path(clip_adapter.__file__).parent
# All that opens data by its name, and all that is handed opened data of every split.
OPENERS = {
    *(f"clip_adapter.datasets.{m}" for m in ("open", "folder", "table", "hub", "coop", "download")),
    *(f"clip_adapter.demo.{m}" for m in ("task", "sets")),
    "clip_adapter.features.files",
    *(f"clip_adapter.{m}" for m in ("sources", "fitting", "estimator", "evaluation", "bench")),
    *(f"clip_adapter.{m}" for m in ("demo", "cli", "scale", "serve")),
}


def module_file(name):
    path = PACKAGE.parent / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def modules_named_in(path):
    """Modules of this package that ``path`` imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clip_adapter"):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("clip_adapter"))


def reached_from(starts):
    """{module: the one that imports it} of all that ``starts`` can come to, step by step."""
    waiting, reached = list(starts), dict.fromkeys(starts, "")
    while waiting:
        name = waiting.pop()
        # The names that a package offers lazily are no imports of whoever imports the package.
        if module_file(name).name == "__init__.py" and name not in starts:
            continue
        for module in modules_named_in(module_file(name)):
            if module not in reached and module_file(module).exists():
                reached[module] = name
                waiting.append(module)
    return reached


def test_no_path_leads_from_methods_or_training_to_what_opens_data():
    starts = [
        f"clip_adapter.{folder}.{path.stem}"
        for folder in ("methods", "training")
        for path in (PACKAGE / folder).glob("*.py")
        if path.stem != "__init__"
    ]
    assert len(starts) > 25
    reached = reached_from(starts)
    assert "clip_adapter.features.pixels" in reached  # the walk goes somewhere
    assert {name: by for name, by in reached.items() if name in OPENERS} == {}


def test_the_walk_finds_a_path_where_there_is_one():
    assert "clip_adapter.sources" in reached_from(["clip_adapter.evaluation.evaluate"])


def test_a_task_has_no_place_for_a_test_split(photos_source):
    task, _ = make_task(photos_source, shots=2)
    shown = {k for k in vars(task) if "test" in k.lower()}
    assert shown == set()
    held_out = set(held_out_features(photos_source).digests)
    assert held_out
    assert not held_out & set(task.train.digests)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for colour in range(3):
            folder = root / split / f"colour{colour}"
            folder.mkdir(parents=True)
            for i in range(count):
                noise = draw.integers(0, 80, (40, 40, 3), np.uint8)
                noise[..., colour] += 150
                Image.fromarray(noise).save(folder / f"{i}.png")
    return str(root)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(BACKBONE, device="cpu")


@pytest.fixture
def photos_source(photos, backbone):
    source = open_source(photos, SourceOptions(backbone=BACKBONE))
    source.use(backbone)
    return source


def features_file(folder):
    draw = torch.Generator().manual_seed(0)
    sets = {}
    for name in ("train", "test"):
        labels = torch.arange(12) % 3
        rows = torch.randn(12, 8, generator=draw) + 3 * torch.eye(8)[labels]
        sets[name] = clip_adapter.FeatureSet(rows, labels, ["a", "b", "c"])
    file = folder / "features.safetensors"
    write_features(file, sets, text=torch.eye(8)[:3])
    return file


@dataclass
class Leaking(Method):
    """Asks ``peek`` for test data while it is fitted; not registered."""

    peek: object = None

    name = "leaking"
    summary = citation = ""

    def fit(self, task):
        self.peek()
        return make_method("zero-shot").fit(task)

    def together_key(self):
        return "all"


def ways_to_the_test_split(photos, file):
    opened = load_dataset(photos)
    source = open_source(photos, SourceOptions(backbone=BACKBONE))
    features = open_source(f"{file}#test", SourceOptions())
    classifier = clip_adapter.fit(f"{file}#train", method="zero-shot")
    return {
        "a data set that it loads": lambda: load_dataset(photos),
        "a data set that was loaded": lambda: opened.pool("test"),
        "the source of the pictures": lambda: source.features("test"),
        "features of the test set": lambda: held_out_features(source),
        "a feature file": lambda: load_features(f"{file}#test"),
        "a feature file that was opened": lambda: features.features("test"),
        "a score": lambda: evaluate(classifier, f"{file}#test"),
        "the library's own fit": lambda: clip_adapter.fit(f"{file}#test"),
    }


WAYS = (
    "a data set that it loads",
    "a data set that was loaded",
    "the source of the pictures",
    "features of the test set",
    "a feature file",
    "a feature file that was opened",
    "a score",
    "the library's own fit",
)


@pytest.mark.parametrize("way", WAYS)
def test_a_leaking_method_is_caught(photos, tmp_path, photos_source, way):
    task, facts = make_task(photos_source, shots=2)
    ways = ways_to_the_test_split(photos, features_file(tmp_path))
    assert tuple(ways) == WAYS
    leaking = Leaking(ways[way])
    ways[way]()  # allowed to whoever is no method
    with pytest.raises(LeakError, match="leaking opened"):
        fit_task(leaking, task, facts)
    with pytest.raises(LeakError, match="leaking opened"):
        fit_tasks([leaking, leaking], [task, task], facts)
    ways[way]()  # and again afterwards


OPENED = []


def _hook(event, args):
    if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        OPENED.append(os.fsdecode(args[0]))


sys.addaudithook(_hook)  # cannot be taken away again; it only takes notes


def files_opened_by(method, task, facts):
    OPENED.clear()
    fit_task(method, task, facts)
    return [path for path in OPENED if "/test/" in path]


def test_no_registered_method_opens_a_file_of_the_test_split(photos, photos_source):
    seen = 0
    for name in method_names():
        method = make_method(name, quick(name, epochs=1))
        task, facts = make_task(photos_source, shots=2, method=method)
        assert files_opened_by(method, task, facts) == [], name
        seen += 1
    assert seen > 20


def test_a_method_that_reads_test_files_by_itself_is_seen(photos, photos_source):
    task, facts = make_task(photos_source, shots=2)
    picture = next(Path(photos).glob("test/*/*.png"))
    assert files_opened_by(Leaking(picture.read_bytes), task, facts) == [str(picture)]
