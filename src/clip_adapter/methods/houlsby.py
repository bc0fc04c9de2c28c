"""Adapters of Houlsby et al.: two bottlenecks in each block of the vision transformer.

    y' = y + GELU(y W1 + b1) W2 + b2          y = Attn(LN x), and again y = MLP(LN x)

Source: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019 (arXiv
1902.00751), section 2.1 and figure 2, with the GELU of their code (google-research/adapter-bert);
W2, b1 and b2 start at zero. They train with Adam, warm-up over a tenth of the steps, batches of 32,
rates of 3e-5, 3e-4 and 3e-3, and 3 or 20 epochs (sections 3.1 and 3.2). CLIP-Adapter (arXiv
2110.04544) compares with them in Table 3. Their layer norms and their new last layer are not
trained here: the class names stay the classifier.
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
from clip_adapter.towers.adapters import Houlsby
from clip_adapter.towers.fit import train_inside
from clip_adapter.towers.places import numbers, transformer_blocks, width_of
from clip_adapter.training.pixels import PixelRecipe

WEIGHT_DECAY, WARMUP = 1e-2, 0.1


@register
@dataclass
class HoulsbyAdapter(Method):
    """Bottlenecks after the attention and after the MLP of each block.

    Attributes:
        hidden: H, units of each bottleneck.
        blocks: "all", or the numbers of the blocks that get one, from 1, with commas between them.
        lr: learning rate after the warm-up.
        batch_size: pictures per step.
        epochs: passes over the shots.
    """

    name: ClassVar[str] = "houlsby"
    summary: ClassVar[str] = "two bottlenecks in each block of the visual transformer"
    citation: ClassVar[str] = "Houlsby et al. 2019, arXiv 1902.00751"
    trains: ClassVar[str] = "adapters in the visual tower"
    reads: ClassVar[Literal["features", "images"]] = "images"

    hidden: int = 64
    blocks: int | str = "all"
    lr: float = 3e-4
    batch_size: int = 32
    epochs: int = 20

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
        change = Houlsby(chosen, width_of(visual), self.hidden, generator)
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
        return 2 * each * len(self._chosen(sizes.blocks))

    def _chosen(self, blocks: int) -> list[int]:
        every = range(1, blocks + 1)
        return numbers("blocks", self.blocks, every, {"all": every})
