"""Labels of a source: one order for all readers, and what numbers and gaps among them mean."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

from clip_adapter.errors import DataError
from clip_adapter.wording import listed

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"([+-]?[0-9]{1,17})(\.0*)?")
# As pandas and its like write a missing value; the second kind is a word as well.
GAPS = frozenset({"nan", "NaN", "NAN", "<NA>", "NaT"})
_PERHAPS_GAPS = frozenset({"None", "null", "NULL", "NA", "N/A", "n/a", "#N/A"})


def whole_number(label: str) -> int | None:
    """The whole number that ``label`` spells (``9``, ``09``, ``9.0``), or None."""
    match = _WHOLE.fullmatch(label)
    return int(match[1]) if match else None


def all_whole(labels: Iterable[str]) -> bool:
    """Whether every label spells a whole number."""
    return all(whole_number(label) is not None for label in labels)


def in_order(labels: Iterable[str]) -> list[str]:
    """The labels that differ, sorted: by number where all are whole numbers, else as text.

    Raises:
        DataError: two of them spell one number.
    """
    distinct = sorted(set(labels))
    if alike := same_numbers(distinct):
        raise DataError(
            f"The labels {listed(alike)} spell one number in two ways.",
            hint="Spell it alike everywhere if it is one class; else give the classes other names.",
        )
    return sorted(distinct, key=lambda n: whole_number(n) or 0) if all_whole(distinct) else distinct


def same_numbers(labels: Iterable[str]) -> list[str]:
    """Those that spell a number that another one spells too, such as 1, 01, 1.0 and 1e0.

    An exponent counts where all are numbers; elsewhere it may be a digit (4e01 beside 4e0a).
    """
    labels = sorted(set(labels))
    powers = all(map(NUMBER.fullmatch, labels))
    spellings: defaultdict[Decimal, list[str]] = defaultdict(list)
    for label in labels:
        if whole_number(label) is not None or (powers and "e" in label.lower()):
            spellings[Decimal(label)].append(label)
    return [label for alike in spellings.values() if len(alike) > 1 for label in alike]


def label_notes(labels: Sequence[str], *, named: bool) -> list[str]:
    """What a user should know of the labels; ``named``: they were given other names."""
    notes = []
    if gaps := [label for label in labels if label in GAPS | _PERHAPS_GAPS]:
        notes.append(f"{listed(gaps)}, as programs write a missing label, is read as a class.")
    if labels and all_whole(labels) and not named:
        notes.append(
            "The labels are numbers: give their names with --class-names, for instance a CSV with "
            "the columns label,name."
        )
    return notes


def counts_otherwise(labels: Sequence[str]) -> tuple[str, str] | None:
    """Two neighbours among labels sorted as text that people count the other way, or None.

    As in class1, class10, class2.
    """
    if all_whole(labels) or list(labels) != sorted(labels):
        return None
    keys = [
        [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", label))]
        for label in labels
    ]
    pairs = zip(labels, labels[1:], keys, keys[1:], strict=False)
    return next(((one, two) for one, two, first, second in pairs if first > second), None)
