"""Choosing a hyper-parameter by cross-validation on the shots. No other data is seen.

Each class's shots are dealt into folds; candidates are compared by their loss on the pictures they
did not train on. The loss, not the accuracy: on a few hundred pictures it orders the candidates
with far less noise. The accuracy has a veto: a candidate that classifies significantly fewer
held-out pictures than zero-shot does (one standard error of the paired difference) is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_FOLDS = 5
# Enough held-out pictures to order the candidates; a large task need not train on every fold.
HELD_OUT_ENOUGH = 500


@dataclass(frozen=True)
class Fold:
    """Row indices to train on and to hold out."""

    fit: Tensor
    held_out: Tensor


@dataclass
class Curve:
    """What cross-validation saw of each candidate.

    Attributes:
        parameter: its name.
        candidates: its values.
        accuracy: percent correct on held-out pictures, one per candidate.
        loss: mean cross entropy on them, nats.
        pictures: how many pictures were held out in all.
        chosen: the candidate taken.
        rule: why, in words.
        zero_shot_accuracy: percent correct of zero-shot on the same pictures, where it is known.
    """

    parameter: str
    candidates: list[float]
    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    pictures: int = 0
    chosen: float = 0.0
    rule: str = ""
    zero_shot_accuracy: float | None = None


def stratified_folds(labels: Tensor, seed: int, enough: int = HELD_OUT_ENOUGH) -> list[Fold]:
    """Folds in which every class with a second picture keeps one to train on.

    Args:
        labels: (N,).
        seed: of the shuffle within each class.
        enough: stop once this many pictures are held out.

    Returns:
        At most ``MAX_FOLDS`` folds; none when no class has two pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.nonzero(labels == c).flatten() for c in labels.unique()]
    largest = max((len(r) for r in rows), default=0)
    count = min(MAX_FOLDS, largest)
    if count < 2:
        return []
    fold = torch.full((len(labels),), -1)
    for offset, members in enumerate(rows):
        if len(members) > 1:  # a class with one picture is always trained on, never held out
            order = torch.randperm(len(members), generator=generator)
            fold[members[order]] = (torch.arange(len(members)) + offset) % count
    folds: list[Fold] = []
    seen = 0
    for k in range(count):
        held_out = torch.nonzero(fold == k).flatten()
        if len(held_out) and seen < enough:
            folds.append(Fold(torch.nonzero(fold != k).flatten(), held_out))
            seen += len(held_out)
    return folds


def score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(hits (n,), losses (n,)) of logits (n, C)."""
    hits = (logits.argmax(-1) == labels).float()
    return hits, F.cross_entropy(logits, labels, reduction="none")


def cross_validate(
    curve: Curve,
    folds: Sequence[Fold],
    evaluate: Callable[[list[tuple[Fold, float]]], list[tuple[Tensor, Tensor]]],
) -> Curve:
    """Fills ``curve`` and chooses.

    Args:
        curve: its first candidate is the safe one (ratio 0, which is zero-shot).
        folds: from :func:`stratified_folds`, at least one.
        evaluate: trains on every (fold, candidate) given, in one batched pass where it can, and
            returns :func:`score` of each on its held-out rows.
    """
    jobs = [(f, c) for c in curve.candidates for f in folds]
    results = evaluate(jobs)
    per = [results[i * len(folds) : (i + 1) * len(folds)] for i in range(len(curve.candidates))]
    hits = torch.stack([torch.cat([h for h, _ in r]) for r in per])
    losses = torch.stack([torch.cat([x for _, x in r]) for r in per])
    curve.accuracy = (100 * hits.double().mean(1)).tolist()
    curve.loss = losses.mean(1).tolist()
    curve.pictures = hits.shape[1]
    gain = hits - hits[0]
    # A paired difference of won minus lost pictures has variance won + lost (McNemar).
    allowed = gain.sum(1) >= -gain.abs().sum(1).sqrt()
    allowed &= losses.isfinite().all(1)  # a training that diverged
    best = int(torch.where(allowed, losses.mean(1), torch.inf).argmin())
    curve.chosen = curve.candidates[best]
    curve.rule = (
        f"lowest loss on {curve.pictures} held-out pictures, of the candidates that classify not "
        f"significantly fewer of them than {curve.parameter} = {curve.candidates[0]:g}"
    )
    return curve
