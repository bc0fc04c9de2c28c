"""The few-shot sampler of CoOp, draw for draw, and what is held out to test on.

Source: CLIP-Adapter (arXiv 2110.04544), section 4.1, follows the sampling of CoOp
(arXiv 2109.01134, section 4.1), whose lists are the reference of most few-shot papers on CLIP.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from numbers import Integral

from clip_adapter.errors import UsageError
from clip_adapter.reporting import log, note
from clip_adapter.wording import counted

OF_LEARNED, OF_HELD_OUT = "Of the training pictures: ", "Of the pictures held out: "
"""How a note begins that is on one of the two parts alone."""


def sample_few_shot(labels: Sequence[int], shots: int, seed: int = 1) -> list[int]:
    """Draw K pictures of each class, exactly as CoOp does at the same seed.

    One generator ``random.Random(seed)``; classes in the order of their first picture; for each,
    ``sample(indices, K)``, or all of them in order where there are fewer. The order of the
    pictures matters: it is that of CoOp's split files, or sorted paths. (CoOp goes on with
    min(K, 4) pictures per class of its validation split, which nothing here reads.)

    Args:
        labels: label of each picture of the training pool, (N,).
        shots: K of at least 1.
        seed: 0 or more. CoOp's own are 1, 2 and 3.

    Returns:
        Indices into the pool, in drawing order.

    Raises:
        UsageError: ``shots`` or ``seed`` is out of range.
    """
    check_shots(shots)
    if not _is_whole(seed, 0):
        # Python seeds with the absolute value: -1 would silently repeat the draw of 1.
        raise UsageError(f"Seed {seed!r}.", allowed="a whole number of at least 0")
    generator = random.Random(int(seed))
    drawn: list[int] = []
    for indices in _by_class(labels).values():
        drawn += generator.sample(indices, int(shots)) if len(indices) >= shots else indices
    return drawn


def check_shots(shots: object) -> None:
    """Check that ``shots`` is a number of pictures to draw of a class.

    Raises:
        UsageError: it is no whole number of at least 1.
    """
    if not _is_whole(shots, 1):
        raise UsageError(
            f"{shots!r} shots.",
            allowed="a whole number of at least 1, or none given for all pictures",
            hint="What learns from no picture is the method zero-shot: --method zero-shot.",
        )


def draw(
    labels: Sequence[int], shots: int | None, seed: int = 1, hold_out: str | float | None = None
) -> tuple[list[int] | None, list[int]]:
    """What is learned from, after at least one picture of each class was kept apart to test on.

    A class of one picture keeps it to learn from.

    Args:
        labels: label of each picture of the training pool, (N,).
        shots: K of what is left, see :func:`sample_few_shot`; None for all of it.
        seed: 0 or more.
        hold_out: a share of each class ("20%", 0.2), or how many of each ("5", 5); None keeps
            nothing apart.

    Returns:
        Indices into the pool, None for all of it; and those of what is kept apart.

    Raises:
        UsageError: ``hold_out`` is neither, or no class has a second picture.
    """
    rows, apart = _split(labels, shots, seed, hold_out)
    before = Counter(labels)
    left = before - Counter(labels[row] for row in apart)
    if hold_out is not None:
        single = sum(count == 1 for count in before.values())
        if not apart:
            raise UsageError(
                f"--hold-out {hold_out}: none of {single} classes has two pictures.",
                hint="Add pictures, or leave --hold-out away.",
            )
        _, number = share_or_number(hold_out)
        one_left = sum(left[label] == 1 < count for label, count in before.items())
        if number > 1 and one_left:
            share = f"{number}%" if number < 100 else "20%"
            note(
                f"--hold-out {number} keeps {number} pictures of each class apart, and leaves "
                f"{counted(one_left, 'class', 'classes')} one picture to learn from. A share of "
                f"each class is written --hold-out {share}."
            )
        line = (
            f"Held out: {len(apart)} of {len(labels)} pictures are not learned from (seed {seed})"
        )
        if single:
            what = counted(single, "class has", "classes have")
            line += f"; {what} one picture alone, which is learned from"
        log.info(f"{line}.")
    if shots is not None and 0 < (most := max(left.values(), default=0)) < shots:
        log.warning(f"{shots} shots are asked for, and no class has more than {most}.")
    return None if shots is None and hold_out is None else rows, apart


def not_drawn(
    labels: Sequence[int], shots: int | None, seed: int, hold_out: str | float | None
) -> list[int]:
    """Indices of the pictures that :func:`draw` leaves, in order, without a word on them."""
    return sorted({*range(len(labels))}.difference(_split(labels, shots, seed, hold_out)[0]))


def _split(
    labels: Sequence[int], shots: int | None, seed: int, hold_out: str | float | None
) -> tuple[list[int], list[int]]:
    """What is learned from, in drawing order, and what is kept apart to test on, in order."""
    apart = set[int]()
    if hold_out is not None:
        generator, (share, number) = random.Random(int(seed)), share_or_number(hold_out)
        for indices in _by_class(labels).values():
            count = min(number or max(1, round(share * len(indices))), len(indices) - 1)
            apart.update(generator.sample(indices, count))
    rows = [row for row in range(len(labels)) if row not in apart]
    if shots is not None:
        rows = [rows[i] for i in sample_few_shot([labels[row] for row in rows], shots, seed)]
    return rows, sorted(apart)


def share_or_number(asked: str | float) -> tuple[float, int]:
    """What is held out: (share, 0) or (0.0, number of pictures of each class).

    Raises:
        UsageError: ``asked`` is neither.
    """
    text = str(asked).strip()
    with contextlib.suppress(ValueError):
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        if 0 < value < 1:
            return value, 0
        # 1.0 as a number would be all of a class, beside 0.999.
        if value >= 1 and value.is_integer() and text[-1] != "%" and not isinstance(asked, float):
            return 0.0, int(value)
    raise UsageError(
        f"--hold-out {asked}.",
        allowed="a share of each class above 0% and below 100%, such as 20%, or how many pictures "
        "of each, such as 5",
    )


def _by_class(labels: Sequence[int]) -> dict[int, list[int]]:
    """Indices of the pictures of each class, classes in the order of their first picture."""
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[int(label)].append(index)
    return by_class


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
