import json

import pytest


@pytest.fixture(scope="session")
def folder(make_folder):
    return make_folder()


@pytest.fixture(scope="session")
def tiny(folder):
    from clip_adapter.backbones import load_backbone

    return load_backbone(str(folder), device="cpu")


@pytest.fixture
def tiny_config(folder):
    return json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]


@pytest.fixture
def architectures(monkeypatch, tiny_config):
    """A small architecture that exists with either activation, and one that does not."""
    import open_clip

    quick = tiny_config | {"quick_gelu": True}
    for name, config in {
        "Tiny": tiny_config,
        "Tiny-quickgelu": quick,
        "Alone": tiny_config,
    }.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
