"""What holds for every test: no network, no cache of the user's, the same draws each time."""

import functools
import itertools
import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

# Read when huggingface_hub and torch are imported, so set before any test module is. One thread:
# the tasks are tiny, and threads that wait for each other cost more than they bring.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

settings.register_profile("fixed", max_examples=50, derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220)}
TINY_CLIP = {
    "embed_dim": 16,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}


def pytest_addoption(parser):
    parser.addoption(
        "--fake-accelerator",
        action="store_true",
        help="run as where there is a card: the device auto finds a pretend accelerator",
    )


@pytest.fixture(scope="session", autouse=True)
def fake_accelerator(request):
    """With ``--fake-accelerator``, "auto" finds one, and what mixes devices fails."""
    if not request.config.getoption("--fake-accelerator"):
        yield
        return
    from fake_accelerator import present

    with present():
        yield


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """Folders that are not there yet, one after the other."""
    root = tmp_path_factory.mktemp("caches")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_cache(caches, monkeypatch):
    """A feature store of the test's own, also in the processes that it starts."""
    folder = next(caches)
    monkeypatch.setenv("CLIP_ADAPTER_CACHE", str(folder))
    return folder


@pytest.fixture
def lines(caplog):
    """What the library says from here on: ``lines.messages``, those of ``log.info`` too."""
    caplog.set_level(logging.INFO, "clip_adapter")
    return caplog


@pytest.fixture(scope="session", autouse=True)
def one_vocabulary():
    """open_clip reads its 48,894 merges once, and not again for every backbone."""
    from open_clip import factory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "SimpleTokenizer", functools.cache(factory.SimpleTokenizer))
        yield


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


@pytest.fixture
def small_tensors():
    """A context in which no tensor of more than a million numbers may get memory."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Small(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            large = isinstance(out, torch.Tensor) and out.numel() > 10**6 and not out.is_meta
            assert not large, f"{func} made a tensor of {out.numel()} numbers"
            return out

    return Small()


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory):
    """Makes a tiny CLIP as a folder; ``changes`` go into its configuration."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    def make(custom_text=False, **changes):
        folder = tmp_path_factory.mktemp("tiny")
        config = {**TINY_CLIP, **changes}
        kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = kind(**config)
        if custom_text:
            config["custom_text"] = True
        config = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return make


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """A folder of tiny pictures: 2, 3 and 4 to train of three colours, 2 to test of each."""
    import numpy as np
    from PIL import Image

    root, generator = tmp_path_factory.mktemp("uneven"), np.random.default_rng(0)
    for split, counts in {"train": (2, 3, 4), "test": (2, 2, 2)}.items():
        for (name, colour), count in zip(COLOURS.items(), counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.array(colour) + generator.normal(0, 25, (24, 32, 3))
                picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                picture.save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of its own: ``files`` by size, ``source`` of their content, what was ``asked``.

    With ``error`` it fails, and with ``wait`` it does not answer.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    here = SimpleNamespace(
        files={}, source=None, asked=[], error=None, wait=None, cache=tmp_path / "hub"
    )

    def metadata(url, **options):
        name = url.rpartition("/")[2]
        here.asked.append(name)
        if here.wait:
            here.wait.wait(10)
        if here.error:
            raise here.error
        if name not in here.files:
            raise EntryNotFoundError(f"no {name}")
        return SimpleNamespace(size=here.files[name], commit_hash="0" * 40)

    def path_of(repo, name):
        return here.cache / repo.replace("/", "--") / name

    def fetch(repo, name):
        path = path_of(repo, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(here.source / name, path) if here.source else path.touch() or path)

    def cached(repo, name, revision=None):
        return str(path_of(repo, name)) if path_of(repo, name).exists() else None

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    return here
