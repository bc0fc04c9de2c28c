"""CLIP-Adapter against independent NumPy arithmetic in double precision, forward and gradient."""

import numpy as np
import pytest
import torch

from clip_adapter.methods.clip_adapter import Branches
from clip_adapter.nn import ResidualAdapter

B, C, D, H = 6, 4, 12, 3
SCALE, VISUAL, TEXT = 7.0, 0.3, 0.6


def relu(x):
    return np.maximum(x, 0)


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def unit_gradient(x, upstream):
    """Gradient of x / |x| for rows x."""
    n = np.sqrt((x**2).sum(-1, keepdims=True))
    y = x / n
    return (upstream - y * (upstream * y).sum(-1, keepdims=True)) / n


def adapter_forward(x, w1, w2, ratio, official):
    hidden = relu(x @ w1)
    out = hidden @ w2
    new = relu(out) if official else out
    return ratio * new + (1 - ratio) * x, (x, hidden, out)


def adapter_gradient(upstream, cache, w2, ratio, official):
    x, hidden, out = cache
    g_out = ratio * upstream * ((out > 0) if official else 1.0)
    g_hidden = (g_out @ w2.T) * (hidden > 0)
    return x.T @ g_hidden, hidden.T @ g_out


def cross_entropy(logits, y):
    shifted = logits - logits.max(1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    p[np.arange(len(y)), y] -= 1
    return loss, p / len(y)


@pytest.mark.parametrize("activation", ["official", "paper"])
def test_forward_and_gradient(activation):
    generator = torch.Generator().manual_seed(3)
    f = torch.randn(B, D, generator=generator) * 10  # raw CLIP features are about 10 long
    w = torch.randn(C, D, generator=generator)
    y = torch.tensor([0, 1, 2, 3, 1, 2])
    visual = ResidualAdapter.build(D, H, activation, VISUAL, generator=generator)
    text = ResidualAdapter.build(D, H, activation, TEXT, generator=generator)
    logits = SCALE * Branches(visual, text, w)(f)
    loss = torch.nn.functional.cross_entropy(logits, y)
    loss.backward()

    official = activation == "official"
    v1, v2, t1, t2 = (
        p.detach().double().numpy()
        for p in (
            visual.bottleneck.down,
            visual.bottleneck.up,
            text.bottleneck.down,
            text.bottleneck.up,
        )
    )
    mapped, visual_cache = adapter_forward(f.double().numpy(), v1, v2, VISUAL, official)
    weights, text_cache = adapter_forward(w.double().numpy(), t1, t2, TEXT, official)
    expected = SCALE * unit(mapped) @ unit(weights).T
    expected_loss, g = cross_entropy(expected, y.numpy())
    g_mapped = unit_gradient(mapped, SCALE * g @ unit(weights))
    g_weights = unit_gradient(weights, SCALE * g.T @ unit(mapped))
    g_v1, g_v2 = adapter_gradient(g_mapped, visual_cache, v2, VISUAL, official)
    g_t1, g_t2 = adapter_gradient(g_weights, text_cache, t2, TEXT, official)

    np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-5)
    assert abs(loss.item() - expected_loss) < 1e-5
    for got, want in (
        (visual.bottleneck.down, g_v1),
        (visual.bottleneck.up, g_v2),
        (text.bottleneck.down, g_t1),
        (text.bottleneck.up, g_t2),
    ):
        assert np.abs(want).max() > 1e-3  # a gradient of nothing would prove nothing
        np.testing.assert_allclose(got.grad.numpy(), want, atol=1e-5)


def test_official_sgd_step_is_momentum_with_weight_decay():
    from clip_adapter.training.loop import Optimizer
    from clip_adapter.training.recipes import official_schedule

    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    module = torch.nn.Module()
    module.weight = weight
    optimizer = Optimizer(module, official_schedule(1, 10))
    value, velocity = np.array([1.0, -2.0]), np.zeros(2)
    for gradient in (np.array([0.5, 0.1]), np.array([-0.2, 0.3])):
        weight.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step(2e-3)
        velocity = 0.9 * velocity + gradient + 5e-4 * value
        value = value - 2e-3 * velocity
    np.testing.assert_allclose(weight.detach().numpy(), value, rtol=1e-6)
    assert weight.grad is None


def test_parameter_count_of_the_paper():
    adapter = ResidualAdapter.build(1024, 256)
    assert sum(p.numel() for p in adapter.parameters()) == 524_288
