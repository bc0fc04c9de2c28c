"""ELEVATER's heads against SGD in NumPy, double precision, with the normalisation written out."""

import numpy as np
import pytest
import torch
from learn import learn

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask

N, D, C, VIEWS = 12, 6, 3, 1
RATE, DECAY, EPOCHS = 0.2, 0.05, 5


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def reference(x, y, w, c):
    """Momentum 0.9, weight decay on both, all pictures in every batch, a constant rate."""
    m, v = x.mean(0), x.var(0)
    g = (x - m) / np.sqrt(v + 1e-5)
    speed_w, speed_c = 0, 0
    for _ in range(EPOCHS):
        p = softmax(g @ w.T + c)
        p[np.arange(N), y] -= 1
        speed_w = 0.9 * speed_w + p.T @ g / N + DECAY * w
        speed_c = 0.9 * speed_c + p.mean(0) + DECAY * c
        w, c = w - RATE * speed_w, c - RATE * speed_c
    return lambda new: ((new - m) / np.sqrt(v + 1e-5)) @ w.T + c


@pytest.fixture
def data():
    draw = np.random.default_rng(0)
    y = np.arange(N) % C
    # channels of very different spread and place: without the normalisation all would differ
    x = draw.normal(size=(N, D)) * 10.0 ** np.arange(-2, D - 2) + 5 * draw.normal(size=D)
    text = draw.normal(size=(C, D))
    text /= np.sqrt((text**2).sum(1, keepdims=True))
    return x, y, text, draw.normal(size=(4, D)) * x.std(0) + x.mean(0)


def fitted(name, x, y, text):
    features = FeatureSet(torch.tensor(x), torch.tensor(y), [str(i) for i in range(C)])
    task = FewShotTask(features, torch.tensor(text, dtype=torch.float32), 100.0)
    options = {"lr": RATE, "weight_decay": DECAY, "epochs": EPOCHS, "batch_size": 64}
    return learn(name, task, options)


def test_l_2p(data):
    x, y, text, new = data
    x = x.astype(np.float32).astype(np.float64)
    want = reference(x, y, text, np.zeros(C))(new)
    got = fitted("l-2p", x, y, text).logits(torch.tensor(new)).numpy()
    assert np.abs(want).max() > 0.5
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_r_2p_starts_as_a_linear_layer_of_torch(data):
    x, y, text, new = data
    generator = torch.Generator().manual_seed(1)
    bound = 1 / np.sqrt(D)
    w = torch.empty(C, D).uniform_(-bound, bound, generator=generator).double().numpy()
    c = torch.empty(1, C).uniform_(-bound, bound, generator=generator)[0].double().numpy()
    want = reference(x, y, w, c)(new)
    got = fitted("r-2p", x, y, text).logits(torch.tensor(new)).numpy()
    np.testing.assert_allclose(got, want, atol=2e-3)
