"""Trainable parts, torch only. Each takes a leading shape of runs, so that many train at once."""

from clip_adapter.nn.cache import Cache
from clip_adapter.nn.cosine import TextResidual, cosine_logits, normalize, other_readings
from clip_adapter.nn.image_maps import (
    Activation,
    Projection,
    ResidualAdapter,
    blend,
    linear_init,
    stacked,
)

__all__ = [
    "Activation",
    "Cache",
    "Projection",
    "ResidualAdapter",
    "TextResidual",
    "blend",
    "cosine_logits",
    "linear_init",
    "normalize",
    "other_readings",
    "stacked",
]
