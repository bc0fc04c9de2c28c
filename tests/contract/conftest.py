"""A small task with a prior that helps: text weights near the classes' true directions."""

import functools

import pytest
import torch
from PIL import Image

from clip_adapter.demo.task import (
    DEMO_CLASSES,
    PER_CLASS,
    TASK_SEED,
    class_folder,
    render_task_picture,
)
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.nn import normalize

C, D, K = 6, 32, 8
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
# D is 16, 16 and 64; the towers are 32, 256 and 64 wide, and their text towers 8: one size stands
# for another nowhere but in the visual tower of SigLIP, whose D is its width.
ARCHITECTURES = {
    "transformer": {
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": TEXT,
    },
    "resnet": {
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
        "text_cfg": TEXT,
    },
    "siglip": {
        "custom_text": True,
        "embed_dim": 64,
        "init_logit_bias": -10.0,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit2",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
}


def features(centres, per_class, seed, noise=1.2):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(centres)).repeat_interleave(per_class)
    x = centres[labels] + noise * torch.randn(len(labels), D, generator=generator) / D**0.5
    return FeatureSet(
        10 * x,
        labels,
        [f"class {i}" for i in range(len(centres))],
        digests=[f"{seed}-{i}" for i in range(len(labels))],
    )


@pytest.fixture(scope="session")
def world():
    """(task, test features)."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(C, D, generator=generator))
    text = normalize(centres + 0.8 * torch.randn(C, D, generator=generator) / D**0.5)
    task = FewShotTask(features(centres, K, 1), text, 30.0, seed=1)
    return task, features(centres, 40, 2)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of the demo task's pictures: 6 classes, 6 to train and 3 to test of each."""
    root = tmp_path_factory.mktemp("demo")
    things = sorted(DEMO_CLASSES, key=class_folder)[::3][:C]
    for split, first, count in (("train", 0, 6), ("test", PER_CLASS["train"], 3)):
        for thing in things:
            folder = root / split / class_folder(thing)
            folder.mkdir(parents=True)
            for i in range(count):
                picture = render_task_picture(thing, TASK_SEED, first + i)
                Image.fromarray(picture).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def tiny_backbone(make_folder):
    """tiny_backbone(architecture): the name of a tiny backbone, one of ARCHITECTURES."""
    return functools.cache(lambda name: f"local-dir:{make_folder(**ARCHITECTURES[name])}")
