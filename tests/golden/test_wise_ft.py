"""WiSE-FT's mixture, and the paper's linear classifier, in NumPy."""

import dataclasses

import numpy as np
import pytest
import torch

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.heads import Head
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.wise_ft import RATE, STEPS, WEIGHT_DECAY, linear_classifiers, mixed
from clip_adapter.task import Fitted

N, D, C, SCALE = 8, 5, 4, 20.0


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


@pytest.fixture
def data():
    draw = np.random.default_rng(0)
    x, text = draw.normal(size=(N, D)) * 7, unit(draw.normal(size=(C, D)))
    labels = torch.arange(N) % C
    features = FeatureSet(torch.tensor(x), labels, [str(i) for i in range(C)])
    task = FewShotTask(features, torch.tensor(text, dtype=torch.float32), SCALE)
    return task, x, text, draw


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_cosine(data, share):
    task, x, text, draw = data
    w = 3 * draw.normal(size=(C, D))
    trained = Fitted(Head(torch.tensor(w), logit_scale=SCALE))
    got = mixed(trained, task, share)(task.train.plain_view).numpy()
    want = SCALE * unit(x) @ unit((1 - share) * text + share * unit(w)).T
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_linear(data, share):
    task, x, text, draw = data
    w, bias = 3 * draw.normal(size=(C, D)), draw.normal(size=C)
    head = Head(torch.tensor(w), bias=torch.tensor(bias), kind="linear", unit=True)
    got = mixed(Fitted(head), task, share)(task.train.plain_view).numpy()
    zero_shot, trained = SCALE * unit(x) @ text.T, unit(x) @ w.T + bias
    np.testing.assert_allclose(got, (1 - share) * zero_shot + share * trained, atol=1e-4)


@pytest.mark.parametrize("folder", ["even", "uneven", "misled"])
def test_linear_classifier(data, folder):
    task, x, text, draw = data
    labels = task.train.labels
    if folder == "uneven":  # class 2 has no picture
        labels = torch.tensor([0, 0, 0, 0, 0, 1, 3, 3])
    if (
        folder == "misled"
    ):  # pictures alike, most of another class than their text's: a cut gradient
        other = int(np.argmin(text @ text[0]))
        x = 7 * text[other] + 0.1 * draw.normal(size=(N, D))
        labels = torch.tensor([0] * (N - 1) + [other])
    train = FeatureSet(torch.tensor(x), labels, task.class_names)
    task = dataclasses.replace(task, train=train)
    counts = np.bincount(labels, minlength=C)
    with np.errstate(divide="ignore"):
        prior = np.log(counts / counts.max())
    f, y, w = unit(x), task.train.labels.numpy(), SCALE * text
    mean, square, longest = np.zeros_like(w), np.zeros_like(w), 0.0
    warm, rate = 0.1 * STEPS, RATE * SCALE / 100
    for step in range(STEPS):
        logits = f @ w.T + prior
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(N), y] -= 1
        g = p.T @ f / N
        length = np.sqrt((g**2).sum())
        longest = max(longest, length)
        g = g / max(length, 1)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        corrected = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
        share = (step + 1) / warm
        if step + 1 > warm:
            share = 0.5 * (1 + np.cos(np.pi * (step + 1 - warm) / (STEPS - warm + 1)))
        w = w * (1 - share * rate * WEIGHT_DECAY)
        w = w - share * rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    got = linear_classifiers(task, [torch.arange(N)])[0].head
    assert (longest > 1.2) == (folder == "misled")
    assert np.abs(w - SCALE * text).max() > 0.5
    np.testing.assert_allclose(got.weights.numpy(), w, atol=2e-3)
    np.testing.assert_allclose(got(task.train.plain_view).numpy(), f @ w.T, atol=1e-2)
