"""TaskRes against NumPy in double precision, forward and gradient."""

import numpy as np
import torch

from clip_adapter.nn.cosine import TextResidual

B, C, D, SCALE, SHARE = 6, 4, 7, 12.0, 0.5


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_forward_and_gradient():
    generator = torch.Generator().manual_seed(1)
    f = 10 * torch.randn(B, D, generator=generator)
    text = torch.randn(C, D, generator=generator)
    y = torch.tensor([0, 1, 3, 0, 1, 3])  # class 2 has no picture
    module = TextResidual(text, y, SHARE)
    with torch.no_grad():
        module.residual.copy_(torch.randn(1, C, D, generator=generator))
    logits = SCALE * module(f[None])[0]
    torch.nn.functional.cross_entropy(logits, y).backward()

    x = module.residual.detach().double().numpy()[0]
    live = np.array([1.0, 1.0, 0.0, 1.0])[:, None]
    weights = 8.7 * unit(text.double().numpy()) + SHARE * live * x
    features = unit(f.double().numpy())
    want = SCALE * features @ unit(weights).T
    np.testing.assert_allclose(logits.detach().numpy(), want, rtol=1e-5, atol=1e-5)

    p = np.exp(want - want.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    upstream = SCALE * ((p - np.eye(C)[y.numpy()]) / B).T @ features
    length = np.linalg.norm(weights, axis=1, keepdims=True)
    direction = weights / length
    through = (upstream - direction * (upstream * direction).sum(1, keepdims=True)) / length
    gradient = SHARE * live * through
    assert np.abs(gradient).max() > 1e-3
    assert module.residual.grad is not None
    np.testing.assert_allclose(module.residual.grad.numpy()[0], gradient, rtol=1e-4, atol=1e-6)


def test_it_starts_at_zero_shot():
    text = torch.randn(C, D, generator=torch.Generator().manual_seed(2))
    weights = TextResidual(text, torch.arange(C)).class_weights()[0]
    assert torch.equal(weights, 8.7 * torch.nn.functional.normalize(text, dim=-1))
