import json

import numpy as np
import pytest
import torch
from PIL import Image

from clip_adapter.data.dataset import Sample

TINY = {
    "embed_dim": 16,
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
        "layers": 1,
    },
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A tiny CLIP as a folder: open_clip_config.json and a safetensors checkpoint."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = open_clip.CLIP(**TINY)
    config = {
        "model_cfg": TINY,
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    from clip_adapter.backbones import load_backbone

    return load_backbone(str(tiny_folder), device="cpu")


@pytest.fixture
def pictures(tmp_path):
    """Makes n random pictures in a folder, and gives their samples."""

    def make(n, start=0, folder="pictures"):
        (tmp_path / folder).mkdir(exist_ok=True)
        samples = []
        for i in range(start, start + n):
            path = tmp_path / folder / f"{i:03d}.png"
            pixels = np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            samples.append(Sample(path.name, i % 3, path))
        return samples

    return make
