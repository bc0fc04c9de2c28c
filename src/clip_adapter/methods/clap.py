"""CLAP: a linear probe that starts at the zero-shot weights and is held near them, class by class.

    logits = logit_scale * normalize(f) @ normalize(W)^T
    loss = cross entropy + mean over classes of lambda_c |w_c - t_c|^2        W starts at T
    lambda_c = mean zero-shot probability of the right class over the shots of class c

Source: Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language
Models", CVPR 2024 (arXiv 2312.12730), with the released code (its constraint "l2"). The lambdas
are the multipliers of an augmented Lagrangian, set by the zero-shot outcomes on the shots and then
kept, so that nothing is left to be chosen on validation data. Rates from its configuration: SGD
0.1, momentum 0.9, batches of 256, 300 epochs, cosine after one epoch of warm-up. T has its raw
length there, see ``nn/text_residual.py``. The shots' views stand for the code's augmentations.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Method, Sizes, register
from clip_adapter.nn import TextResidual, cosine_logits
from clip_adapter.training import (
    Fold,
    Schedule,
    for_large,
    held_out_scores,
    train_on,
    training_device,
)

OFFICIAL = Schedule(
    "sgd", 0.1, weight_decay=0.0, batch_size=256, epochs=300, warmup=1, warmup_lr=1e-5
)
# The penalty gives the loss one minimum, so another optimiser may look for it: AdamW comes as near
# to it in 128 steps. The rate was chosen on the validation set of Caltech101 and on shots of
# ImageNet that were set aside.
FAST_STEPS, EPOCHS_AT_LEAST = 128, 8
FAST = Schedule("adamw", 3e-3, weight_decay=0.0, batch_size=256, steps=FAST_STEPS, warmup=0.1)
# Of many shots, see clip_adapter.training.for_large.
LARGE = {"rate": 2.0, "epochs": 8}


def penalty_weights(features: Tensor, labels: Tensor, text: Tensor, logit_scale: float) -> Tensor:
    """The lambdas (C,): how sure zero-shot is of the right answer, class by class.

    Args:
        features: (V, N, D), any length; all views count.
        labels: (N,).
        text: T (C, D), any length.
        logit_scale: 1/tau.

    Returns:
        Mean probabilities, 0 to 1; 0 for a class without pictures, whose weights do not move.
    """
    size = torch.bincount(labels, minlength=len(text)).clamp(min=1) * len(features)
    total = torch.zeros(len(text))
    for view in features:
        right = cosine_logits(view, text, logit_scale).softmax(-1).gather(1, labels[:, None])
        total.index_add_(0, labels, right[:, 0])
    return total / size


def distance(module: TextResidual, held: Tensor) -> Tensor:
    """(R,): the mean over the classes of ``held`` (C,) or (R, C) times |w_c - t_c|^2."""
    return (held * module.residual.square().sum(-1)).mean(-1)


@register(
    name="clap",
    summary="a linear probe from the text weights, held near them class by class",
    citation="Silva-Rodriguez et al. 2024, arXiv 2312.12730",
    trains="the class weights",
    one_vector_per_class=True,
)
class CLAP(Method):
    """Class-adaptive linear probing.

    Attributes:
        constraint: "l2" is CLAP; "none" drops the penalty, which is the paper's ZS-LP.
        recipe: "fast", or "official".
        lr: rate in place of the recipe's.
    """

    constraint: Literal["l2", "none"] = "l2"
    recipe: Literal["fast", "official"] = "fast"
    lr: Annotated[float | None, Bounds(above=0)] = None

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.classes * sizes.dim

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        return self._fit(task, task.train)

    def fit_parts(self, task: FewShotTask, rows: Sequence[Tensor]) -> list[Fitted]:  # noqa: D102
        parts = [dataclasses.replace(task, train=task.train.subset(r)) for r in rows]
        return [self._fit(part, task.train) for part in parts]

    def held_out_logits(self, task: FewShotTask, folds: Sequence[Fold]) -> Iterator[Tensor]:  # noqa: D102
        heads, _ = self._train(task, [f.fit for f in folds], task.train)
        yield from held_out_scores(heads, folds, task.train.plain_view)

    def _fit(self, task: FewShotTask, whole: FeatureSet) -> Fitted:
        (head,), held = self._train(task, [torch.arange(len(task.train))], whole)
        return Fitted(
            head,
            {
                "constraint": self.constraint,
                "mean_penalty_weight": float(held.mean()),
                "recipe": self.recipe,
                **self._schedule(whole, len(task.train)).record,
            },
            trained_parameters=head.weights.numel(),
        )

    def _train(
        self, task: FewShotTask, rows: list[Tensor], whole: FeatureSet
    ) -> tuple[list[Head], Tensor]:
        """R heads, one for each tensor of ``rows``, by the recipe for ``whole``; lambdas (R, C)."""
        text, labels, scale = task.require_text(self.name), task.train.labels, task.logit_scale
        module, features = TextResidual(text, labels, runs=len(rows)), task.train.features
        held = torch.stack([penalty_weights(features[:, r], labels[r], text, scale) for r in rows])
        schedule = self._schedule(whole, max(len(r) for r in rows))
        work = len(rows) * min(schedule.batch_size, len(labels)) * text.numel()
        device = training_device(task, work)
        penalty = partial(distance, module.to(device), held.to(device))
        penalty = None if self.constraint == "none" else penalty
        train_on(task, module, rows, schedule, work=work, penalty=penalty)
        return [Head(w, logit_scale=scale).cpu() for w in module.class_weights()], held

    def _schedule(self, train: FeatureSet, count: int) -> Schedule:
        """For ``count`` pictures of ``train``."""
        steps = max(FAST_STEPS, EPOCHS_AT_LEAST * count // FAST.batch_size)
        fast = for_large(dataclasses.replace(FAST, steps=steps), train, **LARGE)
        base = OFFICIAL if self.recipe == "official" else fast
        return dataclasses.replace(base, lr=self.lr or base.lr)
