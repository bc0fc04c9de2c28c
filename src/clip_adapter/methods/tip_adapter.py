"""Tip-Adapter: the shots themselves as a cache, added to zero-shot; Tip-Adapter-F trains its keys.

    logits = logit_scale * normalize(f) @ normalize(W).T + a exp(-b (1 - f F^T)) L

F (N, D) are the unit features of the shots, the mean over their views, and L (N, C) their labels.

Source: Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification",
ECCV 2022 (arXiv 2111.03930), sections 3.1 and 3.2. Optimiser, epochs and the search of a and b are
those of the released code; it searches on validation or test pictures, we on held-out shots.
Unlike there, keys stay of unit length while they are trained: an affinity is always a cosine.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Sizes, register
from clip_adapter.methods.cache import (
    CacheMethod,
    Part,
    balanced,
    balanced_runs,
    enough,
    key_schedule,
    unit_keys,
)
from clip_adapter.nn import Cache, affinity, normalize
from clip_adapter.training import Choice, Fold, Schedule, folds_of, train_on

# The released code: AdamW with PyTorch's weight decay, 20 epochs in batches of 256.
LR, WEIGHT_DECAY, EPSILON, EPOCHS, BATCH = 1e-3, 1e-2, 1e-4, 20, 256


@register(
    name="tip-adapter",
    summary="zero-shot plus a cache of the shots, no training",
    citation="Zhang et al. 2022, arXiv 2111.03930",
    trains="nothing",
)
class TipAdapter(CacheMethod):
    """Nothing is trained; two numbers are chosen.

    Attributes:
        cache_weight: a, how much the shots count beside the text: 0 or more, or "auto"
            (cross-validation on the shots, 0 included, which is zero-shot).
        cache_sharpness: b, how fast a shot's say falls with distance: above 0, or "auto".
    """

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        keys, classes = unit_keys(task.train.features), len(task.require_text(self.name))
        candidates = len(self.grid(task.logit_scale))
        folds = folds_of(task.train, task.seed, enough(len(keys), classes, candidates))
        choice = self._choose(task, folds, [keys for _ in folds])
        values = balanced(task.train.labels, classes, task.mean_shots)
        return self.fitted(task, choice, keys, values)

    def _choose(self, task: FewShotTask, folds: list[Fold], keys: Sequence[Tensor]) -> Choice:
        """Weight and sharpness; ``keys`` (N, D) are those of each fold, held-out ones included."""
        weights, parts = task.require_text(self.name), list[Part]()
        scaled = task.logit_scale * normalize(weights).T
        for own, fold in zip(keys, folds, strict=True):
            rows = normalize(task.train.plain_view[fold.held_out])
            values = balanced(task.train.labels[fold.fit], len(weights), task.mean_shots)
            parts.append(Part(rows @ scaled, affinity(rows, own[fold.fit]), values))
        return self.choose(task, folds, lambda fold, _: parts[fold])


@register(
    name="tip-adapter-f",
    summary="zero-shot plus a cache of the shots whose keys are trained",
    trains="the keys of a cache of the shots",
)
class TipAdapterF(TipAdapter):
    """The keys are trained, then weight and sharpness are chosen for what they became.

    Attributes:
        cache_weight: a: 0 or more, or "auto" (cross-validation on the shots, 0 included). The
            keys are trained at the number given, and before the search for "auto".
        cache_sharpness: b: above 0, or "auto", in the same way.
        recipe: "official" (AdamW, 20 epochs), or "fast": an eighth of its steps at eight times
            its rate, but 32 steps at least.
        lr: learning rate of "official", before "fast" raises it.
        batch_size: pictures per step.
        epochs: passes over the shots, before "fast" shortens them. The released code has 20 on all
            sets but EuroSAT, where it has 100.
    """

    recipe: Literal["fast", "official"] = "fast"
    lr: Annotated[float, Bounds(above=0)] = LR
    batch_size: Annotated[int, Bounds(least=1)] = BATCH
    epochs: Annotated[int, Bounds(least=1)] = EPOCHS

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.classes * sizes.shots * sizes.dim

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        folds = folds_of(task.train, task.seed)
        runs = self._train(task, [f.fit for f in folds]).keys if folds else torch.empty(0)
        choice = self._choose(task, folds, list(normalize(runs.detach())))
        cache = self._train(task, [torch.arange(len(task.train))])
        return self.fitted(
            task,
            choice,
            normalize(cache.keys[0]),
            cache.values[0],
            trained=cache.keys.numel(),
            recipe=self.recipe,
            **self._schedule(len(task.train)).record,
        )

    def _schedule(self, pictures: int) -> Schedule:
        return key_schedule(
            self.recipe, pictures, self.lr, self.epochs, self.batch_size, WEIGHT_DECAY, EPSILON
        )

    def _train(self, task: FewShotTask, rows: list[Tensor]) -> Cache:
        """R caches (R, N, D), one for each tensor of ``rows``; the others' values are nought."""
        weights, keys = task.require_text(self.name), unit_keys(task.train.features)
        values = balanced_runs(task.train.labels, rows, len(weights), task.mean_shots)
        cache = Cache(keys.expand(len(rows), -1, -1), values, *self.mild(task).values())
        scaled = task.logit_scale * normalize(weights).T

        def logits(features: Tensor) -> Tensor:
            return normalize(features) @ scaled + cache(features)

        schedule = self._schedule(min(len(r) for r in rows))
        work = len(rows) * min(schedule.batch_size, len(keys)) * len(keys) * task.train.dim
        train_on(task, cache, rows, schedule, work=work, logits=logits)
        return cache
