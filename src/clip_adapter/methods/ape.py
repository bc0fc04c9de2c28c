"""APE: Tip-Adapter's cache on the channels that tell the classes apart; nothing is trained.

    logits = logit_scale * normalize(f) @ normalize(W).T + a exp(-b (1 - f' F'^T)) diag(exp(g d)) L

f' and F' are features and shots on the chosen channels, of unit length there. d (N,) is the
divergence, in bits, of a shot's label from softmax(F' W'^T): shots that the text misjudges count
more. A channel is chosen for little similarity between the classes, of their text and shots, and
much variance of the text over them (:mod:`clip_adapter.training.channels`).

Source: Zhu et al., "Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior
Refinement", ICCV 2023 (arXiv 2304.01195), sections 3.2 and 3.3. From the released code: l, g and
the shares of channels. Its softmax of F' W'^T has no temperature, so d hardly differs between shots
and g acts much like a: g stays at its published start and is not searched. It searches the rest on
validation or test pictures; we on held-out shots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

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
    scores_of,
    unit_keys,
    unsearched,
)
from clip_adapter.training.channels import best_channels, check_channels, criterion
from clip_adapter.training.folds import folds_of
from clip_adapter.training.selection import choose

# The released configurations keep 500 to 900 of 1024 channels.
SHARES = (0.5, 0.7, 0.9)
# Added to probabilities before a logarithm, as in the released code.
TINY = 1e-6


def divergence(keys: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    """Bits (n, 1): how far labels (n,) are from the softmax of the cosines of (n, Q) and (C, Q)."""
    chances = (normalize(keys) @ normalize(weights).T).softmax(-1)
    own = chances.gather(1, labels[:, None])
    return torch.log2((1 + TINY) / (own + TINY))


@register
@dataclass
class APE(Method):
    """Nothing is trained; channels, weight and sharpness are chosen.

    Attributes:
        cache_weight: a: 0 or more, or "auto" (cross-validation on the shots, 0 included, which is
            zero-shot).
        cache_sharpness: b: above 0, or "auto".
        channels: share of the channels that the affinity is taken on, above 0 to 1, or "auto".
        similarity_weight: l, 0 to 1: similarity of the classes against variance.
        misjudged_weight: g: 0 or more; 0 counts all shots alike.
    """

    name: ClassVar[str] = "ape"
    summary: ClassVar[str] = "zero-shot plus a cache on chosen channels, no training"
    citation: ClassVar[str] = "Zhu et al. 2023, arXiv 2304.01195"
    trains: ClassVar[str] = "nothing"

    cache_weight: float | Auto = "auto"
    cache_sharpness: float | Auto = "auto"
    channels: float | Auto = "auto"
    similarity_weight: float = 0.7
    misjudged_weight: float = 0.1

    def __post_init__(self) -> None:
        check_cache_options(self.cache_weight, self.cache_sharpness)
        check_channels(self.channels, self.similarity_weight)
        if not 0 <= self.misjudged_weight < math.inf:
            raise UsageError(f"misjudged_weight = {self.misjudged_weight}.", allowed="0 or more")

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return 0

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        weights = task.require_text(self.name)
        keys, labels = unit_keys(task.train.features), task.train.labels
        classes = len(task.class_names)
        options = (self.cache_weight, self.cache_sharpness)
        shares = list(SHARES) if self.channels == "auto" else [self.channels]
        pairs = grid(*options, task.logit_scale)
        safe, *others = [{**p, "channels": s} for s in shares for p in pairs]
        # Without a cache all channels are the same: one such candidate is enough.
        candidates = [safe, *(c for c in others if c["cache_weight"] != 0)]
        folds = folds_of(task.train, task.seed, enough(len(keys), classes, len(candidates)))
        held_out = [normalize(task.train.plain_view[f.held_out]) for f in folds]
        base = [rows @ (task.logit_scale * normalize(weights).T) for rows in held_out]
        parts: dict[int, tuple[float, Tensor, Tensor]] = {}

        def scores(fold: int, candidate: Candidate) -> Tensor:
            fit, share = folds[fold].fit, candidate["channels"]
            if fold not in parts or parts[fold][0] != share:
                index, amounts = self._refine(weights, keys[fit], labels[fit], share)
                cosines = affinity(held_out[fold][:, index], keys[fit][:, index])
                values = balanced(labels[fit], classes, task.mean_shots) * amounts
                parts[fold] = share, cosines, values
            _, cosines, values = parts[fold]
            return scores_of(nearness(cosines, candidate["cache_sharpness"]), values)

        mild = unsearched(*options, task.mean_shots, task.logit_scale) | {"channels": shares[-1]}
        choice = choose(
            ", ".join(safe),
            "auto",
            candidates,
            one_shot=mild,
            folds=lambda: folds,
            labels=labels,
            evaluate=in_grid(len(folds), lambda fold, _: base[fold], scores),
        )
        chosen = choice.value
        index, amounts = self._refine(weights, keys, labels, chosen["channels"])
        cache = Cache(
            keys[:, index],
            balanced(labels, classes, task.mean_shots) * amounts,
            chosen["cache_weight"],
            chosen["cache_sharpness"],
            index,
        )
        classifier = Classifier(
            Head(weights, logit_scale=task.logit_scale, cache=cache),
            task.class_names,
            feature_norm=task.train.feature_norm,
            text_weights=weights,
            info={
                "hyperparameters": {
                    **chosen,
                    "similarity_weight": self.similarity_weight,
                    "misjudged_weight": self.misjudged_weight,
                },
                "selection": choice.record,
                "trained_parameters": 0,
            },
        )
        classifier.held_out = choice.held_out
        return classifier

    def _refine(
        self, weights: Tensor, keys: Tensor, labels: Tensor, share: float
    ) -> tuple[Tensor, Tensor]:
        """(channels (Q,), amounts (n, 1)) that shots (n, D) give."""
        unit = normalize(weights)
        index = best_channels(criterion(unit, self.similarity_weight, keys, labels), share)
        bits = divergence(keys[:, index], unit[:, index], labels)
        return index, torch.exp(self.misjudged_weight * bits)
