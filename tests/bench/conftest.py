import shutil

import pytest
import torch

from clip_adapter.bench import benchmark
from clip_adapter.bench.benchmark import run_bench
from clip_adapter.bench.data import Environment
from clip_adapter.bench.execute import do_unit
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import write_features

RECIPE = """
title = "Toys"
columns = "dataset"

[[systems]]
label = "zero-shot"
method = "zero-shot"

[[systems]]
label = "0.2"
method = "clip-adapter"
options = { visual_ratio = 0.2, steps = 6 }

[[systems]]
label = "0.6"
method = "clip-adapter"
options = { visual_ratio = 0.6, steps = 6 }

[[systems]]
label = "probe"
method = "linear-probe"
options = { C = 1.0 }

[profile.features]
datasets = ["toys", "others"]
shots = [2]
seeds = [1, 2]
"""


def write_toys(path, seed=0, classes=4, dim=16):
    """Features of 2 and 4 shots and a test set, with text that helps a little."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=draw)
    sets = {}
    for name, count in (("train_2shot", 2), ("train_4shot", 4), ("test", 25)):
        labels = torch.arange(classes).repeat(count)
        noise = 1.5 * torch.randn(len(labels), dim, generator=draw)
        names = [f"class {i}" for i in range(classes)]
        sets[name] = FeatureSet(centres[labels] + noise, labels, names)
    text = centres + torch.randn(classes, dim, generator=draw)
    write_features(path, sets, text=text / text.norm(dim=-1, keepdim=True))


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe with changes to the text, and gives its path."""

    def write(*changes, name="toys"):
        text = RECIPE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{name}.toml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """A folder with two files of features."""
    folder = tmp_path_factory.mktemp("features")
    write_toys(folder / "toys.safetensors")
    write_toys(folder / "others.safetensors", seed=1)
    return folder


@pytest.fixture
def environment(tmp_path, toys):
    return Environment(out=str(tmp_path / "out"), features=str(toys))


def do_units_here(units, environment, jobs, fresh):
    """In the place of the pool: the same work in this process, and no process to start."""
    return ((unit, do_unit(environment, unit)) for unit in units)


@pytest.fixture(scope="session")
def all_done(tmp_path_factory, toys):
    """The folder of a benchmark of ``RECIPE`` that is done."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "toys.toml").write_text(RECIPE, "utf-8")
    done = Environment(out=str(folder / "out"), features=str(toys))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "do_units", do_units_here)
        outcome = run_bench([str(folder / "toys.toml")], profile="features", environment=done)
    assert not outcome.failed
    return folder / "out"


@pytest.fixture
def inside(monkeypatch):
    """Runs are done in this process."""
    monkeypatch.setattr(benchmark, "do_units", do_units_here)


@pytest.fixture
def done(environment, all_done):
    """An environment of one's own where all of ``RECIPE`` is done."""
    shutil.copytree(all_done, environment.out)
    return environment
