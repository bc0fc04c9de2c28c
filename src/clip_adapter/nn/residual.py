"""Residual blending of new and old knowledge (CLIP-Adapter, equations 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

import torch
from torch import Tensor, nn

from clip_adapter.nn.bottleneck import Activation, Bottleneck
from clip_adapter.nn.ratio import (
    RATIO_START,
    FixedRatio,
    HypernetworkRatio,
    LearnableRatio,
    Ratio,
)
from clip_adapter.nn.saved import filled, whole

KINDS = {"fixed": FixedRatio, "learnable": LearnableRatio, "hypernetwork": HypernetworkRatio}


def blend(new: Tensor, old: Tensor, ratio: float | Tensor) -> Tensor:
    """``ratio * new + (1 - ratio) * old``: exactly ``old`` at ratio 0, ``new`` at ratio 1."""
    return ratio * new + (1 - ratio) * old


class ResidualAdapter(nn.Module):
    """``x' = a A(x) + (1 - a) x`` for x (..., B, D).

    For the visual branch x is the raw image feature f; for the text branch it is the classifier
    weight W. Normalise after it, as the released code does.
    """

    def __init__(self, bottleneck: Bottleneck, ratio: Ratio) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        self.ratio = ratio

    def forward(self, x: Tensor, ratio: Tensor | None = None) -> Tensor:
        """Adapted rows; ``ratio`` (..., 1 or B, 1), when given, stands in for the module's own."""
        return blend(self.bottleneck(x), x, self.ratio(x) if ratio is None else ratio)

    @property
    def dim(self) -> int:
        """D, the size of the features that it takes."""
        return int(self.bottleneck.down.shape[-2])

    def take(self, run: int) -> ResidualAdapter:
        """Run number ``run`` of R as an adapter of its own, without the leading dimension."""
        own = {k: v[run] for k, v in self.state_dict().items()}
        return filled(lambda: ResidualAdapter.from_config(self.config()), own)

    def config(self) -> dict[str, int | str]:
        """What :meth:`from_config` needs to build the same module, without its weights."""
        dim, hidden = self.bottleneck.down.shape[-2:]
        return {
            "dim": int(dim),
            "hidden": int(hidden),
            "activation": self.bottleneck.activation,
            "ratio": next(kind for kind, cls in KINDS.items() if isinstance(self.ratio, cls)),
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
    def from_config(cls, config: dict[str, int | str]) -> ResidualAdapter:
        """The module that :meth:`config` described, to be made by :func:`saved.filled`.

        Raises:
            KeyError, ValueError: no such sizes, activation or ratio.
        """
        activation, ratio = config["activation"], config["ratio"]
        if activation not in get_args(Activation):
            raise ValueError(f"activation {activation!r}; allowed: {get_args(Activation)}")
        return cls.build(
            whole(config["dim"], "the dimension of an adapter"),
            whole(config["hidden"], "the bottleneck of an adapter"),
            cast("Activation", activation),
            RATIO_START if ratio == "fixed" else str(ratio),
        )


def stacked(adapters: Sequence[ResidualAdapter]) -> ResidualAdapter:
    """Adapters of leading dimension 1 as one of leading dimension R; the first, where it is alone.

    The first one is changed. A fixed ratio is that of the first: all were built with one (R,).
    """
    first, *others = adapters
    if not others:
        return first
    for name, parameter in first.named_parameters():
        parts = [parameter, *(dict(other.named_parameters())[name] for other in others)]
        parameter.data = torch.cat([part.data for part in parts])
    return first
