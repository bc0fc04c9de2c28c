"""The scaled parallel adapter of He et al.: a bottleneck beside the MLP of each block.

    y' = MLP(z) + s (ReLU(z W1 + b1) W2 + b2)          z = LN x, s = 4

Source: He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", ICLR 2022
(arXiv 2110.04366), section 3.3, with their s = 4; W2, b1 and b2 start at zero, as reimplementations
say of their code (jxhe/unify-parameter-efficient-tuning). AdamW with batches of 32, weight decay
0.1 and a warm-up over 6 % of the steps are those of its classification script, which trains for 10
epochs at a rate of 1e-4. CLIP-Adapter (arXiv 2110.04544) compares with it in Table 3.
"""

from typing import Annotated, Any, ClassVar

from clip_adapter.methods.base import Bounds, register
from clip_adapter.methods.block_adapter import BlockAdapter
from clip_adapter.towers import Parallel


@register(
    name="parallel-adapter",
    summary="a bottleneck beside the MLP of each block of the visual transformer",
    citation="He et al. 2022, arXiv 2110.04366",
)
class ParallelAdapter(BlockAdapter):
    """A bottleneck beside the MLP of each block.

    Attributes:
        hidden: H, units of each bottleneck.
        blocks: "all", or the numbers of the blocks that get one, from 1, with commas between them.
        lr: learning rate after the warm-up.
        batch_size: pictures per step.
        epochs: passes over the shots.
    """

    adapter = Parallel
    recipe: ClassVar[dict[str, Any]] = {"weight_decay": 0.1, "warmup": 0.06}

    lr: Annotated[float, Bounds(above=0)] = 1e-4
    epochs: Annotated[int, Bounds(least=1)] = 10
