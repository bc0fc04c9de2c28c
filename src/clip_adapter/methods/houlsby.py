"""Adapters of Houlsby et al.: two bottlenecks in each block of the vision transformer.

    y' = y + GELU(y W1 + b1) W2 + b2          y = Attn(LN x), and again y = MLP(LN x)

Source: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019 (arXiv
1902.00751), section 2.1 and figure 2, with the GELU of their code (google-research/adapter-bert);
W2, b1 and b2 start at zero. They train with Adam, warm-up over a tenth of the steps, batches of 32,
rates of 3e-5, 3e-4 and 3e-3, and 3 or 20 epochs (sections 3.1 and 3.2). CLIP-Adapter (arXiv
2110.04544) compares with them in Table 3. Their layer norms and their new last layer are not
trained here: the class names stay the classifier.
"""

from typing import Any, ClassVar

from clip_adapter.methods.base import register
from clip_adapter.methods.block_adapter import BlockAdapter
from clip_adapter.towers import Houlsby


@register(
    name="houlsby",
    summary="two bottlenecks in each block of the visual transformer",
    citation="Houlsby et al. 2019, arXiv 1902.00751",
)
class HoulsbyAdapter(BlockAdapter):
    """Bottlenecks after the attention and after the MLP of each block.

    Attributes:
        hidden: H, units of each bottleneck.
        blocks: "all", or the numbers of the blocks that get one, from 1, with commas between them.
        lr: learning rate after the warm-up.
        batch_size: pictures per step.
        epochs: passes over the shots.
    """

    adapter = Houlsby
    recipe: ClassVar[dict[str, Any]] = {"weight_decay": 1e-2, "warmup": 0.1}
