"""The shipped demo CLIP: small, an ordinary open_clip folder, and one that has learned."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn import functional as F

from clip_adapter.backbones.weights import DEMO_FOLDER
from training_world import render_pretraining

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def model():
    return open_clip.create_model(f"local-dir:{DEMO_FOLDER}").eval()


def test_fits_the_budget():
    files = [path for path in DEMO_FOLDER.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "training.json",
    }
    assert sum(path.stat().st_size for path in files) <= 8 * 2**20


def test_was_trained_from_the_config_in_tools():
    shipped = json.loads((DEMO_FOLDER / "open_clip_config.json").read_text())
    assert shipped == json.loads((TOOLS / "demo_clip.json").read_text())


def test_logit_scale_is_learnt_and_within_clips_bound(model):
    scale = model.logit_scale.exp().item()
    assert 1 / 0.07 < scale <= 100
    record = json.loads((DEMO_FOLDER / "training.json").read_text())
    assert scale == pytest.approx(record["logit_scale"], rel=1e-2)


def test_finds_the_captions_of_pictures_it_never_saw(model):
    pictures, captions = render_pretraining(100, seed=99)
    config = model.visual.preprocess_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - mean) / std
    tokens = open_clip.get_tokenizer(f"local-dir:{DEMO_FOLDER}")(captions)
    with torch.inference_mode():
        f = F.normalize(model.encode_image(x), dim=-1)
        w = F.normalize(model.encode_text(tokens), dim=-1)
    right = (f @ w.T).argmax(1) == torch.arange(100)
    assert right.float().mean() > 0.45
