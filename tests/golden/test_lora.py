"""Low-rank attention against independent NumPy arithmetic, merged against unmerged."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from clip_adapter.towers.lora import LoraAttention, LowRank

B, L, W, HEADS, RANK, ALPHA = 2, 5, 12, 3, 2, 1.5


def small_attention(dropout=0.0, batch_first=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        attention = nn.MultiheadAttention(W, HEADS, batch_first=batch_first)
        low_rank = LowRank(W, RANK, ALPHA, dropout)
        for parameter in (*attention.parameters(), *low_rank.parameters()):
            nn.init.normal_(parameter, std=0.5)
        x = torch.randn(B, L, W, dtype=torch.float64)
    attention.requires_grad_(False)
    return LoraAttention(attention, low_rank).double(), x


def numpy_attention(module, x, mask):
    base, part = module.attention, module.low_rank
    a, b = part.a.detach().numpy(), part.b.detach().numpy()
    weight, bias = base.in_proj_weight.numpy(), base.in_proj_bias.numpy()
    scale, size = ALPHA / math.sqrt(RANK), W // HEADS
    projected = []
    for i in range(3):
        rows = slice(i * W, (i + 1) * W)
        projected.append(x @ (weight[rows] + scale * b[i] @ a[i]).T + bias[rows])
    out = np.zeros_like(x)
    for n in range(len(x)):
        for h in range(HEADS):
            columns = slice(h * size, (h + 1) * size)
            q, k, v = (p[n, :, columns] for p in projected)
            scores = np.exp(q @ k.T / math.sqrt(size) + mask)
            out[n, :, columns] = scores / scores.sum(1, keepdims=True) @ v
    return out @ base.out_proj.weight.numpy().T + base.out_proj.bias.numpy()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("route", ["merged", "unmerged"])
def test_formula_and_gradient(route, causal):
    module, x = small_attention()
    mask = np.triu(np.full((L, L), -np.inf), 1) if causal else np.zeros((L, L))
    given = torch.from_numpy(mask)
    out = getattr(module, route)(x, given)
    expected = numpy_attention(module, x.numpy(), mask)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-10)
    (out**2).sum().backward()
    step = 1e-6
    for parameter in (module.low_rank.a, module.low_rank.b):
        values = parameter.detach().numpy()
        flat, gradient = values.reshape(-1), parameter.grad.numpy().reshape(-1)
        for i in (0, flat.size // 2, flat.size - 1):
            kept, sums = flat[i], []
            for moved in (kept + step, kept - step):
                flat[i] = moved
                sums.append((numpy_attention(module, x.numpy(), mask) ** 2).sum())
            flat[i] = kept
            assert gradient[i] == pytest.approx((sums[0] - sums[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_merged_is_unmerged(batch_first):
    module, x = small_attention(batch_first=batch_first)
    x = x / 10 if batch_first else x.transpose(0, 1) / 10
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        module, x = module.to(dtype), x.to(dtype)
        torch.testing.assert_close(module.merged(x), module.unmerged(x), rtol=0, atol=tolerance)


def test_dropout_is_on_the_input_of_a_alone():
    module, x = small_attention(dropout=0.5)
    torch.manual_seed(11)
    keep = [torch.nn.functional.dropout(torch.ones_like(x), 0.5) for _ in range(3)]
    assert not torch.equal(keep[0], keep[1])
    part = module.low_rank
    expected = [
        ALPHA / math.sqrt(RANK) * (x * keep[i]) @ part.a[i].T @ part.b[i].T for i in range(3)
    ]
    torch.manual_seed(11)
    torch.testing.assert_close(part(x), torch.cat(expected, -1))
    torch.manual_seed(11)
    noisy = module(x)[0]
    module.eval()
    torch.testing.assert_close(module(x)[0], module.merged(x))
    assert not torch.allclose(module(x)[0], noisy)


def test_merged_is_what_a_merged_weight_gives():
    module, x = small_attention()
    module.eval()
    merged = nn.MultiheadAttention(W, HEADS, batch_first=True).double()
    merged.load_state_dict(module.attention.state_dict())
    with torch.no_grad():
        merged.in_proj_weight += module.low_rank.delta()
        expected = merged(x, x, x, need_weights=False)[0]
        torch.testing.assert_close(module(x)[0], expected, rtol=0, atol=1e-12)
