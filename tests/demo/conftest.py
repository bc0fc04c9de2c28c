import dataclasses

import pytest

from clip_adapter.demo import sets, task


@pytest.fixture
def small(monkeypatch):
    """Sets of a few tiny pictures, so that writing them takes no time."""
    few = dataclasses.replace(task.DEMO, unseen=3)
    monkeypatch.setattr(task, "DEMO", few)
    monkeypatch.setitem(sets._SETS, "demo", few)
    monkeypatch.setattr(task, "PER_CLASS", {"train": 2, "test": 1})
    monkeypatch.setattr(task, "TASK_PICTURE_SIZE", 16)
