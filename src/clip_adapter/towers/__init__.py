"""What is trained inside a visual tower, and how it is put into a copy of it.

The backbone itself is never changed: a :class:`TowerAdapter` is attached to a copy.
"""

from clip_adapter.towers import adapters, lora, weights  # noqa: F401 - they register
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

__all__ = [
    "TOWER_ADAPTERS",
    "TowerAdapter",
    "adapted_copy",
    "build_tower_adapter",
    "describe_tower_adapter",
    "register_tower_adapter",
    "tuned",
    "visual_tower",
]
