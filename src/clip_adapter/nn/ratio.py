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

# Where a learnt or predicted ratio starts: the paper's optimum on generic data (section 4.2.4).
RATIO_START = 0.2
LOGIT_START = math.log(RATIO_START / (1 - RATIO_START))
# A hypernetwork of H = D/16 units adds a tenth of the adapter's own parameters.
HYPERNETWORK_REDUCTION = 16


class FixedRatio(nn.Module):
    """One constant, or one per run (R,)."""

    def __init__(self, value: float | Tensor) -> None:
        super().__init__()
        self.value = nn.Buffer(torch.as_tensor(value, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Ratios (..., 1, 1) that broadcast over x (..., B, D)."""
        return self.value[..., None, None]


class LearnableRatio(nn.Module):
    """One trained scalar per run, kept in 0..1 by a sigmoid; starts at ``RATIO_START``."""

    def __init__(self, runs: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.full(runs, LOGIT_START))

    def forward(self, x: Tensor) -> Tensor:
        """Ratios (..., 1, 1) that broadcast over x (..., B, D)."""
        return torch.sigmoid(self.logit)[..., None, None]


class HypernetworkRatio(nn.Module):
    """A ratio per row, ``sigmoid(ReLU(x W1) w2 + b)`` of the unit-length row x."""

    def __init__(
        self,
        dim: int,
        runs: tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        hidden = max(dim // HYPERNETWORK_REDUCTION, 4)
        self.down = nn.Parameter(linear_init((*runs, dim, hidden), dim, generator))
        self.out = nn.Parameter(torch.zeros(*runs, hidden, 1))
        self.bias = nn.Parameter(torch.full((*runs, 1, 1), LOGIT_START))

    def forward(self, x: Tensor) -> Tensor:
        """Ratios (..., B, 1) in 0..1 for x (..., B, D) of any length."""
        return torch.sigmoid(torch.relu(normalize(x) @ self.down) @ self.out + self.bias)


Ratio = FixedRatio | LearnableRatio | HypernetworkRatio
"""Maps x (..., B, D) to ratios that broadcast over it, each in 0..1."""
