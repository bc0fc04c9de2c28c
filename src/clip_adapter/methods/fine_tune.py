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

from typing import Annotated, Literal

import torch

from clip_adapter.finetuning import PixelSchedule, fit_inside
from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Method, Sizes, register
from clip_adapter.nn import ResidualAdapter
from clip_adapter.towers import TextTower, WeightAdapter

# D / H of the adapter, as the paper's main experiments (section 4.1).
REDUCTION = 4
# The adapter starts from random numbers and hardly moves at the rate of the towers: it learns at
# that of the recipe "fast" of clip-adapter.
ADAPTER_RATE = 1.5e-3
WEIGHT_DECAY, WARMUP, MAX_NORM = 0.1, 0.1, 1.0


@register(
    name="fine-tune",
    summary="CLIP's own towers, with early stopping; overfits on few shots",
    citation="Gao et al. 2024, arXiv 2110.04544",
    trains="visual or text tower, image adapter",
    reads="images",
    uses_views=False,
)
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

    tower: Literal["visual", "text", "both"] = "visual"
    adapter: bool = True
    visual_ratio: Annotated[float, Bounds(least=0, most=1)] = 0.2
    lr: Annotated[float, Bounds(above=0)] = 1e-5
    batch_size: Annotated[int, Bounds(least=1)] = 32
    epochs: Annotated[int, Bounds(least=1)] = 20
    patience: Annotated[int, Bounds(least=0)] = 5
    augment: bool = True

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        backbone, dim = task.require_backbone(self.name), task.train.dim
        text = image_map = None
        if self.tower != "visual":
            text = TextTower(backbone, task.class_names, task.templates, torch.float32)
            text.model.requires_grad_(True)
        if self.adapter:
            image_map = ResidualAdapter.build(
                dim,
                max(dim // REDUCTION, 1),
                ratio=self.visual_ratio,
                generator=torch.Generator().manual_seed(task.seed),
            )
        schedule = PixelSchedule.adamw(
            self,
            weight_decay=WEIGHT_DECAY,
            warmup=WARMUP,
            augment=self.augment,
            patience=self.patience or None,
            max_norm=MAX_NORM,
            rates=(("image_map.", ADAPTER_RATE / self.lr),),
        )
        return fit_inside(
            self,
            task,
            schedule,
            adapter=None if self.tower == "text" else WeightAdapter.start(backbone),
            text=text,
            image_map=image_map,
            visual_ratio=self.visual_ratio if self.adapter else None,
        )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        count = sizes.visual_parameters if self.tower != "text" else 0
        count += sizes.text_parameters if self.tower != "visual" else 0
        return count + (2 * sizes.dim * max(sizes.dim // REDUCTION, 1) if self.adapter else 0)
