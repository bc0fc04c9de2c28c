"""A transformer block with adapters against independent NumPy arithmetic in double precision."""

import math

import numpy as np
import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

from clip_adapter.nn import ResidualAdapter
from clip_adapter.towers.adapters import Houlsby, Parallel, ResidualInside

B, L, W, HEADS, H = 2, 5, 12, 3, 4
EPSILON = 1e-5


class Tower(nn.Module):
    """The shape of open_clip's vision transformer, from tokens on."""

    def __init__(self, blocks):
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.width = W
        self.transformer.resblocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.transformer.resblocks:
            x = block(x)
        return x[:, 0]


def random_tower(blocks=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        tower = Tower([ResidualAttentionBlock(W, HEADS) for _ in range(blocks)])
        for parameter in tower.parameters():
            nn.init.normal_(parameter, std=0.3)
    return tower.double().eval()


def randomised(adapter):
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return adapter.double()


def numbers(module):
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def layer_norm(x, p, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + EPSILON) * p[f"{name}.weight"] + p[f"{name}.bias"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(x, p):
    fused = x @ p["attn.in_proj_weight"].T + p["attn.in_proj_bias"]
    out = np.zeros_like(x)
    size = W // HEADS
    for b in range(len(x)):
        for h in range(HEADS):
            q, k, v = (fused[b, :, i * W + h * size : i * W + (h + 1) * size] for i in range(3))
            scores = np.exp(q @ k.T / math.sqrt(size))
            out[b, :, h * size : (h + 1) * size] = scores / scores.sum(1, keepdims=True) @ v
    return out @ p["attn.out_proj.weight"].T + p["attn.out_proj.bias"]


def mlp(x, p):
    hidden = gelu(x @ p["mlp.c_fc.weight"].T + p["mlp.c_fc.bias"])
    return hidden @ p["mlp.c_proj.weight"].T + p["mlp.c_proj.bias"]


def plain(y, _):
    return y


def block(x, p, after_attention=plain, after_mlp=plain):
    x = x + after_attention(attention(layer_norm(x, p, "ln_1"), p), None)
    z = layer_norm(x, p, "ln_2")
    return x + after_mlp(mlp(z, p), z)


def branch(q, activation):
    def apply(x):
        return activation(x @ q["down"] + q["down_bias"]) @ q["up"] + q["up_bias"]

    return apply


def relu(x):
    return np.maximum(x, 0)


def houlsby(x, ps, qs):
    for p, q in zip(ps, qs, strict=True):
        if q is None:
            x = block(x, p)
            continue
        first, second = (branch(part, gelu) for part in q)
        x = block(x, p, lambda y, _, f=first: y + f(y), lambda y, _, f=second: y + f(y))
    return x[:, 0]


def parallel(x, ps, qs):
    for p, q in zip(ps, qs, strict=True):
        beside = branch(q, relu)
        x = block(x, p, after_mlp=lambda y, z, f=beside: y + 4 * f(z))
    return x[:, 0]


def residual(x, q, ratio, official):
    new = relu(x @ q["bottleneck.down"]) @ q["bottleneck.up"]
    return ratio * (relu(new) if official else new) + (1 - ratio) * x


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(B, L, W, generator=generator, dtype=torch.float64)


def towers_numbers(tower):
    return [numbers(b) for b in tower.transformer.resblocks]


def check_gradient(adapter, tower, tokens, numpy_loss):
    """Autograd's gradient against central differences of the NumPy forward pass."""
    tower.requires_grad_(False)
    (tower(tokens) ** 2).sum().backward()
    step = 1e-6
    for name, parameter in adapter.named_parameters():
        values = parameter.detach().numpy()
        flat, gradient = values.reshape(-1), parameter.grad.numpy().reshape(-1)
        for i in (0, flat.size // 2, flat.size - 1):
            kept = flat[i]
            flat[i] = kept + step
            above = numpy_loss()
            flat[i] = kept - step
            below = numpy_loss()
            flat[i] = kept
            assert gradient[i] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-6), (
                name
            )


def test_houlsby(tokens):
    tower = random_tower()
    ps = towers_numbers(tower)
    adapter = randomised(Houlsby([2], W, H))
    qs = [None, [numbers(b) for b in adapter.branches["2"]]]
    adapter.attach(tower)
    expected = houlsby(tokens.numpy(), ps, qs)
    np.testing.assert_allclose(tower(tokens).detach().numpy(), expected, rtol=1e-10)
    loss = lambda: (houlsby(tokens.numpy(), ps, qs) ** 2).sum()  # noqa: E731
    check_gradient(adapter, tower, tokens, loss)


def test_parallel(tokens):
    tower = random_tower()
    ps = towers_numbers(tower)
    adapter = randomised(Parallel([1, 2], W, H))
    qs = [numbers(adapter.branches[b]) for b in ("1", "2")]
    adapter.attach(tower)
    expected = parallel(tokens.numpy(), ps, qs)
    np.testing.assert_allclose(tower(tokens).detach().numpy(), expected, rtol=1e-10)
    loss = lambda: (parallel(tokens.numpy(), ps, qs) ** 2).sum()  # noqa: E731
    check_gradient(adapter, tower, tokens, loss)


@pytest.mark.parametrize("activation", ["official", "paper"])
def test_residual_inside(tokens, activation):
    tower = random_tower(3)
    ps = towers_numbers(tower)
    adapters = {i: ResidualAdapter.build(W, H, activation, 0.3) for i in (0, 2, 3)}
    adapter = randomised(ResidualInside(adapters))
    q = {i: numbers(a) for i, a in adapters.items()}
    adapter.attach(tower)
    ratio = float(adapters[0].ratio.value)

    def expected():
        x = residual(tokens.numpy(), q[0], ratio, activation == "official")
        x = block(block(x, ps[0]), ps[1])
        x = block(residual(x, q[2], ratio, activation == "official"), ps[2])
        return residual(x[:, 0], q[3], ratio, activation == "official")

    np.testing.assert_allclose(tower(tokens).detach().numpy(), expected(), rtol=1e-10)
    check_gradient(adapter, tower, tokens, lambda: (expected() ** 2).sum())
