import json

import pytest
import torch
from safetensors.torch import save_file

CONFIG = {
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


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory):
    """Makes a tiny CLIP as a folder; ``changes`` go into its configuration."""
    import open_clip

    def make(custom_text=False, **changes):
        folder = tmp_path_factory.mktemp("tiny")
        config = {**CONFIG, **changes}
        kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = kind(**config)
        if custom_text:
            config["custom_text"] = True
        told = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
        (folder / "open_clip_config.json").write_text(json.dumps(told))
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return make


@pytest.fixture(scope="session")
def folder(make_folder):
    return make_folder()


@pytest.fixture(scope="session")
def tiny(folder):
    from clip_adapter.backbones import load_backbone

    return load_backbone(str(folder), device="cpu")
