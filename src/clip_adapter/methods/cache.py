"""What the methods with a cache of the shots share: options, keys, one-hot values, and the grid.

Weight and sharpness of the cache are chosen on held-out shots. A candidate costs one exponential
of the affinities for a sharpness, and one sum of logits for a weight.

APE and APE-T compare on some channels only, those that tell the classes apart:

    J = -l S + (1 - l) V        the channels with the largest J stay

S is the mean over pairs of classes of the product of their values on a channel, V the variance of
the text weights over the classes. Source: Zhu et al. 2023 (arXiv 2304.01195), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Method
from clip_adapter.nn import Cache, ResidualAdapter, class_sums, nearness, normalize
from clip_adapter.training import HELD_OUT_ENOUGH, Choice, Fold, Schedule, choose

# The weights are for a logit scale of 100, CLIP's. The released search goes to 3 on ImageNet with
# 16 shots and to 50 on some of the other sets, with sharpness from 0.1 to 7 or 12; fewer shots ask
# for a larger weight, as fewer of them are summed. The loss is smooth, so factors of about 1.5 do.
WEIGHTS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
SHARPNESSES = (0.5, 1.0, 2.0, 4.0, 5.5, 7.0, 9.0, 12.0, 16.0)
# Tip-Adapter, section 4.1: before any search, on ImageNet with 16 shots. A class sums over its
# shots, so fewer of them ask for more, but not in proportion: at one shot 3 is better than 1 on
# Caltech101's validation pictures (96.9 % and 96.7 %) and on ImageNet's own shots held out (61.5 %
# and 61.4 %), and milder than what two shots choose.
PUBLISHED_WEIGHT, PUBLISHED_SHARPNESS, PUBLISHED_SHOTS = 1.0, 5.5, 16
MOST_BEFORE_SEARCH = 3.0
PUBLISHED_SCALE = 100.0
# The fast recipe: an eighth of the published steps, at eight times the rate, down to 32.
FEWER_STEPS, FAST_STEPS = 8, 32
# Bound the affinities that are kept at once, and the scores that a search computes.
MAX_AFFINITIES = 16_000_000
MAX_SCORES = 500_000_000

Candidate = dict[str, Any]


class Part(NamedTuple):
    """A fold's held-out shots (m) beside the cache of its others (n).

    Attributes:
        logits: (m, C) without the cache.
        cosines: (n, m).
        values: (n, C).
    """

    logits: Tensor
    cosines: Tensor
    values: Tensor


@dataclass
class CacheMethod(Method):
    """A cache of the shots beside the text weights.

    Attributes:
        cache_weight: a, how much the shots count beside the text: 0 or more, or "auto". Beyond 1e6
            the text's logits are lost in the rounding of the cache's; the rounding of a cosine
            decides, and then overflows.
        cache_sharpness: b, how fast a shot's say falls with distance: above 0, or "auto".
    """

    symbols = {"alpha": "cache_weight", "beta": "cache_sharpness"}  # noqa: RUF012

    cache_weight: Annotated[float | Literal["auto"], Bounds(least=0, most=1e6)] = "auto"
    cache_sharpness: Annotated[float | Literal["auto"], Bounds(above=0, most=1e6)] = "auto"

    def mild(self, task: FewShotTask) -> Candidate:
        """What was given, and the published values, scaled, in the place of "auto"."""
        scaled = min(PUBLISHED_WEIGHT * PUBLISHED_SHOTS / task.mean_shots, MOST_BEFORE_SEARCH)
        scaled *= task.logit_scale / PUBLISHED_SCALE
        mild = {"cache_weight": scaled, "cache_sharpness": PUBLISHED_SHARPNESS}
        return mild | {name: own for name in mild if (own := getattr(self, name)) != "auto"}

    def grid(self, logit_scale: float, *, coarse: bool = False) -> list[Candidate]:
        """Candidates: the safe one first, then by sharpness; what was given stays as it is.

        Args:
            logit_scale: weights are in proportion to it.
            coarse: a sixth of the candidates, for searches with a third parameter.
        """
        weights, sharpnesses = [self.cache_weight], [self.cache_sharpness]
        if self.cache_weight == "auto":
            some = WEIGHTS[1::2] if coarse else WEIGHTS
            weights = [w * (logit_scale / PUBLISHED_SCALE) for w in some]
        if self.cache_sharpness == "auto":
            sharpnesses = SHARPNESSES[1::3] if coarse else SHARPNESSES
        pairs = [{"cache_weight": w, "cache_sharpness": b} for b in sharpnesses for w in weights]
        if self.cache_weight == "auto":
            pairs.insert(0, {"cache_weight": 0.0, "cache_sharpness": sharpnesses[0]})
        return pairs

    def choose(
        self,
        task: FewShotTask,
        folds: Sequence[Fold],
        part: Callable[[int, Candidate], Part],
        candidates: Sequence[Candidate] | None = None,
        one_shot: Candidate | None = None,
    ) -> Choice:
        """``cache_weight``, ``cache_sharpness`` and what else the candidates differ in.

        Args:
            task: the shots.
            folds: of them; none where nothing can be held out.
            part: of a fold, by its number, for a candidate.
            candidates: in an order in which neighbours differ in ``cache_weight`` alone, where
                they can: the scores of a cache are computed once for them. None: :meth:`grid`.
            one_shot: as in :func:`~clip_adapter.training.selection.choose`. None: :meth:`mild`.
        """
        kept: dict[int, tuple[Candidate, Tensor]] = {}

        def evaluate(jobs: list[tuple[Fold, Candidate]]) -> Iterable[Tensor]:
            for number, (_, candidate) in enumerate(jobs):
                fold, weight = number % len(folds), float(candidate["cache_weight"])
                logits, cosines, values = part(fold, candidate)
                others = candidate | {"cache_weight": None}
                if weight and kept.get(fold, (None,))[0] != others:
                    near = nearness(cosines, candidate["cache_sharpness"])
                    kept[fold] = others, scores_of(near, values)
                yield torch.add(logits, kept[fold][1], alpha=weight) if weight else logits

        mild = one_shot or self.mild(task)
        return choose(
            ", ".join(mild),
            "auto",
            candidates or self.grid(task.logit_scale),
            one_shot=mild,
            task=task,
            evaluate=evaluate,
            folds=folds,
        )

    def fitted(
        self,
        task: FewShotTask,
        choice: Choice,
        keys: Tensor,
        values: Tensor,
        index: Tensor | None = None,
        weights: Tensor | None = None,
        image_map: ResidualAdapter | None = None,
        trained: int = 0,
        **more: Any,
    ) -> Fitted:
        """Class weights, and the cache of the shots beside them.

        Args:
            task: the shots.
            choice: by :meth:`choose`.
            keys: (N, d).
            values: (N, C).
            index: (d,) of the channels that the keys are of, or None for all.
            weights: (C, D); None for the text weights.
            image_map: what the feature goes through before the weights, not before the cache.
            trained: how many numbers were trained.
            **more: hyper-parameters besides those that were chosen.
        """
        weights = task.require_text(self.name) if weights is None else weights
        value = choice.value
        cache = Cache(keys, values, value["cache_weight"], value["cache_sharpness"], index)
        return Fitted(
            Head(weights, image_map, logit_scale=task.logit_scale, cache=cache),
            {**choice.value, **more},
            trained_parameters=trained,
            selection=choice.record,
            held_out=choice.held_out,
        )


def unit_keys(features: Tensor) -> Tensor:
    """(V, N, D) -> (N, D): the mean over views of unit features, of unit length."""
    return normalize(normalize(features).mean(0))


def enough(pictures: int, classes: int, candidates: int) -> int:
    """How many shots to hold out where a candidate costs little: all, unless there are many."""
    most = min(MAX_AFFINITIES // pictures, MAX_SCORES // (classes * candidates))
    return max(most, HELD_OUT_ENOUGH)


def balanced(labels: Tensor, classes: int, shots: float) -> Tensor:
    """(n, C) values of a cache in which all classes sum to ``shots``, however many they have.

    A class without pictures gets the mean of the others: their cache then says nothing for or
    against it. With equally many of every class these are the one-hot labels.

    Args:
        labels: (n,).
        classes: C.
        shots: what a class sums to; on a part of the shots that of all of them, as a cache weight
            is for so many.
    """
    counts = torch.bincount(labels, minlength=classes)
    values = F.one_hot(labels, classes).float() * (shots / counts[labels])[:, None]
    absent = counts == 0
    values[:, absent] = values.sum(1, keepdim=True) / (~absent).sum()
    return values


def balanced_runs(labels: Tensor, rows: list[Tensor], classes: int, shots: float) -> Tensor:
    """(R, N, C) values of R caches: :func:`balanced` on the rows of each, nought elsewhere."""
    values = torch.zeros(len(rows), len(labels), classes)
    for run, index in enumerate(rows):
        values[run, index] = balanced(labels[index], classes, shots)
    return values


def scores_of(near: Tensor, values: Tensor) -> Tensor:
    """(m, C) from nearness (n, m) and values (n, C)."""
    labels, own = values.argmax(1), values.amax(1, keepdim=True)
    if int((values != 0).sum()) == len(values):  # one class each: summed, not multiplied
        return class_sums(near * own, labels, values.shape[1])
    return near.T @ values


def key_schedule(
    kind: Literal["fast", "official"],
    pictures: int,
    lr: float,
    epochs: int,
    batch_size: int,
    weight_decay: float,
    epsilon: float,
) -> Schedule:
    """AdamW with a cosine over the steps of ``epochs``; "fast" takes an eighth of the steps.

    Eight times the rate makes up for them: training on 3 of ImageNet's 4 shots brings the loss on
    the fourth from 1.461 to 1.366 in 32 steps and to 1.368 in the published 240. Trainings of 32
    steps or fewer stay as they are.
    """
    steps = epochs * max(pictures // min(batch_size, pictures), 1)
    fewer = steps if kind == "official" else max(steps // FEWER_STEPS, min(steps, FAST_STEPS))
    return Schedule(
        "adamw",
        lr * steps / fewer,
        weight_decay=weight_decay,
        batch_size=batch_size,
        steps=fewer,
        epsilon=epsilon,
    )


def criterion(
    weights: Tensor,
    similarity_weight: float,
    keys: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """J (D,) of unit text weights (C, D), and of shots (n, D) with labels (n,) where given."""
    total, counts = weights.double(), torch.ones(len(weights), dtype=torch.float64)
    if keys is not None and labels is not None:
        total = total.index_add(0, labels, keys.double())
        counts = counts + torch.bincount(labels, minlength=len(weights))
    # The sum over pairs of classes: over all pairs, less those within a class.
    across = total.sum(0) ** 2 - (total**2).sum(0)
    pairs = counts.sum() ** 2 - (counts**2).sum()
    variance = weights.double().var(0)
    return -similarity_weight * across / pairs + (1 - similarity_weight) * variance


def best_channels(scores: Tensor, share: float) -> Tensor:
    """(Q,) sorted indices of the ``share`` of channels (D,) with the largest scores."""
    return scores.topk(kept(len(scores), share)).indices.sort().values


def kept(dim: int, share: float) -> int:
    """Q: how many of D channels a share is."""
    return max(round(share * dim), 1)
