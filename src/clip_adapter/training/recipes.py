"""How adapters on cached features train, and the ratios they are tried at.

Chosen on validation data and held-out shots alone, see docs/decisions/0002-fast-recipe.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.task import FewShotTask
from clip_adapter.training.loop import Schedule

T = TypeVar("T")

# Zero is zero-shot, which "auto" may find best; the rest spans the paper's Table 6.
CANDIDATES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)
# The reference, which one shot keeps: it leaves nothing to hold out. 0.2 is the paper's optimum on
# generic data (section 4.2.4) and its mildest non-zero setting, so it changes zero-shot least.
ONE_SHOT_RATIO = 0.2
# AdamW reaches the official recipe's accuracy in a fraction of its steps.
FAST_STEPS = 128
FAST = Schedule("adamw", 1.5e-3, weight_decay=1e-2, batch_size=256, steps=FAST_STEPS, warmup=0.1)
# 128 steps are eight epochs of ImageNet's 4 shots; larger sets keep as many.
EPOCHS_AT_LEAST = 8
# Below four shots the full rate memorises them; it grows with the shots, as CoOp's epochs do.
FULL_RATE_SHOTS = 4
# A set of so many pictures and of so many scores an epoch, N times C, is large: ImageNet's 4 shots.
LARGE_PICTURES, LARGE_SCORES, LARGE_BATCH = 4_000, 2_000_000, 512
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


def official_schedule(shots: float, classes: int) -> Schedule:
    """SGD 2e-3 and CoOp's epochs: 50 for 1 shot and for ImageNet, 100 for 2 and 4, 200 above.

    Source: CLIP-Adapter, section 4.1.2, read with the configurations of the code it runs under
    (the paper's 1e-5 is that code's warm-up rate). ImageNet is told by its 1,000 classes.
    """
    epochs = 50 if shots <= 1 or classes >= 1000 else 100 if shots <= 4 else 200
    return Schedule(
        "sgd", 2e-3, weight_decay=5e-4, batch_size=32, epochs=epochs, warmup=1, warmup_lr=1e-5
    )


def fast_schedule(shots: float, pictures: int) -> Schedule:
    """AdamW for a residual adapter.

    Args:
        shots: K, the mean of the classes that have pictures.
        pictures: N.
    """
    return dataclasses.replace(
        FAST,
        lr=FAST.lr * min(shots / FULL_RATE_SHOTS, 1),
        steps=max(FAST_STEPS, EPOCHS_AT_LEAST * pictures // FAST.batch_size),
    )


def is_large(train: FeatureSet) -> bool:
    """Whether larger steps pay: many pictures, of many classes, several of each in the mean."""
    present = len(train.labels.unique())
    return (
        len(train) >= max(LARGE_PICTURES, FULL_RATE_SHOTS * present)
        and len(train) * len(train.class_names) >= LARGE_SCORES
    )


def for_large(schedule: Schedule, train: FeatureSet, *, rate: float, epochs: int) -> Schedule:
    """``schedule``; where the shots are many, in fewer, larger steps (docs/decisions/0002).

    Args:
        schedule: for few pictures.
        train: the shots.
        rate: the factor of the learning rate in larger steps.
        epochs: how often all shots are seen there.
    """
    if not is_large(train):
        return schedule
    steps = -(-epochs * len(train) // LARGE_BATCH)
    return dataclasses.replace(schedule, lr=rate * schedule.lr, batch_size=LARGE_BATCH, steps=steps)


def passes(jobs: Sequence[T], task: FewShotTask, schedule: Schedule) -> list[Sequence[T]]:
    """``jobs`` in parts that train in one batched pass each, in bounded memory."""
    per_run = min(schedule.batch_size, len(task.train)) * len(task.class_names)
    limit = max(MAX_SCORES // per_run, 1)
    return [jobs[start : start + limit] for start in range(0, len(jobs), limit)]
