"""CLIP-Adapter with a cache against independent NumPy arithmetic in double precision."""

import numpy as np
import pytest
import torch
from learn import learn

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.cached_adapter import CachedAdapter

C, D, SCALE, RATIO, WEIGHT, SHARPNESS = 4, 12, 20.0, 0.4, 1.7, 2.3
LABELS = np.array([0, 1, 2, 3, 1, 2, 2])
# All classes of the cache sum alike.
VALUES = np.eye(C)[LABELS] * (len(LABELS) / C / np.bincount(LABELS)[LABELS])[:, None]


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


@pytest.mark.parametrize("activation", ["official", "paper"])
def test_logits(activation):
    generator = torch.Generator().manual_seed(5)
    x = 10 * torch.randn(2, len(LABELS), D, generator=generator)
    text = torch.nn.functional.normalize(torch.randn(C, D, generator=generator), dim=-1)
    task = FewShotTask(FeatureSet(x, torch.tensor(LABELS), list("abcd")), text, SCALE)
    method = CachedAdapter(WEIGHT, SHARPNESS, RATIO, activation)
    classifier = learn(method, task)

    f = np.random.default_rng(0).normal(size=(5, D))
    w1, w2 = (
        p.double().numpy()
        for p in (
            classifier.head.image_map.bottleneck.down,
            classifier.head.image_map.bottleneck.up,
        )
    )
    new = np.maximum(f @ w1, 0) @ w2
    new = np.maximum(new, 0) if activation == "official" else new
    mapped = RATIO * new + (1 - RATIO) * f
    keys = unit(unit(x.double().numpy()).mean(0))
    near = np.exp(-SHARPNESS * (1 - unit(f) @ keys.T))  # of the feature before the adapter
    zero_shot = SCALE * unit(f) @ text.double().numpy().T
    adapted = SCALE * unit(mapped) @ text.double().numpy().T
    assert np.abs(adapted - zero_shot).max() > 1e-2
    want = adapted + WEIGHT * near @ VALUES
    np.testing.assert_allclose(classifier.logits(f).numpy(), want, atol=1e-4)
