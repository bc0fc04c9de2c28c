"""ProLIP: fine-tunes CLIP's last visual projection, held near its start.

    logits = logit_scale * normalize(x P + b) @ normalize(W).T
    loss = cross entropy + (1 / K) |P - P_0|^2

x (trunk) are the features before the projection, P_0 (trunk, D) is CLIP's own; the bias b of a
ResNet stays. K is the number of shots.

Source: Fahes et al., "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia", 2024 (arXiv
2410.05270), in the form that needs no validation data: penalty 1/K, 300 steps on all shots at once,
a new view of each picture at each step. From the released code: Adam with epsilon 1e-4, rate 1e-5
(the one of the paper's tables on generalisation; it finds rates of 1e-5 to 1e-2 alike), a cosine,
and the sum of the squares rather than their mean in the penalty. They cache 300 random views; here
as many as the task has (--views).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier, Head
from clip_adapter.errors import UsageError
from clip_adapter.methods.base import FewShotTask, Method, Progress, register
from clip_adapter.methods.sizes import Sizes
from clip_adapter.nn import Projection, cosine_logits
from clip_adapter.towers.trunk import TrunkChange, projection, trunk_features
from clip_adapter.training.loop import Recipe, train
from clip_adapter.training.threads import suited_threads

EPSILON = 1e-4


@register
@dataclass
class ProLIP(Method):
    """Trains the projection on features of the frozen trunk.

    Attributes:
        distance_penalty: weight of |P - P_0|^2, 0 or more, or "auto": 1 over the number of shots.
        lr: learning rate at the start of the cosine.
        batch_size: pictures per step; 0 takes all at once, as published.
        epochs: passes over the shots.
    """

    name: ClassVar[str] = "prolip"
    summary: ClassVar[str] = "CLIP's last visual projection, held near its start"
    citation: ClassVar[str] = "Fahes et al. 2024, arXiv 2410.05270"
    trains: ClassVar[str] = "the projection of the visual tower"
    reads: ClassVar[Literal["features", "images"]] = "images"

    distance_penalty: float | Literal["auto"] = "auto"
    lr: float = 1e-5
    batch_size: int = 0
    epochs: int = 300

    def __post_init__(self) -> None:
        penalty = self.distance_penalty
        if penalty != "auto" and not 0 <= float(penalty) < math.inf:
            raise UsageError(f"distance_penalty = {penalty}.", allowed="0 or more, or auto")
        for name in ("lr", "epochs"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name} = {value}.", allowed="a number above 0")
        if self.batch_size < 0:
            raise UsageError(f"batch_size = {self.batch_size}.", allowed="0 (all) or more")

    def fit(self, task: FewShotTask, progress: Progress | None = None) -> Classifier:  # noqa: D102
        weights, pictures = task.text(self.name), task.pixels(self.name)
        task.compute.refuse(self.name)
        backbone = task.tower(self.name)
        start = Projection(*projection(backbone))
        features = trunk_features(backbone, pictures, task.train.views)
        auto = self.distance_penalty == "auto"
        strength = 1 / task.shots if auto else float(self.distance_penalty)
        batch = self.batch_size or len(task.train)
        recipe = Recipe("adamw", self.lr, 0.0, batch, epochs=self.epochs, epsilon=EPSILON)
        trained = fit_projection(
            start, features, task.train.labels, weights, task.logit_scale, strength, recipe,
            task.seed, progress,
        )  # fmt: skip
        return Classifier(
            Head(weights, trained, logit_scale=task.logit_scale),
            task.class_names,
            feature_norm="raw",
            zero_shot_weights=weights,
            change=TrunkChange(),
            info={
                "hyperparameters": {
                    "distance_penalty": strength,
                    "lr": self.lr,
                    "batch_size": batch,
                    "epochs": self.epochs,
                },
                "selection": [],
                "trained_parameters": trained.matrix.numel(),
            },
        )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.trunk * sizes.dim


def fit_projection(
    start: Projection,
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    logit_scale: float,
    strength: float,
    recipe: Recipe,
    seed: int = 1,
    progress: Progress | None = None,
) -> Projection:
    """The trained projection.

    Args:
        start: CLIP's own, left as it is.
        features: trunk features (V, N, trunk).
        labels: (N,).
        weights: class weights (C, D).
        logit_scale: 1/tau.
        strength: of the penalty on the squared distance from ``start``, 0 or more.
        recipe: optimiser and schedule.
        seed: of the order and the views.
        progress: called with (steps done, all steps).
    """
    matrix = start.matrix.detach()
    # The loop trains R runs at once; this is one.
    module = Projection(matrix[None], start.bias)

    def logits(x: Tensor) -> Tensor:
        return cosine_logits(module(x), weights, logit_scale)

    def penalty() -> Tensor:
        return strength * (module.matrix - matrix).square().sum((-1, -2))

    generator = torch.Generator().manual_seed(seed)
    work = min(recipe.batch_size, len(labels)) * matrix.shape[-1] * (len(matrix) + len(weights))
    rows = [torch.arange(len(labels))]
    with suited_threads(work):
        train(module, logits, features, labels, rows, recipe, generator, progress, penalty)
    return Projection(module.matrix[0], start.bias)
