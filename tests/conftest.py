"""What holds for every test: no network, no cache of the user's, the same draws each time."""

import os
from pathlib import Path

# Read when huggingface_hub and torch are imported, so set before any test module is. One thread:
# the tasks are tiny, and threads that wait for each other cost more than they bring.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """A feature store of the test's own, also in the processes that it starts."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLIP_ADAPTER_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def root():
    """The root of the project."""
    return ROOT


@pytest.fixture(scope="session")
def shared():
    """The folder ../shared beside the project, or a skip."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared here")
    return folder
