"""LP++ against NumPy in double precision: its start, a step of each block, and the descent."""

import itertools

import numpy as np
import pytest
import torch

from clip_adapter.methods.lp_plus_plus import Blocks
from clip_adapter.nn import normalize

C, D = 5, 8
FOLDERS = {"even": [3, 3, 3, 3, 3], "uneven": [6, 1, 2, 4, 2], "absent": [6, 0, 2, 5, 2]}
N = 15


@pytest.fixture(params=FOLDERS)
def data(request):
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(C).repeat_interleave(torch.tensor(FOLDERS[request.param]))
    centres = torch.randn(C, D, generator=generator)
    common = 2 * torch.randn(D, generator=generator)
    noise = torch.randn(N, D, generator=generator)
    text = normalize(common / 2 + centres + torch.randn(C, D, generator=generator))
    return normalize(common + centres[labels] + noise), labels, text


class ByHand:
    """The same descent on explicit logits."""

    def __init__(self, f, y, t):
        self.f, self.t = f.double().numpy(), t.double().numpy()
        self.y = np.eye(C)[y.numpy()]
        self.m = self.f.mean(0)
        counts = self.y.sum(0)
        present = counts > 0
        # Means of the classes, as long as if the pictures were shared out evenly.
        self.w = np.zeros((C, D))
        self.w[present] = (self.y.T @ self.f)[present] / counts[present, None]
        self.w *= N / present.sum()
        self.start = self.w.copy()
        cosines = [(self.f[self.y[:, k] == 1] @ self.t[k]).mean() for k in np.flatnonzero(present)]
        self.alpha = np.full(C, 250 * np.mean(cosines))
        with np.errstate(divide="ignore"):
            self.prior = np.log(counts / counts.max())

    def logits(self, f):
        moved = (f - self.m) @ self.w.T + self.m @ self.start.T
        return moved + (f @ self.t.T) * self.alpha

    def error(self):
        trained = self.logits(self.f) + self.prior
        e = np.exp(trained - trained.max(1, keepdims=True))
        return (e / e.sum(1, keepdims=True) - self.y) / N

    def step_weights(self):
        centred = self.f - self.m
        largest = np.linalg.eigvalsh(centred.T @ centred).max()
        self.w -= 4 * N / largest * self.error().T @ centred

    def step_alpha(self):
        cosines = self.f @ self.t.T
        step = N / (4 * (cosines**2).sum(0).max())
        self.alpha -= step * (self.error() * cosines).sum(0)


def test_start_and_steps(data):
    blocks, hand = Blocks(*data), ByHand(*data)
    np.testing.assert_allclose(blocks.weights.numpy(), hand.start, rtol=1e-5, atol=1e-6)
    for _ in range(3):
        before = hand.w.copy()
        blocks.step_weights(momentum=0.0)
        hand.step_weights()
        assert np.abs(hand.w - before).max() > 1e-2  # a step of nothing would prove nothing
        np.testing.assert_allclose(blocks.weights.numpy(), hand.w, rtol=1e-3, atol=1e-3)
        before = hand.alpha.copy()
        blocks.step_alpha()
        hand.step_alpha()
        assert np.abs(hand.alpha - before).max() > 1e-4
        np.testing.assert_allclose(blocks.alpha.numpy(), hand.alpha, rtol=1e-5)
    want = hand.logits(hand.f) + hand.prior
    np.testing.assert_allclose(blocks.logits().numpy(), want, rtol=1e-3, atol=1e-3)


def test_every_tenth_step_is_one_of_alpha(data):
    blocks, moved = Blocks(*data), []
    for number in range(1, 31):
        alpha, weights = blocks.alpha.clone(), blocks.weights.clone()
        blocks.step(number, momentum=0.0)
        assert torch.equal(blocks.alpha, alpha) != torch.equal(blocks.weights, weights)
        if not torch.equal(blocks.alpha, alpha):
            moved.append(number)
    assert moved == [10, 20, 30]


def test_the_classifier_gives_the_logits_that_were_trained(data):
    blocks, hand = Blocks(*data), ByHand(*data)
    blocks.step_weights(0.0)
    hand.step_weights()
    probe = normalize(torch.randn(6, D, generator=torch.Generator().manual_seed(6)))
    weights, bias = next(blocks.descent(0, 0.0))
    want = hand.logits(probe.double().numpy())
    np.testing.assert_allclose((probe @ weights.T + bias).numpy(), want, rtol=1e-3, atol=1e-3)


def test_without_momentum_no_step_raises_the_loss(data):
    blocks = Blocks(*data)
    losses = [blocks.loss().item()]
    for number in range(1, 61):
        blocks.step(number, momentum=0.0)
        losses.append(blocks.loss().item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(new <= old + 1e-6 for old, new in itertools.pairwise(losses))
