"""How residual adapters on cached features train, and the ratios they are tried at.

Chosen on validation data and held-out shots alone, see docs/decisions/0002-fast-recipe.md.
"""

from __future__ import annotations

import dataclasses

from clip_adapter.errors import UsageError
from clip_adapter.training.loop import Schedule

# Zero is zero-shot, so "auto" can always fall back on it; the rest spans the paper's Table 6.
CANDIDATES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)
# One shot leaves nothing to hold out. 0.2 is the paper's optimum on generic data (section 4.2.4)
# and its mildest non-zero setting, so it changes zero-shot least.
ONE_SHOT_RATIO = 0.2
# AdamW reaches the official recipe's accuracy in a fraction of its steps.
FAST_STEPS = 128
FAST = Schedule("adamw", 1.5e-3, weight_decay=1e-2, batch_size=256, steps=FAST_STEPS, warmup=0.1)
# 128 steps are eight epochs of ImageNet's 4 shots; larger sets keep as many.
EPOCHS_AT_LEAST = 8
# Below four shots the full rate memorises them; it grows with the shots, as CoOp's epochs do.
FULL_RATE_SHOTS = 4
# Few pictures of few classes are memorised by the full number of steps, so the ratio is tried at
# these shares of it: (share of the steps, ratio).
STRENGTHS = (
    (1 / 16, 0.2), (1 / 16, 0.4), (1 / 16, 0.8),
    (1 / 4, 0.1), (1 / 4, 0.2), (1 / 4, 0.4),
    (1.0, 0.2), (1.0, 0.6),
)  # fmt: skip
# All steps are for so many pictures; fewer take fewer, by the cube root, where nothing is chosen.
FULL_PICTURES = 1000
# Cross-validation ranks the ratios at half the steps of "fast", for half the time.
SHORTER = 2
# Bounds the (runs, batch, classes) scores of one batched pass of the cross-validation.
MAX_SCORES = 16_000_000


def hidden_units(dim: int, reduction: int) -> int:
    """H of a bottleneck on features of size D.

    Raises:
        UsageError: nothing is left of it.
    """
    if dim < reduction:
        raise UsageError(
            f"reduction = {reduction} leaves no hidden unit.",
            allowed=f"1 to {dim}, the size of a feature",
        )
    return dim // reduction


def fast_schedule(shots: float, pictures: int) -> Schedule:
    """AdamW for a residual adapter.

    Args:
        shots: K, the mean of the classes that have pictures.
        pictures: N.
    """
    rate = FAST.lr * min(shots / FULL_RATE_SHOTS, 1)
    steps = max(FAST_STEPS, EPOCHS_AT_LEAST * pictures // FAST.batch_size)
    return dataclasses.replace(FAST, lr=rate, steps=steps)


def shorter(schedule: Schedule) -> Schedule:
    """The fast schedule for ranking ratios."""
    return dataclasses.replace(schedule, steps=max((schedule.steps or 0) // SHORTER, 1))


def mild_share(pictures: int) -> float:
    """The share of the full number of steps that is taken in doubt, for N ``pictures``."""
    return min((pictures / FULL_PICTURES) ** (1 / 3), 1.0)
