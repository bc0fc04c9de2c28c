"""The parameters of a visual tower themselves: fine-tuned, or the last projection taken out.

The features of a tower without its last projection, its trunk, are those that CLIP projects into
the joint space: the class token after the last layer norm of a vision transformer (768 for ViT-B),
or what the attention pooling of a ResNet has gathered (2,048 for RN50). Below the projection the
tower stays frozen, so it is run once, and a new projection is trained on cached features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clip_adapter.backbones.base import Backbone
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.features.pixels import Pictures
from clip_adapter.towers.base import (
    Config,
    TowerAdapter,
    register_tower_adapter,
    tuned,
    visual_tower,
)

# Pictures decoded at a time; the backbone cuts them further where memory is short.
BATCH = 64


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
    def start(cls, backbone: Backbone) -> WeightAdapter:
        """All values of the visual tower of ``backbone``: attached, they change nothing.

        Raises:
            BackboneError: it has no visual tower of its own.
        """
        own = dict(visual_tower(backbone).named_parameters())
        return cls(list(own), [value.cpu() for value in own.values()])

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
        mixed = [
            (1 - share) * a.detach().to(b.device) + share * b.detach()  # trained on a GPU, perhaps
            for a, b in zip(start.values, self.values, strict=True)
        ]
        return WeightAdapter(self.names, mixed)

    def attach(self, visual: nn.Module) -> None:
        """Put the values in the place of the tower's own.

        Raises:
            BackboneError: the tower has no such parameter, or one of another shape.
        """
        own = dict(visual.named_parameters())
        for name, value in zip(self.names, self.values, strict=True):
            module, _, leaf = name.rpartition(".")
            if name not in own or own[name].shape != value.shape:
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
            KeyError, RuntimeError, TypeError, ValueError: no such names and shapes.
        """
        shapes = dict(zip(config["names"], config["shapes"], strict=True))
        if [*shapes] != config["names"] or not {*map(type, shapes)} <= {str}:
            raise ValueError("the names of the changed weights are no list of distinct words")
        return cls([*shapes], [torch.zeros(shape) for shape in shapes.values()])


@register_tower_adapter
class TrunkAdapter(TowerAdapter):
    """Takes the last projection out of the tower; it has no parameters."""

    kind = "trunk"

    def attach(self, visual: nn.Module) -> None:
        """Make ``visual`` give (B, trunk) in place of (B, D).

        Raises:
            BackboneError: the tower is neither CLIP's vision transformer nor its ResNet.
        """
        tower, layer = _known(visual)
        if layer is None:
            tower.proj = None
            return
        # The pooling applies its projection inside one call of torch, so it is given one that
        # leaves everything as it is.
        unchanged = torch.eye(layer.in_features).to(layer.weight)
        layer.weight = nn.Parameter(unchanged, requires_grad=False)
        layer.bias = nn.Parameter(torch.zeros_like(unchanged[0]), requires_grad=False)


def projection(backbone: Backbone) -> tuple[Tensor, Tensor | None]:
    """The projection that :class:`TrunkAdapter` takes out: (matrix (trunk, D), bias (D,) or None).

    Float32 copies on the CPU; a vision transformer has no bias.

    Raises:
        BackboneError: the tower is neither CLIP's vision transformer nor its ResNet.
    """
    tower, layer = _known(visual_tower(backbone))
    if layer is None:
        return tower.proj.detach().to("cpu", torch.float32, copy=True), None
    weight, bias = (t.detach().to("cpu", torch.float32, copy=True) for t in layer.parameters())
    return weight.T.contiguous(), bias


def trunk_features(backbone: Backbone, pictures: Pictures, views: int = 1) -> tuple[Tensor, Tensor]:
    """Trunk features of N pictures: (V, N, trunk) to learn from, and the plain view (N, trunk).

    Args:
        backbone: left as it is.
        pictures: their pixels.
        views: 1 is the plain view; V > 1 are the V random views that features of V views have.

    Raises:
        BackboneError: as :func:`projection`, or memory runs out.
        DecodeError: a picture cannot be read any more.
    """
    trunk, rows = tuned(backbone, TrunkAdapter()), torch.arange(len(pictures)).split(BATCH)

    def of_view(view: int | None) -> Tensor:
        return torch.cat([trunk.encode_images(pictures.batch(r, view)) for r in rows])

    plain = of_view(None)
    return torch.stack([of_view(v) for v in range(views)]) if views > 1 else plain[None], plain


def _known(visual: nn.Module) -> tuple[Any, nn.Linear | None]:
    """The tower, and the projection of a ResNet; None for a transformer's, which is ``proj``."""
    layer = getattr(getattr(visual, "attnpool", None), "c_proj", None)
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return visual, None
    if isinstance(layer, nn.Linear):
        return visual, layer
    raise BackboneError(
        f"This visual tower ({type(visual).__name__}) has no last projection that can be taken "
        "out.",
        allowed="CLIP's vision transformers and ResNets, as ViT-B-32/openai and RN50/openai",
        hint="Take a method that reads features: 'clip-adapter ls methods' tells which.",
    )
