"""ProLIP against independent NumPy arithmetic in double precision: logits, gradient, Adam."""

import numpy as np
import torch

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.heads import Head
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.prolip import EPSILON, fit_projections
from clip_adapter.nn import Projection
from clip_adapter.training.loop import Schedule

N, TRUNK, D, C = 9, 7, 5, 4
SCALE, STRENGTH, RATE, EPOCHS = 6.0, 0.8, 0.03, 4
LABELS = np.array([0, 1, 2, 3, 0, 0, 0, 1, 0])
PRIOR = np.log(np.array([5, 2, 1, 1]) / 5)


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def forward(x, p, b, w):
    return SCALE * unit(x @ p + b) @ unit(w).T


def loss(x, p, b, w, y, start):
    logits = forward(x, p, b, w) + PRIOR
    top = logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return (log_sum - logits[np.arange(N), y]).mean() + STRENGTH * ((p - start) ** 2).sum()


def gradient(x, p, b, w, y, start):
    """By central differences, so that nothing of the derivation is shared."""
    out, h = np.zeros_like(p), 1e-6
    for i in np.ndindex(p.shape):
        step = np.zeros_like(p)
        step[i] = h
        up, down = (loss(x, p + s * step, b, w, y, start) for s in (1, -1))
        out[i] = (up - down) / (2 * h)
    return out


def test_trained_projection():
    """Classes of unequal numbers: their logarithms are added while it is trained."""
    draw = np.random.default_rng(0)
    x, start, b, w = (draw.normal(size=s) for s in ((N, TRUNK), (TRUNK, D), (D,), (C, D)))
    y = LABELS
    p = start.copy()
    mean, square = np.zeros_like(p), np.zeros_like(p)
    for epoch in range(EPOCHS):
        g = gradient(x, p, b, w, y, start)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        corrected = mean / (1 - 0.9 ** (epoch + 1)), square / (1 - 0.999 ** (epoch + 1))
        rate = RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        p = p - rate * corrected[0] / (np.sqrt(corrected[1]) + EPSILON)

    t = [torch.tensor(a, dtype=torch.float32) for a in (x, start, b, w)]
    given = Projection(t[1], t[2])
    features = FeatureSet(torch.ones(N, D), torch.tensor(y), [str(i) for i in range(C)])
    task = FewShotTask(features, t[3], SCALE)
    schedule = Schedule("adamw", RATE, 0.0, N, epochs=EPOCHS, epsilon=EPSILON)
    rows = [torch.arange(N), torch.arange(N).flip(0)]
    got, _ = fit_projections(given, t[0][None], task, STRENGTH, schedule, rows)
    assert np.abs(p - start).max() > 0.02
    np.testing.assert_allclose(got.matrix.detach().numpy(), p, atol=2e-5)
    assert torch.equal(given.matrix.detach(), t[1])  # the start is left as it is
    logits = Head(t[3], got, logit_scale=SCALE)(t[0]).detach().numpy()
    np.testing.assert_allclose(logits, forward(x, p, b, w), atol=1e-4)
