"""``WeightAdapter``: the parameters of a visual tower themselves, fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clip_adapter.backbones.base import Backbone
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.nn.saved import whole
from clip_adapter.towers.base import Config, TowerAdapter, register_tower_adapter, visual_tower


@register_tower_adapter
class WeightAdapter(TowerAdapter):
    """Parameters that take the place of the tower's own.

    Args:
        names: where in the tower, such as "transformer.resblocks.0.ln_1.weight".
        values: one tensor per name.
    """

    kind = "weights"

    def __init__(self, names: Sequence[str], values: Sequence[Tensor]) -> None:
        super().__init__()
        self.names = list(names)
        # A list: the names hold dots, which the names of parameters may not.
        self.values = nn.ParameterList(
            [nn.Parameter(v.detach().to(torch.float32, copy=True)) for v in values]
        )

    @classmethod
    def start(cls, backbone: Backbone, names: Sequence[str] | None = None) -> WeightAdapter:
        """The backbone's own values: attached, they change nothing.

        Args:
            backbone: left as it is.
            names: of the parameters to be trained; None takes all of the visual tower.

        Raises:
            BackboneError: it has no visual tower of its own, or no such parameter.
        """
        own = dict(visual_tower(backbone).named_parameters())
        chosen = list(own) if names is None else list(names)
        if missing := [n for n in chosen if n not in own]:
            raise BackboneError(
                f"The visual tower of {backbone.name} has no parameter {missing[0]!r}.",
                allowed=", ".join(list(own)[:8]) + f" and {max(len(own) - 8, 0)} more",
            )
        return cls(chosen, [own[n].cpu() for n in chosen])

    def blended(self, start: WeightAdapter, share: float) -> WeightAdapter:
        """``(1 - share) * start + share * self``, parameter by parameter.

        Exactly ``start`` at 0 and this adapter at 1. Source: WiSE-FT (arXiv 2109.01903).

        Raises:
            UsageError: the two hold other parameters.
        """
        if self.names != start.names:
            raise UsageError(
                "Weights of other places of the tower cannot be mixed.",
                allowed="a start with the same parameters",
            )
        pairs = zip(start.values, self.values, strict=True)
        mixed = [(1 - share) * a.detach() + share * b.detach() for a, b in pairs]
        return WeightAdapter(self.names, mixed)

    def attach(self, visual: nn.Module) -> None:
        """Put the values in the place of the tower's own.

        Raises:
            BackboneError: the tower has no such parameter, or one of another shape.
        """
        for name, value in zip(self.names, self.values, strict=True):
            module, _, leaf = name.rpartition(".")
            try:
                fits = visual.get_parameter(name).shape == value.shape
            except AttributeError:
                fits = False
            if not fits:
                raise BackboneError(
                    f"This visual tower has no parameter {name} of shape {tuple(value.shape)}.",
                    allowed="the backbone that the weights were trained in",
                )
            setattr(visual.get_submodule(module), leaf, value)

    def config(self) -> Config:
        """Names and shapes."""
        return {"names": self.names, "shapes": [list(v.shape) for v in self.values]}

    @classmethod
    def from_config(cls, config: Config) -> WeightAdapter:
        """The adapter, with zeros for values, to be made by :func:`saved.filled`.

        Raises:
            KeyError, ValueError: no such names and shapes.
        """
        names, shapes = config["names"], config["shapes"]
        words = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not words or len(set(names)) < len(names):
            raise ValueError("the names of the changed weights are no distinct words")
        if len(names) != len(shapes):
            raise ValueError(f"{len(names)} names of changed weights and {len(shapes)} shapes")
        sizes = [[whole(size, "a size of changed weights", 0) for size in s] for s in shapes]
        return cls(names, [torch.zeros(size) for size in sizes])
