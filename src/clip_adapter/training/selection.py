"""Choosing a hyper-parameter by cross-validation on the shots. No other data is seen.

Each class's shots are dealt into folds; candidates are compared by their loss on the pictures they
did not train on. The loss, not the accuracy: on a few hundred pictures it orders the candidates
with far less noise. The accuracy has a veto: a candidate that classifies significantly fewer
held-out pictures than the first candidate does (one standard error of the paired difference) is not
taken. The first is the safe one: zero-shot wherever a method can be zero-shot (ratio 0, weight 0),
else the setting nearest to its start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from clip_adapter.features.feature_set import FeatureSet

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
        candidates: its values; for several parameters at once, one {parameter: value} each.
        accuracy: percent correct on held-out pictures, one per candidate.
        loss: mean cross entropy on them, nats.
        pictures: how many pictures were held out in all.
        chosen: the candidate taken.
        rule: why, in words.
    """

    parameter: str
    candidates: list[Any]
    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    pictures: int = 0
    chosen: Any = 0.0
    rule: str = ""


def folds_of(train: FeatureSet, seed: int, enough: int = HELD_OUT_ENOUGH) -> list[Fold]:
    """The :func:`stratified_folds` of the shots, which know their exact duplicates."""
    return stratified_folds(train.labels, seed, enough, train.digests)


def stratified_folds(
    labels: Tensor, seed: int, enough: int = HELD_OUT_ENOUGH, digests: Sequence[str] = ()
) -> list[Fold]:
    """Folds in which every class with a second picture keeps one to train on.

    Exact duplicates stay together: a copy of a held-out picture among those that are trained on
    would tell its answer. Copies under several labels are always trained on, never held out, as
    is the one picture of a class.

    Args:
        labels: (N,).
        seed: of the shuffle within each class.
        enough: stop once this many pictures are held out.
        digests: N content digests, equal for copies; "" is a copy of nothing. None at all, and
            all pictures count as different.

    Returns:
        At most ``MAX_FOLDS`` folds; none when no class has two different pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = [_groups(labels, int(c), digests) for c in labels.unique()]
    seen_in = Counter(key for groups in classes for key in groups)
    largest = max((len(groups) for groups in classes), default=0)
    count = min(MAX_FOLDS, largest)
    if count < 2:
        return []
    fold = torch.full((len(labels),), -1)
    for offset, groups in enumerate(classes):
        own = [rows for key, rows in groups.items() if seen_in[key] == 1]
        if len(groups) > 1:
            order = torch.randperm(len(own), generator=generator).tolist()
            for place, number in enumerate(order):
                fold[own[number]] = (place + offset) % count
    folds: list[Fold] = []
    seen = 0
    for k in range(count):
        held_out = torch.nonzero(fold == k).flatten()
        if len(held_out) and seen < enough:
            folds.append(Fold(torch.nonzero(fold != k).flatten(), held_out))
            seen += len(held_out)
    return folds


def _groups(labels: Tensor, label: int, digests: Sequence[str]) -> dict[str | int, list[int]]:
    """The rows of a class in groups of copies, by digest, or by row where it has none."""
    groups: dict[str | int, list[int]] = {}
    members: list[int] = torch.nonzero(labels == label).flatten().tolist()
    for row in members:
        digest = digests[row] if digests else ""
        groups.setdefault(digest or row, []).append(row)
    return groups


def score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(hits (n,), losses (n,)) of logits (n, C)."""
    hits = (logits.argmax(-1) == labels).float()
    return hits, F.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class HeldOut:
    """What the chosen candidate said of the shots that were held out.

    Attributes:
        logits: (n, C).
        rows: (n,) which shots they are, as rows of the training set.
    """

    logits: Tensor
    rows: Tensor


Candidate = Any
Evaluate = Callable[[list[tuple[Fold, Candidate]]], Iterable[Tensor]]


def cross_validate(
    curve: Curve, folds: Sequence[Fold], labels: Tensor, evaluate: Evaluate
) -> HeldOut:
    """Fills ``curve`` and chooses.

    Args:
        curve: its first candidate is the safe one (ratio 0, which is zero-shot).
        folds: from :func:`folds_of`, at least one.
        labels: (N,) of all shots.
        evaluate: gives the held-out logits (n, C) of every (fold, candidate), in the order given.
            Fitting may be one batched pass; a generator keeps the memory small.

    Returns:
        The held-out logits of the candidate that was chosen.
    """
    results = iter(evaluate([(f, c) for c in curve.candidates for f in folds]))
    rows = torch.cat([f.held_out for f in folds])
    safe: Tensor | None = None
    best, lowest, kept = 0, float("inf"), torch.empty(0)
    for number in range(len(curve.candidates)):
        logits = torch.cat([next(results) for _ in folds])
        hits, losses = score(logits, labels[rows])
        curve.accuracy.append(100 * hits.double().mean().item())
        loss = losses.mean().item()
        curve.loss.append(loss)
        if safe is None:
            safe, kept = hits, logits
        if loss < lowest and losses.isfinite().all() and not significantly_worse(hits, safe):
            best, lowest, kept = number, loss, logits
    curve.pictures = len(rows)
    curve.chosen = curve.candidates[best]
    curve.rule = (
        f"lowest loss on {curve.pictures} held-out pictures, of the candidates that classify not "
        f"significantly fewer of them than {curve.parameter} = {shown(curve.candidates[0])}"
    )
    return HeldOut(kept, rows)


def without_pictures(labels: Tensor, classes: int) -> str:
    """``2 of 5 classes have no picture``, or "" where all have: a reason for milder candidates.

    No held-out shot shows what a candidate does to a class without pictures, which is known by its
    text alone. So none is tried that changes more than what is taken where nothing is held out.
    """
    absent = classes - len(labels.unique())
    return f"{absent} of {classes} classes have no picture" if absent else ""


def significantly_worse(hits: Tensor, reference: Tensor) -> bool:
    """Whether ``hits`` (n,) of 0 and 1 are fewer than ``reference`` by over a standard error.

    A paired difference of won minus lost pictures has variance won + lost (McNemar).
    """
    gain = hits - reference
    return bool(gain.sum() < -gain.abs().sum().sqrt())


def choice(parameter: str, chosen: Candidate) -> str:
    """What was chosen, for people: ``visual_ratio = 0.2``, or as :func:`shown` for several."""
    return shown(chosen) if isinstance(chosen, Mapping) else f"{parameter} = {shown(chosen)}"


def shown(candidate: Candidate) -> str:
    """A candidate for people: ``0.2``, or ``cache_weight 1, cache_sharpness 5.5``."""
    if isinstance(candidate, Mapping):
        return ", ".join(f"{name} {shown(value)}" for name, value in candidate.items())
    return f"{candidate:g}" if isinstance(candidate, int | float) else str(candidate)
