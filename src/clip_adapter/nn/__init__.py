"""Trainable parts, torch only. Each takes a leading shape of runs, so that many train at once."""

from clip_adapter.nn.bottleneck import Activation, Bottleneck
from clip_adapter.nn.cache import Cache
from clip_adapter.nn.cosine import cosine_logits, normalize, other_readings
from clip_adapter.nn.projection import Projection
from clip_adapter.nn.ratio import FixedRatio, HypernetworkRatio, LearnableRatio, Ratio
from clip_adapter.nn.residual import ResidualAdapter, blend

__all__ = [
    "Activation",
    "Bottleneck",
    "Cache",
    "FixedRatio",
    "HypernetworkRatio",
    "LearnableRatio",
    "Projection",
    "Ratio",
    "ResidualAdapter",
    "blend",
    "cosine_logits",
    "normalize",
    "other_readings",
]
