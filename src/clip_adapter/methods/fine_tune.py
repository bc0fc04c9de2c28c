"""Fine-tuning of CLIP's own towers, with CLIP-Adapter on top: what the paper argues against.

    f' = a A_v(f) + (1 - a) f          f = visual tower, trained or frozen
    logits = logit_scale * normalize(f') @ normalize(W).T          W = text tower, trained or frozen

Source: Gao et al., "CLIP-Adapter", IJCV 2024 (arXiv 2110.04544), section 4.4 and Table 10: visual
encoder, text encoder or both are trained beside the adapter, with early stopping. The paper stops
where the accuracy is highest and does not say on which pictures; here shots are held out. It names
no optimiser: AdamW, warm-up, a cosine and gradients cut to length 1 are those of the code of
WiSE-FT (Wortsman et al. 2021, arXiv 2109.01903), whose batches of 512 learn at 3e-5; weight decay
0.1 is that paper's. The rate for few shots, 1e-5, is the one at which the code of ProLIP (arXiv
2410.05270) trains the whole visual tower as a baseline.
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
from clip_adapter.nn import ResidualAdapter
from clip_adapter.task import FewShotTask, Sizes
from clip_adapter.towers import adapted_copy, visual_tower
from clip_adapter.towers.text import TextTower
from clip_adapter.towers.weights import WeightAdapter

# D / H of the adapter, as the paper's main experiments (section 4.1).
REDUCTION = 4
# The adapter starts from random numbers and hardly moves at the rate of the towers: it learns at
# that of the recipe "fast" of clip-adapter.
ADAPTER_RATE = 1.5e-3
WEIGHT_DECAY, WARMUP, MAX_NORM = 0.1, 0.1, 1.0


@register
@dataclass
class FineTune(Method):
    """Trains whole towers; the text tower is trained through its class weights.

    Attributes:
        tower: which of the two is trained.
        adapter: whether CLIP-Adapter's visual branch is trained on top, as in Table 10.
        visual_ratio: a, the share of the adapter's new feature, 0 to 1. 0.2 is the paper's best on
            generic data.
        lr: learning rate of the towers, after the warm-up.
        batch_size: pictures per step.
        epochs: passes over the shots, at most.
        patience: epochs without a better accuracy on held-out shots before it stops, and the best
            parameters are restored; 0 trains on all shots to the last step. One shot per class
            leaves none to hold out.
        augment: new random views of the pictures in each epoch.
    """

    name: ClassVar[str] = "fine-tune"
    summary: ClassVar[str] = "CLIP's own towers, with early stopping; overfits on few shots"
    citation: ClassVar[str] = "Gao et al. 2024, arXiv 2110.04544"
    trains: ClassVar[str] = "visual or text tower, image adapter"
    reads: ClassVar[Literal["features", "images"]] = "images"
    uses_views: ClassVar[bool] = False

    tower: Literal["visual", "text", "both"] = "visual"
    adapter: bool = True
    visual_ratio: float = 0.2
    lr: float = 1e-5
    batch_size: int = 32
    epochs: int = 20
    patience: int = 5
    augment: bool = True

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "epochs"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name} = {value}.", allowed="a number above 0")
        if not 0 <= self.visual_ratio <= 1:
            raise UsageError(f"visual_ratio = {self.visual_ratio}.", allowed="0 to 1")
        if self.patience < 0:
            raise UsageError(f"patience = {self.patience}.", allowed="0 (no early stop) or more")

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        weights = task.require_text(self.name)
        task.require_pictures(self.name)
        backbone = task.require_backbone(self.name)
        change = None
        if self.tower == "text":
            visual = copy.deepcopy(visual_tower(backbone)).float().requires_grad_(False)
        else:
            change = WeightAdapter.start(backbone)
            visual = adapted_copy(backbone, change, torch.float32)
        text = None
        if self.tower != "visual":
            text = TextTower(backbone, task.class_names, task.templates, torch.float32)
            text.model.requires_grad_(True)
        generator = torch.Generator().manual_seed(task.seed)
        dim = task.train.dim
        hidden = max(dim // REDUCTION, 1)
        adapter = (
            ResidualAdapter.build(dim, hidden, "official", self.visual_ratio, (), generator)
            if self.adapter
            else None
        )
        model = PixelModel(
            visual,
            weights if text is None else text,
            task.logit_scale,
            adapter,
            unit=task.train.feature_norm == "unit",
        )
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        trained = train_pixels(model, task, self._recipe(), self)
        if text is not None:
            with torch.no_grad():
                weights = text().cpu()
        return Classifier(
            Head(
                weights, adapter if adapter is None else adapter.cpu(), logit_scale=task.logit_scale
            ),
            task.class_names,
            feature_norm=task.train.feature_norm,
            text_weights=task.text_weights,
            tower_adapter=change,
            info={
                "hyperparameters": {
                    **dataclasses.asdict(self),
                    "visual_ratio": self.visual_ratio if self.adapter else None,
                    "steps": trained.steps,
                    "best_step": trained.best_step,
                },
                "selection": [],
                "history": trained.history,
                "trained_parameters": count,
            },
        )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        count = sizes.visual_parameters if self.tower != "text" else 0
        count += sizes.text_parameters if self.tower != "visual" else 0
        return count + (2 * sizes.dim * max(sizes.dim // REDUCTION, 1) if self.adapter else 0)

    def _recipe(self) -> PixelSchedule:
        return PixelSchedule(
            "adamw",
            self.lr,
            weight_decay=WEIGHT_DECAY,
            batch_size=self.batch_size,
            epochs=self.epochs,
            warmup=WARMUP,
            augment=self.augment,
            patience=self.patience or None,
            max_norm=MAX_NORM,
            rates=(("image_map.", ADAPTER_RATE / self.lr),),
        )
