"""APE: Tip-Adapter's cache on the channels that tell the classes apart; nothing is trained.

    logits = logit_scale * normalize(f) @ normalize(W).T + a exp(-b (1 - f' F'^T)) diag(exp(g d)) L

f' and F' are features and shots on the chosen channels, of unit length there. d (N,) is the
divergence, in bits, of a shot's label from softmax(F' W'^T): shots that the text misjudges count
more. A channel is chosen for little similarity between the classes, of their text and shots, and
much variance of the text over them (:func:`clip_adapter.methods.cache.criterion`).

Source: Zhu et al., "Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior
Refinement", ICCV 2023 (arXiv 2304.01195), sections 3.2 and 3.3. From the released code: l, g and
the shares of channels. Its softmax of F' W'^T has no temperature, so d hardly differs between shots
and g acts much like a: g stays at its published start and is not searched. It searches the rest on
validation or test pictures; we on held-out shots.
"""

import functools
from typing import Annotated, Literal

import torch
from torch import Tensor

from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, register
from clip_adapter.methods.cache import (
    CacheMethod,
    Part,
    balanced,
    best_channels,
    criterion,
    enough,
    unit_keys,
)
from clip_adapter.nn import affinity, normalize
from clip_adapter.training import folds_of

# The released configurations keep 500 to 900 of 1024 channels.
SHARES = (0.5, 0.7, 0.9)
# Added to probabilities before a logarithm, as in the released code.
TINY = 1e-6


def divergence(keys: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    """Bits (n, 1): how far labels (n,) are from the softmax of the cosines of (n, Q) and (C, Q)."""
    chances = (normalize(keys) @ normalize(weights).T).softmax(-1)
    return torch.log2((1 + TINY) / (chances.gather(1, labels[:, None]) + TINY))


@register(
    name="ape",
    summary="zero-shot plus a cache on chosen channels, no training",
    citation="Zhu et al. 2023, arXiv 2304.01195",
    trains="nothing",
)
class APE(CacheMethod):
    """Nothing is trained; channels, weight and sharpness are chosen.

    Attributes:
        cache_weight: a: 0 or more, or "auto" (cross-validation on the shots, 0 included, which is
            zero-shot).
        cache_sharpness: b: above 0, or "auto".
        channels: share of the channels that the affinity is taken on, above 0 to 1, or "auto".
        similarity_weight: l, 0 to 1: similarity of the classes against variance.
        misjudged_weight: g: 0 or more; 0 counts all shots alike.
    """

    channels: Annotated[float | Literal["auto"], Bounds(above=0, most=1)] = "auto"
    similarity_weight: Annotated[float, Bounds(least=0, most=1)] = 0.7
    misjudged_weight: Annotated[float, Bounds(least=0)] = 0.1

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        unit, labels = normalize(task.require_text(self.name)), task.train.labels
        keys = unit_keys(task.train.features)
        shares = SHARES if self.channels == "auto" else (self.channels,)
        safe, *others = [
            {**pair, "channels": s} for s in shares for pair in self.grid(task.logit_scale)
        ]
        # Without a cache all channels are the same: one such candidate is enough.
        candidates = [safe, *(c for c in others if c["cache_weight"] != 0)]
        folds = folds_of(task.train, task.seed, enough(len(keys), len(unit), len(candidates)))

        # A share is asked for in all folds before the next one is.
        @functools.lru_cache(maxsize=max(len(folds), 1))
        def part(fold: int, share: float) -> Part:
            rows, fit = normalize(task.train.plain_view[folds[fold].held_out]), folds[fold].fit
            index, values = self._refine(unit, keys[fit], labels[fit], task.mean_shots, share)
            cosines = affinity(rows[:, index], keys[fit][:, index])
            return Part(rows @ (task.logit_scale * unit.T), cosines, values)

        mild = self.mild(task) | {"channels": shares[-1]}
        choice = self.choose(task, folds, lambda k, c: part(k, c["channels"]), candidates, mild)
        index, values = self._refine(unit, keys, labels, task.mean_shots, choice.value["channels"])
        return self.fitted(
            task,
            choice,
            keys[:, index],
            values,
            index,
            similarity_weight=self.similarity_weight,
            misjudged_weight=self.misjudged_weight,
        )

    def _refine(
        self, unit: Tensor, keys: Tensor, labels: Tensor, shots: float, share: float
    ) -> tuple[Tensor, Tensor]:
        """(channels (Q,), values (n, C)) of the cache of shots (n, D) beside text (C, D)."""
        index = best_channels(criterion(unit, self.similarity_weight, keys, labels), share)
        bits = divergence(keys[:, index], unit[:, index], labels)
        return index, balanced(labels, len(unit), shots) * torch.exp(self.misjudged_weight * bits)
