"""``train_inside``: trains a change of the visual tower on the shots' pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clip_adapter.towers.base import Change, changed_copy
from clip_adapter.training.pixels import PixelModel, PixelRecipe, Progress, Trained, train_pixels

if TYPE_CHECKING:
    from clip_adapter.methods.base import FewShotTask, Method


def train_inside(
    change: Change,
    task: FewShotTask,
    recipe: PixelRecipe,
    method: Method,
    progress: Progress | None = None,
) -> Trained:
    """Trains ``change`` in place, in a float32 copy of the visual tower.

    Args:
        change: what is trained.
        task: with pictures, a backbone and text weights.
        recipe: optimiser and schedule.
        method: the caller.
        progress: called with (steps done, all steps).

    Raises:
        BackboneError: the tower has no place for ``change``.
        UsageError: the task has no pictures or no backbone.
        MissingTextError: it has no text weights.
    """
    task.pixels(method.name)
    text = task.text(method.name)
    visual = changed_copy(task.tower(method.name), change, torch.float32)
    model = PixelModel(
        visual,
        text,
        task.logit_scale,
        change=change,
        unit=task.train.feature_norm == "unit",
    )
    return train_pixels(model, task, recipe, method, progress)
