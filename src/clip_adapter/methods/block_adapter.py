"""What methods have in common that put something into the blocks of the visual transformer."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.finetuning.inside import train_inside
from clip_adapter.finetuning.job import PixelSchedule, Trained
from clip_adapter.heads import Head
from clip_adapter.methods.base import Method
from clip_adapter.task import FewShotTask
from clip_adapter.towers import TowerAdapter, visual_tower
from clip_adapter.towers.sites import numbers, transformer_blocks, width_of


def check_above_zero(method: Method, *names: str) -> None:
    """Whether the options ``names`` are finite numbers above 0.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        value = getattr(method, name)
        if not 0 < value < math.inf:
            raise UsageError(f"{name} = {value}.", allowed="a number above 0")


def changed_classifier(
    method: Method, task: FewShotTask, change: TowerAdapter, trained: Trained, **resolved: Any
) -> Classifier:
    """The classifier of a trained ``change`` with the text weights, and its record.

    Args:
        method: with its options.
        task: what it was trained on.
        change: trained.
        trained: how the training went.
        **resolved: hyper-parameters that differ from the options.
    """
    weights = task.require_text(method.name)
    return Classifier(
        Head(weights, logit_scale=task.logit_scale),
        task.class_names,
        feature_norm=task.train.feature_norm,
        text_weights=weights,
        tower_adapter=change,
        info={
            "hyperparameters": {
                **dataclasses.asdict(method),
                **resolved,
                "steps": trained.steps,
            },
            "selection": [],
            "history": trained.history,
            "trained_parameters": sum(p.numel() for p in change.parameters()),
        },
    )


@dataclass
class BlockAdapter(Method):
    """Bottlenecks in every block, or in some.

    Attributes:
        hidden: H, units of each bottleneck.
        blocks: "all", or the numbers of the blocks that get one, from 1, with commas between them.
        lr: learning rate after the warm-up.
        batch_size: pictures per step.
        epochs: passes over the shots.
    """

    trains: ClassVar[str] = "adapters in the visual tower"
    reads: ClassVar[Literal["features", "images"]] = "images"
    uses_views: ClassVar[bool] = False
    weight_decay: ClassVar[float]
    warmup: ClassVar[float]

    hidden: int = 64
    blocks: int | str = "all"
    lr: float = 3e-4
    batch_size: int = 32
    epochs: int = 20

    def __post_init__(self) -> None:
        check_above_zero(self, "hidden", "lr", "batch_size", "epochs")

    @abstractmethod
    def make(self, blocks: list[int], width: int, generator: torch.Generator) -> TowerAdapter:
        """The untrained change for ``blocks`` of a transformer of this width."""

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        visual = visual_tower(task.require_backbone(self.name))
        chosen = self.chosen(len(transformer_blocks(visual, self.name)))
        generator = torch.Generator().manual_seed(task.seed)
        change = self.make(chosen, width_of(visual), generator)
        recipe = PixelSchedule(
            "adamw",
            self.lr,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            epochs=self.epochs,
            warmup=self.warmup,
        )
        trained = train_inside(change, task, recipe, self)
        return changed_classifier(self, task, change, trained, blocks=chosen)

    def chosen(self, blocks: int) -> list[int]:
        """The numbers of the blocks that get one, of so many."""
        every = range(1, blocks + 1)
        return numbers("blocks", self.blocks, every, {"all": every})

    def bottleneck(self, width: int) -> int:
        """Parameters of one bottleneck with biases."""
        return 2 * width * self.hidden + self.hidden + width
