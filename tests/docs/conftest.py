"""A small task in the layout that the pages and examples use, and ``demo`` as the default."""

import pytest
from PIL import Image

from clip_adapter.demo.task import DEMO_CLASSES, class_folder, render_task_picture
from clip_adapter.reporting import log

CLASSES = DEMO_CLASSES[:4]
COUNTS = {"train": 3, "test": 2}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A folder with ``photos/train|test/class``, ``new.jpg`` and ``new-photos/``."""
    root = tmp_path_factory.mktemp("task")
    index = 0

    def save(thing, *parts):
        nonlocal index
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render_task_picture(thing, 5, index)).save(path)
        index += 1

    for thing in CLASSES:
        for split, count in COUNTS.items():
            for i in range(count):
                save(thing, "photos", split, class_folder(thing), f"{i}.png")
        save(thing, "new-photos", f"{thing.shape}.jpg")
    save(CLASSES[0], "new.jpg")
    return root


@pytest.fixture
def task_folder(rendered, tmp_path, monkeypatch):
    """The current folder: a fresh one with links to the pictures; nothing is downloaded.

    The slowest methods of the pages have little to choose: the linear probe looks at two of its
    coarse grid, ``auto`` blends two that train nothing, and others take few steps.
    """
    level = log.level
    for entry in rendered.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clip_adapter.options.DEFAULT_BACKBONE", "demo")
    monkeypatch.setattr("clip_adapter.methods.linear_probe.BISECTIONS", 0)
    monkeypatch.setattr("clip_adapter.methods.linear_probe.COARSE", (1e-2, 1e0))
    monkeypatch.setattr("clip_adapter.training.recipes.FAST_STEPS", 8)
    monkeypatch.setattr("clip_adapter.methods.auto.WITH_TEXT", {"zero-shot": 0.6, "gda": 0.4})
    yield tmp_path
    log.setLevel(level)  # a page sets it
