"""Maps of the image feature: CLIP-Adapter's residual bottleneck, and a projection.

    paper:      A(x) = ReLU(x W1) W2                (CLIP-Adapter, equations 3 and 4)
    official:   A(x) = ReLU(ReLU(x W1) W2)          (the released code)
    adapter:    x' = a A(x) + (1 - a) x             (equations 5 and 6)
    projection: x' = x P + b

The ratio a is the share of the new feature. The paper (section 3.3) names three ways to it: a
constant, a learnable parameter, and a hypernetwork ``ratio = Q(x, W)`` that predicts it from the
visual feature (or the classifier weight). No code of the last was released; ours is the smallest
network that does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from clip_adapter.nn.cosine import normalize
from clip_adapter.nn.saved import filled

Activation = Literal["official", "paper"]
# Where a learnt or predicted ratio starts: the paper's optimum on generic data (section 4.2.4).
RATIO_START = 0.2
LOGIT_START = math.log(RATIO_START / (1 - RATIO_START))
# A hypernetwork of H = D/16 units adds a tenth of the adapter's own parameters.
HYPERNETWORK_REDUCTION = 16


def linear_init(shape: tuple[int, ...], fan_in: int, generator: torch.Generator | None) -> Tensor:
    """PyTorch's default start of a linear layer, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    The same start is given to every run (the leading sizes of ``shape``), so that runs that
    differ in a hyper-parameter are compared from one point.
    """
    bound = 1.0 / math.sqrt(fan_in)
    return (
        torch.empty(shape[-2:]).uniform_(-bound, bound, generator=generator).expand(shape).clone()
    )


def blend(new: Tensor, old: Tensor, ratio: float | Tensor) -> Tensor:
    """``ratio * new + (1 - ratio) * old``: exactly ``old`` at ratio 0, ``new`` at ratio 1."""
    return ratio * new + (1 - ratio) * old


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
        self, dim: int, runs: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        hidden = max(dim // HYPERNETWORK_REDUCTION, 4)
        self.down = nn.Parameter(linear_init((*runs, dim, hidden), dim, generator))
        self.out = nn.Parameter(torch.zeros(*runs, hidden, 1))
        self.bias = nn.Parameter(torch.full((*runs, 1, 1), LOGIT_START))

    def forward(self, x: Tensor) -> Tensor:
        """Ratios (..., B, 1) in 0..1 for x (..., B, D) of any length."""
        return torch.sigmoid(torch.relu(normalize(x) @ self.down) @ self.out + self.bias)


# Maps x (..., B, D) to ratios that broadcast over it, each in 0..1.
Ratio = FixedRatio | LearnableRatio | HypernetworkRatio
RATIO_NAMES = {FixedRatio: "fixed", LearnableRatio: "learnable", HypernetworkRatio: "hypernetwork"}


class ResidualAdapter(nn.Module):
    """``x' = a A(x) + (1 - a) x`` for x (..., B, D).

    For the visual branch x is the raw image feature f; for the text branch it is the classifier
    weight W. Normalise after it, as the released code does.
    """

    def __init__(self, bottleneck: Bottleneck, ratio: Ratio) -> None:
        super().__init__()
        self.bottleneck, self.ratio = bottleneck, ratio

    def forward(self, x: Tensor, ratio: Tensor | None = None) -> Tensor:
        """Adapted rows; ``ratio`` (..., 1 or B, 1), when given, stands in for the module's own."""
        return blend(self.bottleneck(x), x, self.ratio(x) if ratio is None else ratio)

    @property
    def dim(self) -> int:
        """D, the size of the features that it takes."""
        return int(self.bottleneck.down.shape[-2])

    def take(self, run: int) -> ResidualAdapter:
        """Run number ``run`` of R as an adapter of its own, without the leading dimension."""
        return filled(
            lambda: ResidualAdapter.from_config(self.config()),
            {name: tensor[run] for name, tensor in self.state_dict().items()},
        )

    def config(self) -> dict[str, Any]:
        """What :meth:`from_config` needs to build the same module, without its weights."""
        return {
            "dim": self.dim,
            "hidden": int(self.bottleneck.down.shape[-1]),
            "activation": self.bottleneck.activation,
            "ratio": RATIO_NAMES[type(self.ratio)],
        }

    @classmethod
    def build(
        cls,
        dim: int,
        hidden: int,
        activation: Activation = "official",
        ratio: float | Tensor | str = RATIO_START,
        runs: tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> ResidualAdapter:
        """An untrained adapter; ``ratio``: a number, one per run, "learnable", "hypernetwork"."""
        bottleneck = Bottleneck(dim, hidden, activation, runs, generator)
        if ratio == "learnable":
            return cls(bottleneck, LearnableRatio(runs))
        if ratio == "hypernetwork":
            return cls(bottleneck, HypernetworkRatio(dim, runs, generator))
        if isinstance(ratio, str):
            raise ValueError(f"ratio {ratio!r}; allowed: a number, 'learnable', 'hypernetwork'")
        return cls(bottleneck, FixedRatio(ratio))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ResidualAdapter:
        """The module that :meth:`config` described, to be made by :func:`saved.filled`.

        Raises:
            KeyError, TypeError, ValueError: no such sizes, activation or ratio.
        """
        activation, ratio = config["activation"], str(config["ratio"])
        if activation not in get_args(Activation):
            raise ValueError(f"activation {activation!r}; allowed: {get_args(Activation)}")
        return cls.build(
            config["dim"],
            config["hidden"],
            activation,
            RATIO_START if ratio == "fixed" else ratio,
        )


def stacked(adapters: Sequence[ResidualAdapter]) -> ResidualAdapter:
    """Adapters of leading dimension 1 as one of leading dimension R; the first, where it is alone.

    The first one is changed. A fixed ratio is that of the first: all were built with one (R,).
    """
    for name, parameter in adapters[0].named_parameters():
        parameter.data = torch.cat([a.get_parameter(name).data for a in adapters])
    return adapters[0]


class Projection(nn.Module):
    """``(..., B, trunk) -> (..., B, D)``: ``x @ matrix + bias``.

    Args:
        matrix: (trunk, D), the start; trained to project features of the tower's trunk into
            CLIP's joint space, or to map features of that space.
        bias: (D,), or None for none (vision transformers have none); it is not trained.
    """

    def __init__(self, matrix: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.detach().float().clone())
        self.bias = None if bias is None else nn.Buffer(bias.detach().float().clone())

    @property
    def dim(self) -> int:
        """Size of the features that it takes."""
        return int(self.matrix.shape[-2])

    def forward(self, x: Tensor) -> Tensor:
        """Projected rows."""
        y = x @ self.matrix
        return y if self.bias is None else y + self.bias

    def config(self) -> dict[str, Any]:
        """What :meth:`from_config` needs to build the same module, without its weights."""
        trunk, dim = self.matrix.shape[-2:]
        return {"trunk": int(trunk), "dim": int(dim), "bias": int(self.bias is not None)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Projection:
        """The module that :meth:`config` described, to be made by :func:`saved.filled`.

        Raises:
            KeyError, RuntimeError, TypeError: no such sizes.
        """
        trunk, dim = config["trunk"], config["dim"]
        return cls(torch.zeros(trunk, dim), torch.zeros(dim) if config["bias"] else None)
