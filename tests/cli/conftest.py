import json
import os

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220)}


@pytest.fixture(scope="session")
def tiny(make_folder):
    """A tiny CLIP as a folder, to be named by --backbone."""
    return str(make_folder())


def one_picture(path, colour, seed):
    noise = np.random.default_rng(seed).normal(0, 25, (40, 48, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def task_of_colours(root, per_split, first=0):
    """root/split/colour/*.png."""
    for split, count in per_split.items():
        for k, (name, colour) in enumerate(COLOURS.items()):
            for i in range(count):
                seed = first + 1000 * k + 100 * len(split) + i
                one_picture(root / split / name / f"{i:02d}.png", colour, seed)
    return root


@pytest.fixture
def paint():
    """Writes one picture of a colour to a path."""
    return one_picture


@pytest.fixture
def paint_task():
    """Writes so many pictures of each colour and split into a folder, and gives the folder."""
    return task_of_colours


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Six pictures to learn from and four to test on, of each of three colours."""
    return str(task_of_colours(tmp_path_factory.mktemp("photos"), {"train": 6, "test": 4}))


@pytest.fixture
def run():
    """Runs the command line in this process; gives exit code, stdout and stderr apart."""
    from typer.testing import CliRunner

    from clip_adapter.cli.main import app

    def call(*words, stdin=None):
        return CliRunner().invoke(app, [os.fspath(word) for word in words], input=stdin)

    return call


@pytest.fixture
def run_json(run):
    """Runs a command that must succeed, and gives the one value it prints."""

    def call(*words, stdin=None):
        result = run(*words, stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return call


@pytest.fixture(scope="session")
def fitted(tiny, photos, tmp_path_factory):
    """A classifier of ``photos``."""
    import clip_adapter

    cache = tmp_path_factory.mktemp("fitted-cache")
    return clip_adapter.fit(photos, backbone=tiny, shots=4, cache=cache)


@pytest.fixture(scope="session")
def saved(fitted, tmp_path_factory):
    """The folder of ``fitted``."""
    return str(fitted.save(tmp_path_factory.mktemp("saved") / "classifier"))
