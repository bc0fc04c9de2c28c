"""What there is to learn from: pictures that differ, and classes with few of them or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clip_adapter.errors import DataError
from clip_adapter.wording import counted, listed, some_of


class Coverage(NamedTuple):
    """What there is to learn from.

    Attributes:
        rows: of the pictures to learn from, in order.
        dropped: notes on the others, a sentence each; empty where all rows are kept.
        conflicting: contents of those that lie under several labels, as digests.
        empty: what becomes of classes without training pictures, in a line; "" where none needs it.
    """

    rows: list[int]
    dropped: list[str]
    conflicting: list[str]
    empty: str


def coverage(
    labels: Sequence[int],
    digests: Sequence[str],
    class_names: Sequence[str] = (),
    *,
    beside: Iterable[tuple[str, int]] = (),
    named: bool = False,
    text: bool = False,
) -> Coverage:
    """The rows to learn from, and notes on what is left out.

    Exact copies of one class count once, or they would pass for so many shots. Of a picture that
    lies under several labels no more is known than that one of them is wrong.

    Args:
        labels: (N,).
        digests: N content digests, equal for copies; empty where no two pictures are the same.
        class_names: C names, for the line on the empty ones.
        beside: digests and labels of pictures that are not learned from: a copy of one under
            another label is doubtful all the same.
        named: whether a note has named the classes before that the source leaves empty.
        text: whether the method scores classes by their text, so that a named one needs no line.

    Raises:
        DataError: every picture lies under several labels.
    """
    pictures = [(digest or row) for row, digest in enumerate(digests or [""] * len(labels))]
    first_rows: dict[tuple[str | int, int], int] = {}
    for row, picture in enumerate(zip(pictures, labels, strict=True)):
        first_rows.setdefault(picture, row)
    times = Counter(picture for picture, _ in {*first_rows, *beside})
    rows = [row for (picture, _), row in first_rows.items() if times[picture] == 1]
    torn = sum(times[picture] > 1 for picture in pictures)
    if labels and not rows:
        raise DataError(
            f"All {torn} training pictures lie under two labels or more.",
            allowed="a picture under one label",
            hint="Remove each from every class but its own.",
        )
    dropped = []
    if torn:
        what = counted(torn, "training picture is", "training pictures are")
        dropped.append(f"{what} left out: also there under another label.")
    conflicting = sorted(str(picture) for picture, count in times.items() if count > 1)
    if copies := len(labels) - len(rows) - torn:
        what = counted(copies, "exact copy counts", "exact copies count")
        dropped.append(f"{what} no second time.")
    learned = {labels[row] for row in rows}
    empty = [name for label, name in enumerate(class_names) if label not in learned]
    what = counted(len(empty), "class has", "classes have")
    follows = "What has none can never be the answer."
    if text:
        follows = "Text alone speaks for what has none."
    line = f"{what} no training picture: {listed(empty)}. {follows}"
    # What was left out may have been all that a class had.
    if named and not dropped:
        line = (
            ""
            if text
            else "A class without training pictures can never be the answer of this method."
        )
    return Coverage(rows, dropped, conflicting, line if empty else "")


def thin_classes(
    before: Sequence[int],
    after: Sequence[int],
    learned: Sequence[int],
    names: Sequence[str],
    shots: int | None,
) -> list[str]:
    """Notes on classes that lost all pictures, or of which fewer are learned from than of others.

    Args:
        before: labels of the pictures that were to be read.
        after: labels of those that could be read.
        learned: labels of those that are learned from.
        names: C class names.
        shots: so many of each class were asked for; None for all.
    """
    notes, count = [], Counter(learned)
    if lost := [names[i] for i in sorted(set(before) - set(after))]:
        what = counted(len(lost), "class has", "classes have")
        notes.append(f"{what} no training picture left that can be read: {listed(lost)}.")
    most = max(count.values(), default=0)
    fewer = [f"{names[i]!r} ({count[i]})" for i in sorted(count) if count[i] < most]
    if fewer and shots is not None:
        what = counted(len(fewer), "class has", "classes have")
        notes.append(
            f"{what} fewer than {most} pictures to learn from, and all of theirs are used: "
            f"{some_of(fewer)}."
        )
    return notes
