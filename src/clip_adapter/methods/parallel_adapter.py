"""The scaled parallel adapter of He et al.: a bottleneck beside the MLP of each block.

    y' = MLP(z) + s (ReLU(z W1 + b1) W2 + b2)          z = LN x, s = 4

Source: He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", ICLR 2022
(arXiv 2110.04366), section 3.3, with their s = 4; W2, b1 and b2 start at zero, as reimplementations
say of their code (jxhe/unify-parameter-efficient-tuning). AdamW with batches of 32, weight decay
0.1 and a warm-up over 6 % of the steps are those of its classification script, which trains for 10
epochs at a rate of 1e-4. CLIP-Adapter (arXiv 2110.04544) compares with it in Table 3.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from clip_adapter.classifier import Classifier, Head
from clip_adapter.errors import UsageError
from clip_adapter.methods.base import FewShotTask, Method, Progress, register
from clip_adapter.methods.sizes import Sizes
from clip_adapter.towers import visual_tower
from clip_adapter.towers.adapters import Parallel
from clip_adapter.towers.fit import train_inside
from clip_adapter.towers.places import numbers, transformer_blocks, width_of
from clip_adapter.training.pixels import PixelRecipe

WEIGHT_DECAY, WARMUP = 0.1, 0.06


@register
@dataclass
class ParallelAdapter(Method):
    """A bottleneck beside the MLP of each block.

    Attributes:
        hidden: H, units of each bottleneck.
        blocks: "all", or the numbers of the blocks that get one, from 1, with commas between them.
        lr: learning rate after the warm-up.
        batch_size: pictures per step.
        epochs: passes over the shots.
    """

    name: ClassVar[str] = "parallel-adapter"
    summary: ClassVar[str] = "a bottleneck beside the MLP of each block of the visual transformer"
    citation: ClassVar[str] = "He et al. 2022, arXiv 2110.04366"
    trains: ClassVar[str] = "adapters in the visual tower"
    reads: ClassVar[Literal["features", "images"]] = "images"

    hidden: int = 64
    blocks: int | str = "all"
    lr: float = 1e-4
    batch_size: int = 32
    epochs: int = 10

    def __post_init__(self) -> None:
        for name in ("hidden", "lr", "batch_size", "epochs"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name} = {value}.", allowed="a number above 0")

    def fit(self, task: FewShotTask, progress: Progress | None = None) -> Classifier:  # noqa: D102
        weights = task.text(self.name)
        visual = visual_tower(task.tower(self.name))
        chosen = self._chosen(len(transformer_blocks(visual, self.name)))
        generator = torch.Generator().manual_seed(task.seed)
        change = Parallel(chosen, width_of(visual), self.hidden, generator)
        recipe = PixelRecipe(
            "adamw",
            self.lr,
            weight_decay=WEIGHT_DECAY,
            batch_size=self.batch_size,
            epochs=self.epochs,
            warmup=WARMUP,
        )
        trained = train_inside(change, task, recipe, self, progress)
        return Classifier(
            Head(weights, logit_scale=task.logit_scale),
            task.class_names,
            feature_norm=task.train.feature_norm,
            zero_shot_weights=weights,
            change=change,
            info={
                "hyperparameters": {
                    **dataclasses.asdict(self),
                    "blocks": chosen,
                    "steps": trained.steps,
                },
                "selection": [],
                "history": trained.history,
                "trained_parameters": sum(p.numel() for p in change.parameters()),
            },
        )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        each = 2 * sizes.trunk * self.hidden + self.hidden + sizes.trunk
        return each * len(self._chosen(sizes.blocks))

    def _chosen(self, blocks: int) -> list[int]:
        every = range(1, blocks + 1)
        return numbers("blocks", self.blocks, every, {"all": every})
