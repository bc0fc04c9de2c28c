"""Folds of the shots: what is held out to compare candidates, and what stands for what.

A fold is a small folder as uneven as the whole one. Each class's pictures are dealt into at most
five parts, and a fold holds one of them out. Where classes have unequal numbers of pictures, a fold
also takes pictures away from the rest, so that its classes have about the numbers that the classes
of the folder have: some are left with one picture, or with none at all, and their other pictures
tell how a candidate treats such a class. An even folder is dealt and nothing else.

Every held-out picture has a weight: classes count alike however many pictures they have, and
classes with none, one and several pictures count as often as the folder has them. What no picture
can tell (classes of one picture where none has two) has no weight in any fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from clip_adapter.features.feature_set import FeatureSet

MAX_FOLDS = 5
# Enough held-out pictures to order the candidates; a large task need not train on every fold.
HELD_OUT_ENOUGH = 500
# A fold of very many pictures or classes holds out no more than this many scores (n, C) are of.
MOST_SCORES = 16_000_000
# Of classes with more pictures than this, no more are held out in a fold that leaves them few.
MOST_OF_A_CLASS = 8
SEVERAL = 2
# So often is a fold of an uneven folder drawn, where no two classes are left to train on.
DRAWS = 20


@dataclass(frozen=True)
class Fold:
    """Row indices to train on and to hold out.

    Attributes:
        fit: (n,) rows to train on.
        held_out: (m,) rows to score.
        weight: (m,) how much each counts, in all folds together at most 1; None: all alike.
    """

    fit: Tensor
    held_out: Tensor
    weight: Tensor | None = None


def folds_of(
    train: FeatureSet, seed: int, enough: int = HELD_OUT_ENOUGH, *, text: bool = True
) -> list[Fold]:
    """The :func:`stratified_folds` of the shots, which know their exact duplicates.

    Without ``text`` nothing is known of a class without pictures, so no class is left without.
    """
    classes = len(train.class_names)
    folds = stratified_folds(train.labels, seed, enough, train.digests, classes if text else None)
    return [_thinned(fold, max(MOST_SCORES // classes, HELD_OUT_ENOUGH), seed) for fold in folds]


def _thinned(fold: Fold, most: int, seed: int) -> Fold:
    """``fold`` with at most so many held-out pictures, which count as much as all of them."""
    count = len(fold.held_out)
    if count <= most:
        return fold
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(count, generator=generator)[:most].sort().values
    weight = fold.weight
    if weight is not None:
        weight = weight[kept] * (weight.sum() / weight[kept].sum())
    return Fold(fold.fit, fold.held_out[kept], weight)


def stopping_fold(train: FeatureSet, seed: int) -> Fold | None:
    """One fold to stop a training early by: all is trained on that it does not hold out.

    None when fewer than two classes have two different pictures.
    """
    folds = stratified_folds(train.labels, seed, digests=train.digests, thin=False)
    return next(iter(folds), None)


def stratified_folds(
    labels: Tensor,
    seed: int,
    enough: int = HELD_OUT_ENOUGH,
    digests: Sequence[str] = (),
    classes: int | None = None,
    *,
    thin: bool = True,
) -> list[Fold]:
    """Folds that are as uneven as the whole.

    Exact duplicates stay together: a copy of a held-out picture among those that are trained on
    would tell its answer. Copies under several labels are always trained on, never held out.

    Args:
        labels: (N,).
        seed: of the shuffle within each class, and of what each class stands for.
        enough: stop once this many pictures are held out.
        digests: N content digests, equal for copies; "" is a copy of nothing. None at all, and
            all pictures count as different.
        classes: C, of which some may have no picture; those in ``labels`` where it is not given.
        thin: whether folds of an uneven folder take pictures away from what is trained on.

    Returns:
        At most ``MAX_FOLDS`` folds; none when fewer than two classes have two different pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    owned = _classes(labels, digests)
    numbers = [c.distinct for c in owned]
    if sum(n >= SEVERAL for n in numbers) < SEVERAL:
        return []
    for c in owned:
        c.units = [c.units[i] for i in torch.randperm(len(c.units), generator=generator).tolist()]
    numbers += [0] * ((classes or len(owned)) - len(owned))
    uneven = thin and len(set(numbers)) > 1
    # Few classes of an uneven folder can be held out, so they are asked more often.
    count = MAX_FOLDS if uneven else min(MAX_FOLDS, max(numbers))
    parts: list[_Part] = []
    for k in range(count):
        held = sum(len(rows) for p in parts for _, rows in p.held)
        if held >= enough and _held_classes(parts, labels) >= SEVERAL:
            break
        # Drawn again until two classes are left to train on; at last, nothing more is taken away.
        for last in [*[False] * (DRAWS if uneven else 0), True]:
            order = [] if last else torch.randperm(len(numbers), generator=generator).tolist()
            part = _Part([], [])
            for place, c in enumerate(owned):
                wanted = c.distinct if last else numbers[order[place]]
                part.take(c, slice((k - place) % count, None, count), wanted)
            if part.held and len(labels[part.fit].unique()) >= min(2, len(owned)):
                parts.append(part)
                break
    # What is held out of one class alone would speak for a classifier that always says it.
    if _held_classes(parts, labels) < SEVERAL:
        return []
    # How often what stands for how many counts, and how often it is asked.
    stands = Counter(min(n, SEVERAL) for n in numbers)
    asked = Counter(role for part in parts for role, _ in part.held)
    share = {role: stands[role] / len(numbers) / asked[role] for role in asked}
    return [part.fold(share) for part in parts]


