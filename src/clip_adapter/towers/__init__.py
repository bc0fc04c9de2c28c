"""What is trained inside a visual tower, and how it is put into a copy of it.

The backbone itself is never changed: a :class:`Change` is attached to a copy.
"""

from clip_adapter.towers.base import (
    CHANGES,
    Change,
    build_change,
    changed_copy,
    describe_change,
    register_change,
    tuned,
    visual_tower,
)

__all__ = [
    "CHANGES",
    "Change",
    "build_change",
    "changed_copy",
    "describe_change",
    "register_change",
    "tuned",
    "visual_tower",
]
