"""``TrunkAdapter``: a visual tower without its last projection.

The features of such a tower are those that CLIP projects into the joint space: the class token
after the last layer norm of a vision transformer (768 for ViT-B), or what the attention pooling of
a ResNet has gathered (2,048 for RN50). Below the projection the tower stays frozen, so it is run
once, and a new projection is trained on cached features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from clip_adapter.backbones.base import Backbone
from clip_adapter.errors import BackboneError
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
class TrunkAdapter(TowerAdapter):
    """Takes the last projection out of the tower; it has no parameters."""

    kind = "trunk"

    def attach(self, visual: nn.Module) -> None:
        """Make ``visual`` give (B, trunk) in place of (B, D).

        Raises:
            BackboneError: the tower is neither CLIP's vision transformer nor its ResNet.
        """
        tower, kind = _known(visual)
        if kind == "transformer":
            tower.proj = None
            return
        old = tower.attnpool.c_proj
        # The pooling applies its projection inside one call of torch, so it is given one that
        # leaves everything as it is. The random start of a layer would move the global generator.
        width, weight = old.in_features, old.weight
        new: Any = skip_init(nn.Linear, width, width, device=weight.device, dtype=weight.dtype)
        new.weight.data.copy_(torch.eye(width))
        new.bias.data.zero_()
        tower.attnpool.c_proj = new.requires_grad_(False)

    def config(self) -> Config:
        """Nothing: the tower says all."""
        return {}

    @classmethod
    def from_config(cls, config: Config) -> TrunkAdapter:
        """The adapter."""
        return cls()


def projection(backbone: Backbone) -> tuple[Tensor, Tensor | None]:
    """The projection that :class:`TrunkAdapter` takes out: (matrix (trunk, D), bias (D,) or None).

    Float32 copies on the CPU; a vision transformer has no bias.

    Raises:
        BackboneError: the tower is neither CLIP's vision transformer nor its ResNet.
    """
    tower, kind = _known(visual_tower(backbone))
    if kind == "transformer":
        return tower.proj.detach().to("cpu", torch.float32, copy=True), None
    layer = tower.attnpool.c_proj
    matrix = layer.weight.detach().to("cpu", torch.float32, copy=True).T.contiguous()
    return matrix, layer.bias.detach().to("cpu", torch.float32, copy=True)


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
    trunk = tuned(backbone, TrunkAdapter())
    rows = torch.arange(len(pictures)).split(BATCH)

    def of_view(view: int | None) -> Tensor:
        return torch.cat([trunk.encode_images(pictures.batch(r, view)) for r in rows])

    plain = of_view(None)
    return torch.stack([of_view(v) for v in range(views)]) if views > 1 else plain[None], plain


def _known(visual: nn.Module) -> tuple[Any, str]:
    """The tower, and "transformer" or "resnet"."""
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return visual, "transformer"
    if isinstance(getattr(getattr(visual, "attnpool", None), "c_proj", None), nn.Linear):
        return visual, "resnet"
    raise BackboneError(
        f"This visual tower ({type(visual).__name__}) has no last projection that can be taken "
        "out.",
        allowed="CLIP's vision transformers and ResNets, as ViT-B-32/openai and RN50/openai",
        hint="Take a method that reads features: 'clip-adapter ls methods' tells which.",
    )