@dataclass
class _Class:
    """The pictures of a class: ``units`` of copies that may be held out, and rows that may not."""

    units: list[list[int]]
    stuck: list[int]

    @property
    def distinct(self) -> int:
        """Pictures that differ."""
        return len(self.units) + bool(self.stuck)


@dataclass
class _Part:
    """A fold in the making: rows to train on, and (what they stand for, rows) of every class."""

    fit: list[int]
    held: list[tuple[int, list[int]]]

    def take(self, own: _Class, part: slice, wanted: int) -> None:
        """Add a class: of its units ``part`` is held out, and what is left beyond ``wanted``."""
        numbers, dealt = range(len(own.units)), list[int]()
        if not wanted and not own.stuck:
            left = list(numbers)
        elif own.distinct < SEVERAL:
            left = []
        else:
            wanted = max(wanted, 1)
            dealt = list(numbers[part])
            if not dealt and wanted < own.distinct:
                dealt = list(numbers[-1:])
            left = [i for i in numbers if i not in dealt][wanted:]
        out = {*dealt, *left}
        self.fit += own.stuck + [r for i in numbers if i not in out for r in own.units[i]]
        scored = (dealt + left)[: max(MOST_OF_A_CLASS, len(dealt))]
        if rows := [row for i in scored for row in own.units[i]]:
            self.held.append((min(wanted, own.distinct, SEVERAL), rows))

    def fold(self, share: Mapping[int, float]) -> Fold:
        """The fold; ``share`` is how much what stands for so many pictures counts."""
        weighted = [(r, share[role] / len(own)) for role, own in self.held for r in own]
        rows, weights = zip(*sorted(weighted), strict=True)
        weight = torch.tensor(weights, dtype=torch.float64)
        return Fold(torch.tensor(sorted(self.fit)), torch.tensor(rows), weight)


def _held_classes(parts: Sequence[_Part], labels: Tensor) -> int:
    """Of how many classes something is held out."""
    first = [rows[0] for part in parts for _, rows in part.held]
    return len(labels[first].unique())


def _classes(labels: Tensor, digests: Sequence[str]) -> list[_Class]:
    """The classes that have pictures, in the order of their labels."""
    groups: dict[int, dict[str | int, list[int]]] = {int(c): {} for c in labels.unique()}
    for row, label in enumerate(labels.tolist()):
        groups[label].setdefault((digests[row] if digests else "") or row, []).append(row)
    seen_in = Counter(key for own in groups.values() for key in own)
    return [
        _Class(
            [rows for key, rows in own.items() if seen_in[key] == 1],
            [row for key, rows in own.items() if seen_in[key] > 1 for row in rows],
        )
        for own in groups.values()
    ]
