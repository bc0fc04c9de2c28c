"""The regularised linear adapter: one matrix on the image feature, held near the identity.

    logits = logit_scale * normalize(f M) @ normalize(W).T          M (D, D) starts at I
    loss = cross entropy + (1 / K) |M - I|^2

Source: Fahes et al., "CLIP's Visual Embedding Projector is a Few-shot Cornucopia", 2024 (arXiv
2410.05270, version 4: RLA), which reads CLIP-Adapter in the light of ProLIP: no bottleneck, no
ReLU, no ratio, and a penalty in the place of all three. K is the mean number of shots of the
classes that have any. Nothing is left to choose. Ours: few and long steps of Adam, and an epsilon
of 1e-2 where the released code of ProLIP has 1e-4. Where zero-shot is sure and right, gradients are
tiny, and a smaller epsilon takes full steps along their noise: two classes lost up to 28 points by
it on the tuning part of the zoo (benchmarks/zoo).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.heads import Head
from clip_adapter.methods.base import Method, register
from clip_adapter.nn import Projection, cosine_logits
from clip_adapter.task import FewShotTask, Sizes
from clip_adapter.training.folds import Fold
from clip_adapter.training.loop import Schedule, train
from clip_adapter.training.threads import suited_threads

STEPS, EPOCHS_AT_LEAST = 40, 4
RECIPE = Schedule(
    "adamw", 3e-3, weight_decay=0.0, batch_size=256, steps=STEPS, warmup=0.1, epsilon=1e-2
)


@register
@dataclass
class LinearAdapter(Method):
    """A matrix on the image feature, near the identity.

    Attributes:
        distance_penalty: weight of |M - I|^2, 0 or more, or "auto": 1 over the number of shots.
        lr: learning rate at the start of the cosine.
        steps: of the training; None for 40, or four passes over the shots where those are more.
    """

    name: ClassVar[str] = "linear-adapter"
    summary: ClassVar[str] = "a linear map of the image feature, held near the identity"
    citation: ClassVar[str] = "Fahes et al. 2024, arXiv 2410.05270v4"
    trains: ClassVar[str] = "a square matrix on image features"

    distance_penalty: float | Literal["auto"] = "auto"
    lr: float = RECIPE.lr
    steps: int | None = None

    def __post_init__(self) -> None:
        penalty = self.distance_penalty
        if not isinstance(penalty, str) and not 0 <= penalty < math.inf:
            raise UsageError(f"distance_penalty = {penalty}.", allowed="0 or more, or auto")
        for name in ("lr", "steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} = {value}.", allowed="a number above 0")

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        text = task.require_text(self.name)
        matrices = self._train(task, [torch.arange(len(task.train))])
        adapter = Projection(matrices[0])
        recipe = dataclasses.asdict(self._recipe(task))
        return Classifier(
            Head(text, adapter, logit_scale=task.logit_scale),
            task.class_names,
            feature_norm=task.train.feature_norm,
            text_weights=text,
            info={
                "hyperparameters": {
                    "distance_penalty": self._strength(task),
                    **{k: v for k, v in recipe.items() if v is not None},
                },
                "selection": [],
                "trained_parameters": adapter.matrix.numel(),
            },
        )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.dim**2

    def held_out_logits(self, task: FewShotTask, folds: Sequence[Fold]) -> Iterator[Tensor]:  # noqa: D102
        matrices = self._train(task, [f.fit for f in folds])
        for matrix, fold in zip(matrices, folds, strict=True):
            mapped = task.train.plain_view[fold.held_out] @ matrix
            yield cosine_logits(mapped, task.require_text(self.name), task.logit_scale)

    def _strength(self, task: FewShotTask) -> float:
        auto = self.distance_penalty == "auto"
        return 1 / task.mean_shots if auto else float(self.distance_penalty)

    def _recipe(self, task: FewShotTask) -> Schedule:
        least = EPOCHS_AT_LEAST * len(task.train) // RECIPE.batch_size
        return dataclasses.replace(RECIPE, lr=self.lr, steps=self.steps or max(STEPS, least))

    def _train(self, task: FewShotTask, rows: list[Tensor]) -> Tensor:
        """(R, D, D) matrices, one for each tensor of ``rows``."""
        text, dim = task.require_text(self.name), task.train.dim
        identity, strength = torch.eye(dim), self._strength(task)
        module = Projection(identity.repeat(len(rows), 1, 1))

        def logits(features: Tensor) -> Tensor:
            return cosine_logits(module(features), text, task.logit_scale)

        def penalty() -> Tensor:
            return strength * (module.matrix - identity).square().sum((-1, -2))

        recipe = self._recipe(task)
        batch = min(recipe.batch_size, max(len(r) for r in rows))
        generator = torch.Generator().manual_seed(task.seed)
        data = (task.train.features, task.train.labels)
        with suited_threads(len(rows) * batch * dim * (dim + len(text))):
            train(module, logits, *data, rows, recipe, generator, penalty)
        return module.matrix.detach()
