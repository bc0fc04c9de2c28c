"""CLAP's penalty against NumPy in double precision: its weights, its value, its gradient."""

import numpy as np
import torch

from clip_adapter.methods.clap import distance, penalty_weights
from clip_adapter.nn.cosine import RAW_LENGTH, TextResidual

V, N, C, D, SCALE = 2, 7, 4, 6, 9.0


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make():
    generator = torch.Generator().manual_seed(8)
    features = 10 * torch.randn(V, N, D, generator=generator)
    labels = torch.tensor([0, 0, 1, 3, 3, 3, 1])  # class 2 has no picture
    return features, labels, torch.randn(C, D, generator=generator)


def test_penalty_weights_are_mean_zero_shot_probabilities_of_the_right_class():
    features, labels, text = make()
    want = np.zeros(C)
    for c in range(C):
        right = []
        for view in features.double().numpy():
            for row in unit(view[labels.numpy() == c]):
                z = SCALE * unit(text.double().numpy()) @ row
                right.append(np.exp(z[c]) / np.exp(z).sum())
        want[c] = np.mean(right) if right else 0
    got = penalty_weights(features, labels, text, SCALE)
    assert want[2] == 0
    assert len(set(want.round(3))) == C
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5)


def test_penalty_and_its_gradient():
    _, labels, text = make()
    generator = torch.Generator().manual_seed(9)
    module = TextResidual(text, labels)
    held = torch.tensor([0.9, 0.2, 0.0, 0.5])
    with torch.no_grad():
        module.residual.copy_(torch.randn(1, C, D, generator=generator))
    value = distance(module, held)
    value.sum().backward()
    present = np.array([0, 1, 3])
    weights = module.class_weights()[0].detach().double().numpy()
    away = weights - RAW_LENGTH * unit(text.double().numpy())
    lambdas = held.double().numpy()
    want = (lambdas[present] * (away[present] ** 2).sum(1)).sum() / C
    np.testing.assert_allclose(value.item(), want, rtol=1e-5)
    gradient = 2 / C * lambdas[:, None] * away
    assert module.residual.grad is not None
    np.testing.assert_allclose(module.residual.grad.numpy()[0], gradient, rtol=1e-4, atol=1e-6)
