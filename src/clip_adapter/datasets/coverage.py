"""What there is to learn from: pictures that differ, and classes with few of them or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from clip_adapter.errors import DataError
from clip_adapter.wording import counted, listed


class Coverage(NamedTuple):
    """What there is to learn from.

    Attributes:
        rows: of the training pictures to learn from, in order.
        dropped: notes on the others, a sentence each; empty where all rows are kept.
        empty: a line on the classes without training pictures; "" where none is needed.
    """

    rows: list[int]
    dropped: list[str]
    empty: str


def coverage(
    labels: Sequence[int],
    digests: Sequence[str],
    class_names: Sequence[str] = (),
    *,
    named: bool = False,
    text: bool = False,
) -> Coverage:
    """Which pictures to learn from, and what is to be said of the others and of empty classes.

    Args:
        labels: (N,).
        digests: N content digests, equal for copies; empty where no two pictures are the same.
        class_names: C names; only the line on empty classes needs them.
        named: whether a note has named the empty classes before.
        text: whether the method scores a class without pictures by its text.

    Raises:
        DataError: every picture lies under several labels.
    """
    rows, dropped = distinct_pictures(labels, digests)
    kept = [labels[row] for row in rows]
    # What was left out may have been all that a class had.
    return Coverage(rows, dropped, empty_classes(kept, class_names, named and not dropped, text))


def thin_classes(
    before: Sequence[int], after: Sequence[int], names: Sequence[str], drawn: bool
) -> list[str]:
    """Notes on classes that lost all pictures, or of which fewer than of others were drawn.

    Args:
        before: labels of the pictures that were to be read.
        after: labels of those that could be read.
        names: C class names.
        drawn: whether so many of each class were asked for.
    """
    notes, count = [], Counter(after)
    if lost := sorted(set(before) - set(after)):
        what = counted(len(lost), "class has", "classes have")
        gone = listed(names[i] for i in lost)
        notes.append(f"Warning: {what} no training picture left that can be read: {gone}.")
    most = max(count.values(), default=0)
    fewer = [i for i in sorted(count) if count[i] < most]
    if drawn and fewer:
        some = listed(f"{names[i]} ({count[i]})" for i in fewer)
        notes.append(f"Classes with fewer than {most} pictures: {some}.")
    return notes


def empty_classes(labels: Sequence[int], names: Sequence[str], named: bool, text: bool) -> str:
    """What becomes of the classes without training pictures, in a line; "" where all have some.

    Args:
        labels: of the pictures that are learned from.
        names: C class names.
        named: whether a note has named these classes before.
        text: whether the method scores them by their text, so that a named class needs no line.
    """
    empty = [names[i] for i in sorted(set(range(len(names))).difference(labels))]
    if not empty or (named and text):
        return ""
    if named:
        return "A class without training pictures can never be the answer of this method."
    what = counted(len(empty), "class has", "classes have")
    follows = "Text alone speaks for what" if text else "What"
    ending = "has none." if text else "has none can never be the answer."
    return f"{what} no training picture: {listed(empty)}. {follows} {ending}"


def distinct_pictures(labels: Sequence[int], digests: Sequence[str]) -> tuple[list[int], list[str]]:
    """The rows to learn from, and notes on the others.

    Exact copies of one class count once, or they would pass for so many shots. Of a picture that
    lies under several labels no more is known than that one of them is wrong.

    Args:
        labels: (N,).
        digests: N content digests, equal for copies; empty where no two pictures are the same.

    Raises:
        DataError: every picture lies under several labels.
    """
    pictures = [(digest or row) for row, digest in enumerate(digests or [""] * len(labels))]
    first_rows: dict[tuple[str | int, int], int] = {}
    for row, picture in enumerate(zip(pictures, labels, strict=True)):
        first_rows.setdefault(picture, row)
    times = Counter(picture for picture, _ in first_rows)
    kept = [row for (picture, _), row in first_rows.items() if times[picture] == 1]
    torn = sum(times[picture] > 1 for picture in pictures)
    notes = []
    if labels and not kept:
        raise DataError(
            f"All {torn} training pictures lie under two labels or more.",
            allowed="a picture under one label",
            hint="Remove each from every class but its own.",
        )
    if torn:
        what = counted(torn, "training picture is", "training pictures are")
        notes.append(f"{what} left out: also there under another label.")
    if copies := len(labels) - len(kept) - torn:
        what = counted(copies, "exact copy counts", "exact copies count")
        notes.append(f"{what} no second time.")
    return kept, notes
