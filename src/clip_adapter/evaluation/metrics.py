"""Accuracies, in percent."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """Share of rows of logits (N, C) whose label (N,) is among the k highest; k is cut to C."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return 100.0 * (best == labels[:, None]).any(1).double().mean().item()


def confusion_matrix(logits: Tensor, labels: Tensor) -> Tensor:
    """(C, C) counts of logits (N, C): row = true class, column = predicted class."""
    classes = logits.shape[1]
    cells = labels * classes + logits.argmax(1)
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def per_class_accuracy(confusion: Tensor) -> list[float | None]:
    """Accuracy of each class; None for a class without pictures."""
    counts = confusion.sum(1)
    shares = 100.0 * confusion.diagonal().double() / counts.clamp(min=1)
    return [s if n else None for s, n in zip(shares.tolist(), counts.tolist(), strict=True)]
