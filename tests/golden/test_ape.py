"""APE and APE-T against independent NumPy arithmetic in double precision."""

import itertools

import numpy as np
import pytest
import torch
from cache_values import cache_values
from learn import learn

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.ape import APE
from clip_adapter.methods.ape_t import APET, Residuals
from clip_adapter.methods.cache import best_channels, criterion

C, D, SCALE, WEIGHT, SHARPNESS = 4, 12, 20.0, 1.7, 2.3
LABELS = np.array([0, 1, 2, 3, 1, 2, 2])
N, Q = len(LABELS), 6


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def wanted_criterion(w, share, samples=None):
    """The loops of the definition; ``samples`` are pairs (class, vector) besides the text."""
    members = list(enumerate(w)) + (samples or [])
    products = [a * b for (i, a), (j, b) in itertools.permutations(members, 2) if i != j]
    variance = ((w - w.mean(0)) ** 2).sum(0) / (len(w) - 1)
    return -share * np.mean(products, 0) + (1 - share) * variance


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(5)
    x = 10 * torch.randn(1, N, D, generator=generator)
    weights = torch.nn.functional.normalize(torch.randn(C, D, generator=generator), dim=-1)
    names = [str(i) for i in range(C)]
    return FewShotTask(FeatureSet(x, torch.tensor(LABELS), names), weights, SCALE)


@pytest.mark.parametrize("with_shots", [False, True])
def test_criterion_and_choice(task, with_shots):
    w, keys = task.text_weights, unit(task.train.plain_view.double().numpy())
    samples = list(zip(LABELS.tolist(), keys, strict=True)) if with_shots else None
    want = wanted_criterion(w.double().numpy(), 0.7, samples)
    given = (torch.tensor(keys), torch.tensor(LABELS)) if with_shots else ()
    got = criterion(w, 0.7, *given)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-9)
    largest = sorted(np.argsort(-want)[:Q].tolist())
    assert best_channels(got, Q / D).tolist() == largest


def test_logits_of_ape(task):
    w, keys = task.text_weights.double().numpy(), unit(task.train.plain_view.double().numpy())
    f = np.random.default_rng(0).normal(size=(5, D))
    scores = wanted_criterion(w, 0.7, list(zip(LABELS.tolist(), keys, strict=True)))
    index = np.argsort(-scores)[:Q]
    p = softmax(unit(keys[:, index]) @ unit(w[:, index]).T)[np.arange(N), LABELS]
    amounts = np.exp(0.6 * np.log2(1 / p))
    assert amounts.std() > 0.01
    near = np.exp(-SHARPNESS * (1 - unit(f[:, index]) @ unit(keys[:, index]).T))
    want = SCALE * unit(f) @ unit(w).T + WEIGHT * (near * amounts) @ cache_values(LABELS, C)
    method = APE(WEIGHT, SHARPNESS, channels=Q / D, misjudged_weight=0.6)
    np.testing.assert_allclose(learn(method, task).logits(f).numpy(), want, rtol=1e-4)


def unit_gradient(x, upstream):
    n = np.sqrt((x**2).sum(-1, keepdims=True))
    y = x / n
    return (upstream - y * (upstream * y).sum(-1, keepdims=True)) / n


@pytest.mark.parametrize("own", [LABELS, [0, 1, 2, 0, 1, 2, 2]], ids=["all", "absent"])
def test_gradient_of_ape_t(task, own):
    """Forward and gradient of residuals and shot weights, from a start that is not nought."""
    task.train.labels = torch.tensor(own)  # some of no picture: a shot speaks for several then
    values = cache_values(np.array(own), C)
    index = torch.tensor([0, 2, 3, 7, 8, 11])
    keys = torch.nn.functional.normalize(task.train.plain_view, dim=-1)
    labels = task.train.labels
    start = torch.tensor(values, dtype=torch.float32)[None]
    module = Residuals(task.text_weights, keys, labels, index, start)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        module.residual.normal_(0, 0.3, generator=generator)
        module.amounts.uniform_(0.5, 1.5, generator=generator)
    logits = module(task.train.features, SCALE, WEIGHT, SHARPNESS)[0]
    torch.nn.functional.cross_entropy(logits, labels).backward()

    f, w, k = (t.double().numpy() for t in (task.train.plain_view, task.text_weights, keys))
    i, r = index.numpy(), module.residual.detach()[0].double().numpy()
    v = module.amounts.detach()[0, :, 0].double().numpy()
    text = w.copy()
    text[:, i] += r
    moved = k[:, i] + r[own]
    # The affinity is taken of the feature's chosen channels, of unit length there.
    seen = unit(unit(f)[:, i])
    near = np.exp(-SHARPNESS * (1 - seen @ unit(moved).T))
    hot = np.eye(C)[own]
    want = SCALE * unit(f) @ unit(text).T + WEIGHT * (near * v) @ values
    np.testing.assert_allclose(logits.detach().numpy(), want, atol=1e-4)

    up = (softmax(want) - hot) / N
    shots = WEIGHT * near * (up @ values.T)  # (B, n): what a shot's weight does to the loss
    g_keys = unit_gradient(moved, (SHARPNESS * shots * v).T @ seen)
    g_text = unit_gradient(text, SCALE * up.T @ unit(f))
    g_residual = g_text[:, i] + hot.T @ g_keys
    assert np.abs(hot.T @ g_keys).max() > 1e-3
    np.testing.assert_allclose(module.residual.grad[0].numpy(), g_residual, atol=1e-5)
    np.testing.assert_allclose(module.amounts.grad[0, :, 0].numpy(), shots.sum(0), atol=1e-5)


def test_a_shot_that_a_run_is_not_to_see_changes_nothing(task):
    index = torch.arange(Q)
    keys = torch.nn.functional.normalize(task.train.plain_view, dim=-1)
    used = torch.tensor(cache_values(LABELS, C), dtype=torch.float32)[None]
    used[0, 2] = 0
    other = keys.clone()
    other[2] = -keys[2]
    both = [
        Residuals(task.text_weights, k, task.train.labels, index, used)(
            task.train.features, SCALE, WEIGHT, SHARPNESS
        )
        for k in (keys, other)
    ]
    assert torch.equal(*both)


def test_nothing_trained_is_tip_adapter_on_the_channels(task):
    """At a rate that moves nothing, APE-T is zero-shot plus the cache on its channels."""
    f = np.random.default_rng(0).normal(size=(5, D))
    w, keys = task.text_weights.double().numpy(), unit(task.train.plain_view.double().numpy())
    index = np.argsort(-wanted_criterion(w, 0.2))[:Q]
    near = np.exp(-SHARPNESS * (1 - unit(f[:, index]) @ unit(keys[:, index]).T))
    want = SCALE * unit(f) @ unit(w).T + WEIGHT * near @ cache_values(LABELS, C)
    got = learn(APET(WEIGHT, SHARPNESS, channels=Q / D, lr=1e-12), task).logits(f)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4)
