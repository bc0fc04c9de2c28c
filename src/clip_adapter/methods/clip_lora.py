"""CLIP-LoRA: low-rank changes of the attention in both towers.

    q = x (Wq + s Bq Aq).T          and so for k and v, in every block; s = alpha / sqrt(rank)
    logits = logit_scale * normalize(visual(image)) @ normalize(text(prompts)).T

Source: Zanella and Ben Ayed, "Low-Rank Few-Shot Adaptation of Vision-Language Models", CVPRW 2024
(arXiv 2405.18541): rank 2 on q, k and v of all blocks of both towers, dropout 0.25 on the input of
A, AdamW at 2e-4 with a cosine, batches of 32, 500 steps for each shot, the same for every data set.
From their code (MaxZanella/CLIP-LoRA): alpha 1, the scale with the root of the rank, weight decay
0.01. Their cosine ends at 1e-6, ours at 0. They take the first prompt of a data set; here all
prompts of the task are averaged, as everywhere. Of the text tower, only the class weights that it
makes in the end are kept.
"""

from typing import Annotated, Literal

import torch

from clip_adapter.finetuning import PixelSchedule, fit_inside
from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Method, Sizes, register
from clip_adapter.towers import MATRICES, Lora, TextTower, transformer_blocks, visual_tower

STEPS_PER_SHOT = 500
WEIGHT_DECAY = 1e-2


@register(
    name="clip-lora",
    summary="low-rank changes of the attention in both towers",
    citation="Zanella and Ben Ayed 2024, arXiv 2405.18541",
    trains="low-rank matrices in both towers",
    reads="images",
    uses_views=False,
)
class ClipLora(Method):
    """Low-rank changes of q, k and v in every block.

    Attributes:
        encoder: the towers that are changed. A ResNet has no blocks: it takes "text" alone.
        rank: r of the change of each matrix.
        alpha: the numerator of the scale.
        dropout: share of the inputs of A that are dropped while training, 0 to below 1.
        lr: learning rate at the start; it falls to 0 along a cosine.
        batch_size: pictures per step.
        epochs: passes over the shots, instead of 500 steps for each shot.
    """

    encoder: Literal["both", "visual", "text"] = "both"
    rank: Annotated[int, Bounds(least=1)] = 2
    alpha: Annotated[float, Bounds(above=0)] = 1.0
    dropout: Annotated[float, Bounds(least=0, below=1)] = 0.25
    lr: Annotated[float, Bounds(above=0)] = 2e-4
    batch_size: Annotated[int, Bounds(least=1)] = 32
    epochs: Annotated[int | None, Bounds(least=1)] = None

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        backbone, generator = task.require_backbone(self.name), torch.Generator()
        options = (self.rank, self.alpha, self.dropout, generator.manual_seed(task.seed))
        adapter = text = None
        if self.encoder != "text":
            blocks = transformer_blocks(visual_tower(backbone), f"{self.name} (encoder=visual)")
            adapter = Lora.for_blocks(blocks, *options)
        if self.encoder != "visual":
            text = TextTower(backbone, task.class_names, task.templates, torch.float32)
            Lora.for_blocks(text.blocks(), *options).attach_to(text.blocks())
        steps = None if self.epochs else STEPS_PER_SHOT * task.shots
        schedule = PixelSchedule.adamw(self, weight_decay=WEIGHT_DECAY, steps=steps)
        return fit_inside(self, task, schedule, adapter=adapter, text=text)

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        visual = sizes.trunk * sizes.blocks if self.encoder != "text" else 0
        text = sizes.text_width * sizes.text_blocks if self.encoder != "visual" else 0
        return 2 * MATRICES * self.rank * (visual + text)
