"""The cache term of Tip-Adapter: the shots as keys, their labels as values.

    logits += a exp(-b (1 - f F^T)) V

Source: Zhang et al. 2022 (arXiv 2111.03930), section 3.1. With ``channels`` the affinity is taken
on some channels only, as in APE (Zhu et al. 2023, arXiv 2304.01195).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_adapter.nn.cosine import normalize

# A zero row stays zero, as in ``normalize``.
TINY = 1e-12


def affinity(features: Tensor, keys: Tensor) -> Tensor:
    """Cosines (..., n, B) of features (..., B, d) with keys (..., n, d), both of any length.

    Keys come first, so that a class is summed over whole rows, which lie together in memory; they
    are divided by their length last, as the products are fewer numbers than the keys in training.
    """
    length = keys.norm(dim=-1, keepdim=True).clamp_min(TINY)
    return keys @ normalize(features).transpose(-1, -2) / length


def nearness(cosines: Tensor, sharpness: float | Tensor) -> Tensor:
    """``exp(-b (1 - cosines))``; b is one number, or one per run (..., 1, 1)."""
    return torch.exp(sharpness * (cosines - 1))


def class_sums(near: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The rows of ``near`` (..., n, B) summed by their labels (n,): (..., B, C).

    The product with one-hot values, without the products by nought.
    """
    shape = (*near.shape[:-2], classes, near.shape[-1])
    return near.new_zeros(shape).index_add(-2, labels, near).transpose(-1, -2)


class Cache(nn.Module):
    """Features (..., B, D) to scores (..., B, C).

    Args:
        keys: F (..., n, d), of any length; d is D, or the number of ``channels``.
        values: V (n, C) or (..., n, C): one-hot labels, weighted ones, or zero rows for pictures
            that are to be left out.
        weight: a >= 0, the cache weight; one number, or one per run (...).
        sharpness: b > 0; one number, or one per run (...).
        channels: indices (d,) of the channels to compare, or None for all.
    """

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        weight: float | Tensor = 1.0,
        sharpness: float | Tensor = 5.5,
        channels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.keys = nn.Parameter(keys.detach().float().clone())
        self.values = nn.Buffer(values.detach().float().clone())
        self.weight = nn.Buffer(torch.as_tensor(weight, dtype=torch.float32))
        self.sharpness = nn.Buffer(torch.as_tensor(sharpness, dtype=torch.float32))
        self.channels = None if channels is None else nn.Buffer(channels.long())
        # Values of one class per picture, as in every method here, are summed, not multiplied.
        classes = (self.values != 0).view(-1, *self.values.shape[-2:]).any(0)
        one_class, amounts = bool((classes.sum(-1) <= 1).all()), self.values.sum(-1, keepdim=True)
        weighted = one_class and bool((amounts != 1).any())
        labels = classes.int().argmax(-1)
        self.labels = nn.Buffer(labels, persistent=False) if one_class else None
        self.amounts = nn.Buffer(amounts, persistent=False) if weighted else None

    def forward(self, features: Tensor) -> Tensor:
        """Scores to add to the logits; ``features`` may have any length."""
        compared = features if self.channels is None else features[..., self.channels]
        near = nearness(affinity(compared, self.keys), self.sharpness[..., None, None])
        if self.labels is None:
            scores = near.transpose(-1, -2) @ self.values
        else:
            near = near if self.amounts is None else near * self.amounts
            scores = class_sums(near, self.labels, self.values.shape[-1])
        return self.weight[..., None, None] * scores
