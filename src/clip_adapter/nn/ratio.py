"""Residual ratios: the share of the new feature, fixed, learnt, or predicted for each input.

The paper (section 3.3) names three ways: a constant, a learnable parameter, and a hypernetwork
``ratio = Q(f, W)`` that predicts it from the visual feature (or the classifier weight). No code of
the last was released; ours is the smallest network that does it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clip_adapter.nn.bottleneck import linear_init
from clip_adapter.nn.cosine import normalize

# A hypernetwork of H = D/16 units adds a tenth of the adapter's own parameters.
HYPERNETWORK_REDUCTION = 16


class Ratio(nn.Module):
    """Maps inputs (..., B, D) to ratios that broadcast over them, each in 0..1."""

    def forward(self, x: Tensor) -> Tensor:
        """Ratios (..., 1, 1) or (..., B, 1)."""
        raise TypeError(f"{type(self).__name__} does not say how it computes ratios")


class FixedRatio(Ratio):
    """One constant, or one per run (R,)."""

    value: Tensor

    def __init__(self, value: float | Tensor) -> None:
        super().__init__()
        self.register_buffer("value", torch.as_tensor(value, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.value[..., None, None]


class LearnableRatio(Ratio):
    """One trained scalar per run, kept in 0..1 by a sigmoid; starts at ``start``."""

    def __init__(self, start: float, runs: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.full(runs, logit(start)))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.sigmoid(self.logit)[..., None, None]


class HypernetworkRatio(Ratio):
    """A ratio per row, ``sigmoid(ReLU(x W1) w2 + b)`` of the unit-length row x."""

    def __init__(
        self,
        dim: int,
        start: float,
        runs: tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        hidden = max(dim // HYPERNETWORK_REDUCTION, 4)
        self.down = nn.Parameter(linear_init((*runs, dim, hidden), dim, generator))
        self.out = nn.Parameter(torch.zeros(*runs, hidden, 1))
        self.bias = nn.Parameter(torch.full((*runs, 1, 1), logit(start)))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.sigmoid(torch.relu(normalize(x) @ self.down) @ self.out + self.bias)


def logit(p: float) -> float:
    """The inverse of the sigmoid, for 0 < p < 1."""
    return math.log(p / (1 - p))
