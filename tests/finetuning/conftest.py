"""A small task with pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from pixel_training import SIZE, D

from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.dataset import Sample
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.pixels import Pictures
from clip_adapter.methods import FewShotTask
from clip_adapter.nn import normalize

CLASSES, SHOTS = 4, 4


@pytest.fixture
def task(tmp_path):
    """Pictures of four colours, noisy."""
    draw = np.random.default_rng(0)
    colours = draw.integers(60, 200, (CLASSES, 3))
    labels = torch.arange(CLASSES).repeat(SHOTS)
    samples = []
    for i, label in enumerate(labels.tolist()):
        noise = draw.integers(-55, 55, (20, 20, 3))
        path = tmp_path / f"{i}.png"
        Image.fromarray((colours[label] + noise).astype(np.uint8)).save(path)
        samples.append(Sample(path.name, label, path))
    digests = [f"{i:02x}" for i in range(len(samples))]
    pictures = Pictures(
        samples, digests, Preprocess(SIZE, (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest")
    )
    features = FeatureSet(torch.ones(len(labels), D), labels, list("abcd"), digests=digests)
    text = normalize(torch.randn(CLASSES, D, generator=torch.Generator().manual_seed(0)))
    return FewShotTask(features, text, 20.0, seed=3, pictures=pictures)
