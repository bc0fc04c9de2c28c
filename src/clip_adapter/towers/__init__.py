"""What is trained inside a visual tower, and how it is put into a copy of it.

The backbone itself is never changed: a :class:`TowerAdapter` is attached to a copy.
"""

from clip_adapter.towers.adapters import Houlsby, Parallel, ResidualInside
from clip_adapter.towers.base import (
    TOWER_ADAPTERS,
    TowerAdapter,
    adapted_copy,
    build_tower_adapter,
    describe_tower_adapter,
    register_tower_adapter,
    tuned,
    visual_tower,
)
from clip_adapter.towers.lora import MATRICES, Lora
from clip_adapter.towers.sites import blocks_of, numbers, transformer_blocks, width_of
from clip_adapter.towers.text import TextTower, in_passes
from clip_adapter.towers.weights import TrunkAdapter, WeightAdapter, projection, trunk_features

__all__ = [
    "MATRICES",
    "TOWER_ADAPTERS",
    "Houlsby",
    "Lora",
    "Parallel",
    "ResidualInside",
    "TextTower",
    "TowerAdapter",
    "TrunkAdapter",
    "WeightAdapter",
    "adapted_copy",
    "blocks_of",
    "build_tower_adapter",
    "describe_tower_adapter",
    "in_passes",
    "numbers",
    "projection",
    "register_tower_adapter",
    "transformer_blocks",
    "trunk_features",
    "tuned",
    "visual_tower",
    "width_of",
]
