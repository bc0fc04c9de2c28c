"""Trainable parts, torch only. Each takes a leading shape of runs, so that many train at once."""

from clip_adapter.nn.cache import Cache, affinity, class_sums, nearness
from clip_adapter.nn.cosine import TextResidual, cosine_logits, normalize, scale_doubt
from clip_adapter.nn.image_maps import (
    RATIO_START,
    Activation,
    FixedRatio,
    Projection,
    ResidualAdapter,
    blend,
    linear_init,
    stacked,
)

__all__ = [
    "RATIO_START",
    "Activation",
    "Cache",
    "FixedRatio",
    "Projection",
    "ResidualAdapter",
    "TextResidual",
    "affinity",
    "blend",
    "class_sums",
    "cosine_logits",
    "linear_init",
    "nearness",
    "normalize",
    "scale_doubt",
    "stacked",
]
