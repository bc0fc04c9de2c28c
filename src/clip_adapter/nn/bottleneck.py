"""The bottleneck of CLIP-Adapter: two bias-free linear layers.

paper:     A(f) = ReLU(f W1) W2                 (equations 3 and 4)
official:  A(f) = ReLU(ReLU(f W1) W2)           (the released code)
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["official", "paper"]


def linear_init(shape: tuple[int, ...], fan_in: int, generator: torch.Generator | None) -> Tensor:
    """PyTorch's default start of a linear layer, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    The same start is given to every run (the leading sizes of ``shape``), so that runs that
    differ in a hyper-parameter are compared from one point.
    """
    bound = 1.0 / math.sqrt(fan_in)
    start = torch.empty(shape[-2:]).uniform_(-bound, bound, generator=generator)
    return start.expand(shape).clone()


class Bottleneck(nn.Module):
    """``(..., B, D) -> (..., B, D)`` through H units; no biases, so it commutes with scaling.

    Args:
        dim: D.
        hidden: H, the paper's D/4.
        activation: "official" ends in a second ReLU, "paper" does not.
        runs: leading shape of independent copies; () for one.
        generator: source of the random start.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        activation: Activation = "official",
        runs: tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.down = nn.Parameter(linear_init((*runs, dim, hidden), dim, generator))
        self.up = nn.Parameter(linear_init((*runs, hidden, dim), hidden, generator))

    def forward(self, x: Tensor) -> Tensor:
        """A(x) for x (..., B, D)."""
        y = torch.relu(x @ self.down) @ self.up
        return torch.relu(y) if self.activation == "official" else y
