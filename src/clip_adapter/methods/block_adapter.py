"""What methods have in common that put bottlenecks into the blocks of the visual transformer."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch

from clip_adapter.finetuning import PixelSchedule, fit_inside
from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Method, Sizes
from clip_adapter.towers import (
    Houlsby,
    Parallel,
    numbers,
    transformer_blocks,
    visual_tower,
    width_of,
)


@dataclass
class BlockAdapter(Method):
    """Bottlenecks in every block, or in some.

    Class attributes:
        adapter: what is put into the tower.
        recipe: weight decay of AdamW, and the share of the steps over which the rate rises.

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
    adapter: ClassVar[type[Houlsby | Parallel]]
    recipe: ClassVar[dict[str, Any]]

    hidden: Annotated[int, Bounds(least=1)] = 64
    blocks: int | str = "all"
    lr: Annotated[float, Bounds(above=0)] = 3e-4
    batch_size: Annotated[int, Bounds(least=1)] = 32
    epochs: Annotated[int, Bounds(least=1)] = 20

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        visual = visual_tower(task.require_backbone(self.name))
        chosen = self.chosen(len(transformer_blocks(visual, self.name)))
        adapter = self.adapter(
            chosen, width_of(visual), self.hidden, torch.Generator().manual_seed(task.seed)
        )
        schedule = PixelSchedule.adamw(self, **self.recipe)
        return fit_inside(self, task, schedule, adapter=adapter, blocks=chosen)

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        each = 2 * sizes.trunk * self.hidden + self.hidden + sizes.trunk
        return len(self.adapter.places) * each * len(self.chosen(sizes.blocks))

    def chosen(self, blocks: int) -> list[int]:
        """The numbers of the blocks that get one, of so many."""
        every = range(1, blocks + 1)
        return numbers("blocks", self.blocks, every, {"all": every})
