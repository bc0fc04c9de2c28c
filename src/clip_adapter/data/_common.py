"""What the readers of folders, tables, split files and the hub share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from clip_adapter.data.dataset import UNSPLIT, Sample
from clip_adapter.errors import DataError

# Other people's words for the three splits.
SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def listed(items: Iterable[object], limit: int = 5) -> str:
    """The first few of ``items`` in quotes, and how many more there are."""
    items = list(items)
    shown = ", ".join(repr(str(item)) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def counted(number: int, singular: str, plural: str = "") -> str:
    """``1 picture`` or ``5 pictures``."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def shown(path: str | os.PathLike[str]) -> str:
    """A path that any output can print: bytes that are not UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def class_notes(class_names: Sequence[str], splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    """A line for every thing about the classes that a user should know."""
    held = {split: {sample.label for sample in samples} for split, samples in splits.items()}
    anywhere = set().union(*held.values())
    notes = _gap(class_names, [i for i in range(len(class_names)) if i not in anywhere], "")
    for split in ("train", "test"):
        if held.get(split):
            gap = [i for i in sorted(anywhere) if i not in held[split]]
            notes += _gap(class_names, gap, f" in {split}")
    if len(class_names) == 1:
        notes.append(f"There is only one class, {class_names[0]!r}: nothing can be told apart.")
    return notes


def _gap(class_names: Sequence[str], gap: list[int], where: str) -> list[str]:
    if not gap:
        return []
    if len(gap) == 1:
        return [f"Class {class_names[gap[0]]!r} has no pictures{where}."]
    names = listed(class_names[i] for i in gap)
    return [f"{len(gap)} classes have no pictures{where}: {names}."]


def present(splits: Mapping[str, list[Sample]]) -> dict[str, list[Sample]]:
    """The splits that hold pictures, in the order train, val, test."""
    return {s: splits[s] for s in ("train", "val", "test", UNSPLIT) if splits.get(s)}


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The UTF-8 text of a file, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{what} {shown(path)} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {shown(path)} is not UTF-8 text (byte {error.start}).",
            hint="Save it again with the encoding UTF-8.",
        ) from error
