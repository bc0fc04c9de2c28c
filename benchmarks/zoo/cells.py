"""The cells of the zoo: which few-shot tasks are drawn, from which feature sets.

A cell is a data set, a kind of rows, a number of classes, a number of shots and one departure from
the even folder. It pools disjoint subsets of the classes and at least ten draws, so that it says
something about at least 300 different test pictures, or all that there are.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product

DRAWS, TEST_PICTURES = 10, 300
DOGS = range(151, 269)  # the 118 breeds among ImageNet's classes


@dataclass(frozen=True)
class Rows:
    """Where the shots and the test pictures of a kind lie in a feature file.

    Attributes:
        shots: the set that shots are drawn from.
        test: the set that is scored.
        most: shots that every class can give.
    """

    shots: str
    test: str
    most: int


# "averaged": every shot is a mean over augmented views, the test pictures are not; "single": one
# view each; "alike": shots and test pictures were made in the same way.
SETS: dict[tuple[str, str], Rows] = {
    ("imagenet", "alike"): Rows("train_4shot", "eval_4shot", 4),
    ("caltech101_matched", "averaged"): Rows("train_16shot", "test", 16),
    ("caltech101_matched", "single"): Rows("val", "test", 6),
    ("caltech101_vitb16", "averaged"): Rows("train_16shot", "test", 16),
    ("caltech101_vitb16", "single"): Rows("val", "test", 6),
    ("ucf101_vitb16", "averaged"): Rows("train_16shot", "test", 16),
    ("ucf101_vitb16", "single"): Rows("val", "test", 14),
    ("oxford_flowers", "averaged"): Rows("train_16shot", "test", 16),
    ("oxford_flowers", "single"): Rows("val", "test", 8),
    ("ucf101", "averaged"): Rows("train_16shot", "test", 16),
    ("ucf101", "single"): Rows("val", "test", 14),
    ("stanford_cars_vitb32", "averaged"): Rows("train_16shot", "test", 16),
    ("dtd_vitb16_train", "alike"): Rows("train_8shot", "eval_8shot", 8),
    ("whurs19_clip_vitb32", "alike"): Rows("train_16shot", "test", 16),
    ("whurs19_clip_rn50", "alike"): Rows("train_16shot", "test", 16),
}
# Nothing is ever chosen on these.
CONFIRMING = (
    "stanford_cars_vitb32",
    "dtd_vitb16_train",
    "whurs19_clip_vitb32",
    "whurs19_clip_rn50",
)
WITHOUT_TEXT = ("oxford_flowers", "ucf101")

UNEVEN = ("long-tailed", "8-to-1", "three-more", "one-of-many", "half-absent")
WRONG = ("wrong-10", "wrong-25")
DEPARTURES = ("even", *UNEVEN, *WRONG, "permuted-text")


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        dataset: name of the feature file.
        kind: "averaged", "single" or "alike".
        classes: C, or 0 for all.
        shots: K; the largest count of an uneven folder.
        departure: one of ``DEPARTURES``.
        group: "random" classes, or "dogs".
    """

    dataset: str
    kind: str
    classes: int
    shots: int
    departure: str = "even"
    group: str = "random"

    @property
    def name(self) -> str:
        """As in files and tables."""
        classes = f"{self.classes or 'all'}{'dogs' if self.group == 'dogs' else ''}"
        return f"{self.dataset}.{self.kind}.C{classes}.K{self.shots}.{self.departure}"

    def seed(self, *more: object) -> int:
        """Stable between machines; the class subsets leave shots and departure out of it."""
        return zlib.crc32(repr((self.dataset, self.group, self.classes, *more)).encode())

    def counts(self, classes: int, order: list[int]) -> list[int]:
        """Pictures of each class; ``order`` is a permutation of the classes."""
        most = self.shots
        counts = [most] * classes
        for place, label in enumerate(order):
            share = place / max(classes - 1, 1)
            if self.departure == "long-tailed":
                counts[label] = max(round(most ** (1 - share)), 1)
            elif self.departure == "8-to-1":
                counts[label] = most if place < classes / 2 else 1
            elif self.departure == "three-more":
                counts[label] = 3 if place < min(3, classes - 1) else 1
            elif self.departure == "one-of-many":
                counts[label] = most if place == 0 else max(most // 8, 1)
            elif self.departure == "half-absent":
                counts[label] = most if place < classes / 2 else 0
        return counts


def _cells(
    keys: tuple[tuple[str, str], ...], sizes: tuple[int, ...], shots: tuple[int, ...]
) -> list[Cell]:
    """Every size with every number of ``shots``, even, and with every departure once."""
    cells = []
    for (dataset, kind), classes in product(keys, sizes):
        most = SETS[dataset, kind].most
        cells += [Cell(dataset, kind, classes, k) for k in shots if k <= most]
        for departure in DEPARTURES[1:]:
            if departure == "permuted-text" and dataset in WITHOUT_TEXT:
                continue
            # Of two or three classes such a folder is another one, or has no second class at all.
            if classes in (2, 3) and departure in ("three-more", "half-absent", "wrong-10"):
                continue
            many = departure in ("long-tailed", "8-to-1", "one-of-many")
            cells.append(Cell(dataset, kind, classes, min(8 if many else 4, most), departure))
    return cells


def profile(name: str) -> list[Cell]:
    """The cells of a profile: small, tune, confirm or blind (without text)."""
    keys = tuple(SETS)
    tuned = tuple(k for k in keys if k[0] not in (*CONFIRMING, *WITHOUT_TEXT))
    confirming = tuple(k for k in keys if k[0] in CONFIRMING)
    blind = tuple(k for k in keys if k[0] in WITHOUT_TEXT)
    single = tuple(k for k in tuned if k[1] != "averaged")
    every = (1, 2, 4, 8, 16)
    if name == "small":
        return _cells((("ucf101_vitb16", "single"), ("imagenet", "alike")), (10,), every)
    if name == "tune":
        cells = _cells(tuned, (10, 23), every) + _cells(single, (2, 5, 50), every)
        cells += [Cell(d, k, 0, s) for d, k in tuned if d != "imagenet" for s in (1, 4)]
        cells += [Cell("imagenet", "alike", 200, k) for k in (1, 4)]
        cells += [
            Cell("imagenet", "alike", classes, k, departure, "dogs")
            for classes, k, departure in (
                (23, 1, "even"), (23, 4, "even"), (23, 4, "8-to-1"), (23, 4, "half-absent"),
                (118, 4, "even"),
            )
        ]  # fmt: skip
        return cells
    if name == "confirm":
        cells = _cells(confirming, (10,), (1, 4, 16)) + _cells(confirming, (3,), (1, 4))
        cells += _cells(confirming[:2], (23,), (1, 8))
        cells += [Cell(d, k, 0, s) for d, k in confirming for s in (1, 8)]
        # A tenth of wrong labels lies between none and a quarter; permuted text is for tuning.
        return [c for c in cells if c.departure not in ("wrong-10", "permuted-text")]
    if name == "blind":
        return _cells(blind, (5, 23), every)
    raise ValueError(f"profile {name!r}; allowed: small, tune, confirm, blind")
