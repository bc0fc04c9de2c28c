"""Tip-Adapter: the shots themselves as a cache, added to zero-shot; Tip-Adapter-F trains its keys.

    logits = logit_scale * normalize(f) @ normalize(W).T + a exp(-b (1 - f F^T)) L

F (N, D) are the unit features of the shots, the mean over their views, and L (N, C) their labels.

Source: Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification",
ECCV 2022 (arXiv 2111.03930), sections 3.1 and 3.2. Optimiser, epochs and the search of a and b are
those of the released code; it searches on validation or test pictures, we on held-out shots.
Unlike there, keys stay of unit length while they are trained: an affinity is always a cosine.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.heads import Head
from clip_adapter.methods.base import Method, register
from clip_adapter.nn import Cache, normalize
from clip_adapter.nn.cache import affinity, nearness
from clip_adapter.task import FewShotTask, Sizes
from clip_adapter.training.cache_search import (
    Auto,
    Candidate,
    balanced,
    check_cache_options,
    enough,
    grid,
    in_grid,
    key_schedule,
    scores_of,
    unit_keys,
    unsearched,
)
from clip_adapter.training.folds import Fold, folds_of
from clip_adapter.training.loop import Schedule, train
from clip_adapter.training.selection import Choice, choose
from clip_adapter.training.threads import suited_threads

# The released code: AdamW with PyTorch's weight decay, 20 epochs in batches of 256.
LR, WEIGHT_DECAY, EPSILON, EPOCHS, BATCH = 1e-3, 1e-2, 1e-4, 20, 256


@register
@dataclass
class TipAdapter(Method):
    """Nothing is trained; two numbers are chosen.

    Attributes:
        cache_weight: a, how much the shots count beside the text: 0 or more, or "auto"
            (cross-validation on the shots, 0 included, which is zero-shot).
        cache_sharpness: b, how fast a shot's say falls with distance: above 0, or "auto".
    """

    name: ClassVar[str] = "tip-adapter"
    summary: ClassVar[str] = "zero-shot plus a cache of the shots, no training"
    citation: ClassVar[str] = "Zhang et al. 2022, arXiv 2111.03930"
    trains: ClassVar[str] = "nothing"

    cache_weight: float | Auto = "auto"
    cache_sharpness: float | Auto = "auto"

    def __post_init__(self) -> None:
        check_cache_options(self.cache_weight, self.cache_sharpness)

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return 0

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        weights = task.require_text(self.name)
        keys = unit_keys(task.train.features)
        wanted = enough(len(keys), len(weights), len(_grid(self, task)))
        folds = folds_of(task.train, task.seed, wanted)
        choice = _choose(self, task, folds, weights, [keys for _ in folds])
        values = balanced(task.train.labels, len(weights), task.mean_shots)
        cache = Cache(keys, values, *_pair(choice.value))
        return _classifier(task, weights, cache, choice, {}, 0)


@register
@dataclass
class TipAdapterF(Method):
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

    name: ClassVar[str] = "tip-adapter-f"
    summary: ClassVar[str] = "zero-shot plus a cache of the shots whose keys are trained"
    citation: ClassVar[str] = "Zhang et al. 2022, arXiv 2111.03930"
    trains: ClassVar[str] = "the keys of a cache of the shots"

    cache_weight: float | Auto = "auto"
    cache_sharpness: float | Auto = "auto"
    recipe: Literal["fast", "official"] = "fast"
    lr: float = LR
    batch_size: int = BATCH
    epochs: int = EPOCHS

    def __post_init__(self) -> None:
        check_cache_options(self.cache_weight, self.cache_sharpness)
        for name in ("lr", "batch_size", "epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} = {getattr(self, name)}.", allowed="a number above 0")

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.classes * sizes.shots * sizes.dim

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        weights = task.require_text(self.name)
        folds = folds_of(task.train, task.seed)
        trained = []
        if folds:
            keys = self._train(task, weights, [f.fit for f in folds]).keys
            trained = list(normalize(keys.detach()))
        choice = _choose(self, task, folds, weights, trained)
        cache = self._train(task, weights, [torch.arange(len(task.train))])
        cache = Cache(normalize(cache.keys[0]), cache.values[0], *_pair(choice.value))
        recipe = dataclasses.asdict(self._recipe(len(task.train)))
        told = {k: v for k, v in recipe.items() if v is not None}
        count = cache.keys.numel()
        return _classifier(task, weights, cache, choice, {"recipe": self.recipe, **told}, count)

    def _recipe(self, pictures: int) -> Schedule:
        return key_schedule(
            self.recipe, pictures, self.lr, self.epochs, self.batch_size, WEIGHT_DECAY, EPSILON
        )

    def _train(
        self,
        task: FewShotTask,
        weights: Tensor,
        rows: list[Tensor],
    ) -> Cache:
        """R caches (R, N, D), one for each tensor of ``rows``; the others' values are nought."""
        labels, classes, runs = task.train.labels, len(task.class_names), len(rows)
        values = torch.zeros(runs, len(labels), classes)
        for run, index in enumerate(rows):
            values[run, index] = balanced(labels[index], classes, task.mean_shots)
        start = _unsearched(self, task)
        keys = unit_keys(task.train.features)
        cache = Cache(keys.expand(runs, -1, -1), values, *_pair(start))
        unit_weights = task.logit_scale * normalize(weights).T

        def logits(features: Tensor) -> Tensor:
            return normalize(features) @ unit_weights + cache(features)

        recipe = self._recipe(min(len(r) for r in rows))
        batch = min(recipe.batch_size, len(labels))
        generator = torch.Generator().manual_seed(task.seed)
        with suited_threads(runs * batch * len(labels) * task.train.dim):
            data = (task.train.features, labels)
            train(cache, logits, *data, rows, recipe, generator)
        return cache


