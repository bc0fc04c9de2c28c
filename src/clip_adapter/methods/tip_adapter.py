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

from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Method, Sizes, register
from clip_adapter.nn import Cache, normalize
from clip_adapter.nn.cache import affinity
from clip_adapter.training import Fold, Schedule, folds_of, train_on
from clip_adapter.training.cache_search import (
    CacheSharpness,
    CacheWeight,
    Candidate,
    Part,
    balanced,
    balanced_runs,
    choose_cache,
    enough,
    fitted_with_cache,
    grid,
    key_schedule,
    unit_keys,
    unsearched,
)
from clip_adapter.training.selection import Choice

# The released code: AdamW with PyTorch's weight decay, 20 epochs in batches of 256.
LR, WEIGHT_DECAY, EPSILON, EPOCHS, BATCH = 1e-3, 1e-2, 1e-4, 20, 256


@register(
    name="tip-adapter",
    summary="zero-shot plus a cache of the shots, no training",
    citation="Zhang et al. 2022, arXiv 2111.03930",
    trains="nothing",
)
class TipAdapter(Method):
    """Nothing is trained; two numbers are chosen.

    Attributes:
        cache_weight: a, how much the shots count beside the text: 0 or more, or "auto"
            (cross-validation on the shots, 0 included, which is zero-shot).
        cache_sharpness: b, how fast a shot's say falls with distance: above 0, or "auto".
    """

    cache_weight: CacheWeight = "auto"
    cache_sharpness: CacheSharpness = "auto"

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return 0

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        weights, keys = task.require_text(self.name), unit_keys(task.train.features)
        wanted = enough(len(keys), len(weights), len(grid(self, task.logit_scale)))
        folds = folds_of(task.train, task.seed, wanted)
        choice = self._choose(task, folds, [keys for _ in folds])
        values = balanced(task.train.labels, len(weights), task.mean_shots)
        return fitted_with_cache(task, weights, choice, keys, values)

    def _choose(self, task: FewShotTask, folds: list[Fold], keys: Sequence[Tensor]) -> Choice:
        """Weight and sharpness; ``keys`` (N, D) are those of each fold, held-out ones included."""
        weights, labels = task.require_text(self.name), task.train.labels
        scaled, parts = task.logit_scale * normalize(weights).T, []
        for own, fold in zip(keys, folds, strict=True):
            rows = normalize(task.train.plain_view[fold.held_out])
            values = balanced(labels[fold.fit], len(weights), task.mean_shots)
            parts.append(Part(rows @ scaled, affinity(rows, own[fold.fit]), values))

        def part(fold: int, _: Candidate) -> Part:
            return parts[fold]

        mild = unsearched(self, task.mean_shots, task.logit_scale)
        return choose_cache(task, folds, grid(self, task.logit_scale), mild, part)


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
        folds, trained = folds_of(task.train, task.seed), []
        if folds:
            trained = list(normalize(self._train(task, [f.fit for f in folds]).keys.detach()))
        choice = self._choose(task, folds, trained)
        cache = self._train(task, [torch.arange(len(task.train))])
        return fitted_with_cache(
            task,
            task.require_text(self.name),
            choice,
            normalize(cache.keys[0]),
            cache.values[0],
            trained=cache.keys.numel(),
            more={"recipe": self.recipe, **self._schedule(len(task.train)).record},
        )

    def _schedule(self, pictures: int) -> Schedule:
        return key_schedule(
            self.recipe, pictures, self.lr, self.epochs, self.batch_size, WEIGHT_DECAY, EPSILON
        )

    def _train(self, task: FewShotTask, rows: list[Tensor]) -> Cache:
        """R caches (R, N, D), one for each tensor of ``rows``; the others' values are nought."""
        labels, weights, runs = task.train.labels, task.require_text(self.name), len(rows)
        values = balanced_runs(labels, rows, len(weights), task.mean_shots)
        keys = unit_keys(task.train.features)
        start = unsearched(self, task.mean_shots, task.logit_scale)
        cache = Cache(keys.expand(runs, -1, -1), values, *start.values())
        unit_weights = task.logit_scale * normalize(weights).T

        def logits(features: Tensor) -> Tensor:
            return normalize(features) @ unit_weights + cache(features)

        schedule = self._schedule(min(len(r) for r in rows))
        batch = min(schedule.batch_size, len(labels))
        work = runs * batch * len(labels) * task.train.dim
        train_on(task, cache, rows, schedule, work=work, logits=logits)
        return cache
