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

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.finetuning.job import PixelSchedule
from clip_adapter.finetuning.train import PixelModel, train_pixels
from clip_adapter.heads import Head
from clip_adapter.methods.base import Method, register
from clip_adapter.task import FewShotTask, Sizes
from clip_adapter.towers import adapted_copy, visual_tower
from clip_adapter.towers.lora import MATRICES, Lora
from clip_adapter.towers.sites import transformer_blocks
from clip_adapter.towers.text import TextTower

STEPS_PER_SHOT = 500
WEIGHT_DECAY = 1e-2


@register
@dataclass
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

    name: ClassVar[str] = "clip-lora"
    summary: ClassVar[str] = "low-rank changes of the attention in both towers"
    citation: ClassVar[str] = "Zanella and Ben Ayed 2024, arXiv 2405.18541"
    trains: ClassVar[str] = "low-rank matrices in both towers"
    reads: ClassVar[Literal["features", "images"]] = "images"
    uses_views: ClassVar[bool] = False

    encoder: Literal["both", "visual", "text"] = "both"
    rank: int = 2
    alpha: float = 1.0
    dropout: float = 0.25
    lr: float = 2e-4
    batch_size: int = 32
    epochs: int | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "lr", "batch_size", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} = {value}.", allowed="a number above 0")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout = {self.dropout}.", allowed="0 to below 1")

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        weights = task.require_text(self.name)
        task.require_pictures(self.name)
        backbone = task.require_backbone(self.name)
        generator = torch.Generator().manual_seed(task.seed)
        options = (self.rank, self.alpha, self.dropout, generator)
        change = text = None
        if self.encoder == "text":
            visual = copy.deepcopy(visual_tower(backbone)).float().requires_grad_(False)
        else:
            blocks = transformer_blocks(visual_tower(backbone), f"{self.name} (encoder=visual)")
            change = Lora.for_blocks(blocks, *options)
            visual = adapted_copy(backbone, change, torch.float32)
        if self.encoder != "visual":
            text = TextTower(backbone, task.class_names, task.templates, torch.float32)
            Lora.for_blocks(text.blocks(), *options).attach_to(text.blocks())
        model = PixelModel(
            visual,
            weights if text is None else text,
            task.logit_scale,
            tower_adapter=change,
            unit=task.train.feature_norm == "unit",
        )
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        trained = train_pixels(model, task, self._recipe(task.shots), self)
        with torch.no_grad():
            learnt = model.class_weights().cpu()
        return Classifier(
            Head(learnt, logit_scale=task.logit_scale),
            task.class_names,
            feature_norm=task.train.feature_norm,
            text_weights=weights,
            tower_adapter=change,
            info={
                "hyperparameters": {**dataclasses.asdict(self), "steps": trained.steps},
                "selection": [],
                "history": trained.history,
                "trained_parameters": count,
            },
        )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        visual = sizes.trunk * sizes.blocks if self.encoder != "text" else 0
        text = sizes.text_width * sizes.text_blocks if self.encoder != "visual" else 0
        return 2 * MATRICES * self.rank * (visual + text)

    def _recipe(self, shots: int) -> PixelSchedule:
        return PixelSchedule(
            "adamw",
            self.lr,
            weight_decay=WEIGHT_DECAY,
            batch_size=self.batch_size,
            epochs=self.epochs,
            steps=None if self.epochs else STEPS_PER_SHOT * shots,
        )