def _pair(candidate: Candidate) -> tuple[float, float]:
    """(weight, sharpness)."""
    return float(candidate["cache_weight"]), float(candidate["cache_sharpness"])


def _grid(method: TipAdapter | TipAdapterF, task: FewShotTask) -> list[Candidate]:
    return grid(method.cache_weight, method.cache_sharpness, task.logit_scale)


def _unsearched(method: TipAdapter | TipAdapterF, task: FewShotTask) -> Candidate:
    shots = task.mean_shots
    return unsearched(method.cache_weight, method.cache_sharpness, shots, task.logit_scale)


def _choose(
    method: TipAdapter | TipAdapterF,
    task: FewShotTask,
    folds: list[Fold],
    weights: Tensor,
    keys: list[Tensor],
) -> Choice:
    """Weight and sharpness; ``keys`` (N, D) are those of each fold, held-out ones included."""
    scaled, labels = task.logit_scale * normalize(weights).T, task.train.labels
    held_out = [normalize(task.train.plain_view[f.held_out]) for f in folds]
    base = [rows @ scaled for rows in held_out]
    cosines = [affinity(x, k[f.fit]) for x, k, f in zip(held_out, keys, folds, strict=True)]
    values = [balanced(labels[f.fit], len(weights), task.mean_shots) for f in folds]

    def scores(fold: int, candidate: Candidate) -> Tensor:
        return scores_of(nearness(cosines[fold], candidate["cache_sharpness"]), values[fold])

    return choose(
        "cache_weight, cache_sharpness",
        "auto",
        _grid(method, task),
        one_shot=_unsearched(method, task),
        folds=lambda: folds,
        labels=labels,
        evaluate=in_grid(len(folds), lambda fold, _: base[fold], scores),
    )


def _classifier(
    task: FewShotTask,
    weights: Tensor,
    cache: Cache,
    choice: Choice,
    told: dict[str, Any],
    trained: int,
) -> Classifier:
    classifier = Classifier(
        Head(weights, logit_scale=task.logit_scale, cache=cache),
        task.class_names,
        feature_norm=task.train.feature_norm,
        text_weights=weights,
        info={
            "hyperparameters": {**choice.value, **told},
            "selection": choice.record,
            "trained_parameters": trained,
        },
    )
    classifier.held_out = choice.held_out
    return classifier
