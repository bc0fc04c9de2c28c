"""``train_inside``: trains a change of the visual tower on the shots' pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clip_adapter.finetuning.job import PixelSchedule, Trained
from clip_adapter.finetuning.train import PixelModel, train_pixels
from clip_adapter.towers.base import TowerAdapter, adapted_copy

if TYPE_CHECKING:
    from clip_adapter.methods.base import Method
    from clip_adapter.task import FewShotTask


def train_inside(
    change: TowerAdapter,
    task: FewShotTask,
    recipe: PixelSchedule,
    method: Method,
) -> Trained:
    """Trains ``change`` in place, in a float32 copy of the visual tower.

    Args:
        change: what is trained.
        task: with pictures, a backbone and text weights.
        recipe: optimiser and schedule.
        method: the caller.

    Raises:
        BackboneError: the tower has no place for ``change``.
        UsageError: the task has no pictures or no backbone.
        MissingTextError: it has no text weights.
    """
    task.require_pictures(method.name)
    text = task.require_text(method.name)
    visual = adapted_copy(task.require_backbone(method.name), change, torch.float32)
    model = PixelModel(
        visual,
        text,
        task.logit_scale,
        tower_adapter=change,
        unit=task.train.feature_norm == "unit",
    )
    return train_pixels(model, task, recipe, method)
