"""Tip-Adapter against independent NumPy arithmetic in double precision."""

import numpy as np
import pytest
import torch
from cache_values import cache_values
from learn import learn

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.tip_adapter import TipAdapter, TipAdapterF

C, D, SCALE, WEIGHT, SHARPNESS = 4, 12, 20.0, 1.7, 2.3
LABELS = [[0, 1, 2, 3], [0, 1, 2, 3, 1, 2, 2], [0, 1, 3, 3, 3, 1]]  # uneven; class 2 without


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def logits_of(f, w, keys, values):
    near = np.exp(-SHARPNESS * (1 - unit(f) @ unit(keys).T))
    return SCALE * unit(f) @ unit(w).T + WEIGHT * near @ values, near


@pytest.fixture(params=LABELS, ids=["even", "uneven", "absent"])
def task(request):
    generator = torch.Generator().manual_seed(5)
    views = 10 * torch.randn(2, len(request.param), D, generator=generator)
    weights = torch.nn.functional.normalize(torch.randn(C, D, generator=generator), dim=-1)
    names = [str(i) for i in range(C)]
    return FewShotTask(FeatureSet(views, torch.tensor(request.param), names), weights, SCALE)


def test_logits_with_two_views(task):
    views, w = task.train.features.double().numpy(), task.text_weights.double().numpy()
    f = np.random.default_rng(0).normal(size=(5, D))
    keys = unit(unit(views).mean(0))
    want, _ = logits_of(f, w, keys, cache_values(task.train.labels.numpy(), C))
    classifier = learn(TipAdapter(WEIGHT, SHARPNESS), task)
    got = classifier.logits(f)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4)
    np.testing.assert_allclose(classifier.head.cache.keys.numpy(), keys, atol=1e-6)


def adamw(p, g, lr, decay=1e-2, eps=1e-4):
    """The first step of AdamW: both averages are the gradient's, whatever their decay."""
    return p * (1 - lr * decay) - lr * g / (np.abs(g) + eps)


def test_one_step_of_tip_adapter_f(task):
    one = FewShotTask(
        FeatureSet(task.train.features[:1], task.train.labels, task.class_names),
        task.text_weights,
        SCALE,
    )
    f, w = one.train.plain_view.double().numpy(), one.text_weights.double().numpy()
    keys = unit(f)
    labels = one.train.labels.numpy()
    values, counts = cache_values(labels, C), np.bincount(labels, minlength=C)
    logits, near = logits_of(f, w, keys, values)
    with np.errstate(divide="ignore"):
        logits = logits + np.log(counts / counts.max())  # while it is trained, and not after
    upstream = (softmax(logits) - np.eye(C)[labels]) / len(labels)
    assert (np.abs(upstream[:, counts == 0]) == 0).all()
    g = (WEIGHT * SHARPNESS * near * (upstream @ values.T)).T @ unit(f)
    g -= keys * (g * keys).sum(1, keepdims=True)
    assert np.abs(g).max() > 1e-3
    want = unit(adamw(keys, g, 0.1 / 2))  # the cosine takes the only step at half the rate
    fitted = learn(TipAdapterF(WEIGHT, SHARPNESS, epochs=1, lr=0.1), one)
    assert np.abs(want - keys).max() > 1e-2
    np.testing.assert_allclose(fitted.head.cache.keys.numpy(), want, atol=5e-5)
