"""CLIP-Adapter's residual adapter inside the visual tower, after any of its blocks or stages.

    x' = a A(x) + (1 - a) x          A(x) = ReLU(x W1) W2, on every token or every point of a map

Source: Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024
(arXiv 2110.04544), section 4.2 and Table 2: one adapter at layer 12 (the end, on the output
feature), 10, 8, 6, 4, 2 or 0 (before the first block) of ViT-B/16, or all seven, with 512 hidden
units. The paper inserts into a transformer only; the stages of a ResNet are our reading of it. It
names no recipe for the table. Its SGD moves little in few epochs: on pictures of the demo task's
training split that were not among 16 shots, 20 epochs bring 50.8 %, where zero-shot has 48.4.
AdamW, with the decay and the warm-up of clip-adapter's fast recipe, brings 63.3.
"""

from collections.abc import Sequence
from typing import Annotated

import torch

from clip_adapter.finetuning import PixelSchedule, fit_inside
from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Method, Sizes, register
from clip_adapter.nn import Activation
from clip_adapter.towers import ResidualInside, blocks_of, numbers, visual_tower
from clip_adapter.towers.sites import sites

# The paper's "all" leaves out every second block.
STEP = 2
WEIGHT_DECAY, WARMUP = 1e-2, 0.1


@register(
    name="clip-adapter-inside",
    summary="residual adapters between the blocks of the visual tower",
    citation="Gao et al. 2024, arXiv 2110.04544",
    trains="adapters in the visual tower",
    reads="images",
    uses_views=False,
)
class ClipAdapterInside(Method):
    """Residual adapters at chosen sites of the visual tower.

    Attributes:
        layers: where. "end": on the output feature. A number of a transformer: after that block;
            0: before the first one. A number of a ResNet: after that stage; 0: after the stem.
            Several with commas between them; "all": every second block from 0 on and the end, as
            in Table 2, or every stage and the end.
        hidden: H, units of each bottleneck.
        visual_ratio: a, the share of the new feature, 0 to 1. 0.2 is the paper's best on generic
            data.
        activation: "official" ends each bottleneck in a second ReLU, "paper" does not.
        lr: learning rate after the warm-up.
        batch_size: pictures per step.
        epochs: passes over the shots.
    """

    layers: int | str = "end"
    hidden: Annotated[int, Bounds(least=1)] = 512
    visual_ratio: Annotated[float, Bounds(least=0, most=1)] = 0.2
    activation: Activation = "official"
    lr: Annotated[float, Bounds(above=0)] = 1e-3
    batch_size: Annotated[int, Bounds(least=1)] = 32
    epochs: Annotated[int, Bounds(least=1)] = 20

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        visual = visual_tower(task.require_backbone(self.name))
        dims = [*(site.dim or 0 for site in sites(visual)[:-1]), task.train.dim]
        chosen = self._chosen(dims, bool(blocks_of(visual)))
        adapter = ResidualInside.build(
            chosen,
            self.hidden,
            self.activation,
            self.visual_ratio,
            torch.Generator().manual_seed(task.seed),
        )
        schedule = PixelSchedule.adamw(self, weight_decay=WEIGHT_DECAY, warmup=WARMUP)
        return fit_inside(self, task, schedule, adapter=adapter, layers=list(chosen))

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        dims = [*([sizes.trunk] * sizes.blocks or sizes.stages), sizes.dim]
        return 2 * self.hidden * sum(self._chosen(dims, sizes.blocks > 0).values())

    def _chosen(self, dims: Sequence[int], transformer: bool) -> dict[int, int]:
        """The dimension at each site that ``layers`` names, of those at all sites."""
        end = len(dims) - 1
        every = [*range(0, end, STEP if transformer else 1), end]
        words = {"all": every, "end": [end]}
        return {n: dims[n] for n in numbers("layers", self.layers, range(end + 1), words)}
