"""Choosing the channels of a feature that tell the classes apart (APE).

    J = -l S + (1 - l) V        the channels with the largest J stay

S is the mean over pairs of classes of the product of their values on a channel, V the variance of
the text weights over the classes. Source: Zhu et al. 2023 (arXiv 2304.01195), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    count = kept(len(scores), share)
    return scores.topk(count).indices.sort().values


def kept(dim: int, share: float) -> int:
    """Q: how many of D channels a share is."""
    return max(round(share * dim), 1)
