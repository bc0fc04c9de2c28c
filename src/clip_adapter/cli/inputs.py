"""Which pictures the words after ``predict`` mean: files, folders, globs, standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clip_adapter.errors import UsageError


@dataclass(frozen=True)
class Item:
    """A path as it is shown, and ``error`` where it cannot be a picture."""

    path: str
    error: str | None = None


def collect(words: Iterable[str], recursive: bool) -> list[Item]:
    """The pictures that ``words`` mean, in that order; a folder's are sorted.

    Args:
        words: files, folders, globs (which a shell did not expand), or ``-`` for a list on
            standard input, separated by line ends or NUL.
        recursive: also what lies in folders of a folder.

    Raises:
        UsageError: nothing is meant at all.
    """
    items: list[Item] = []
    for word in words:
        for name in standard_input() if word == "-" else [word]:
            items += _expand(name, recursive)
    if not items:
        raise UsageError(
            "No pictures were named.", hint="Name files, folders or globs, or '-' and a list."
        )
    return items


def standard_input() -> list[str]:
    """Paths on standard input, separated by NUL where there is one, else by line ends."""
    data = sys.stdin.buffer.read()
    parts = (
        data.split(b"\0") if b"\0" in data else [line.rstrip(b"\r") for line in data.split(b"\n")]
    )
    return [os.fsdecode(part) for part in parts if part]


def _expand(word: str, recursive: bool) -> list[Item]:
    path = Path(os.path.expanduser(word))
    try:
        if path.is_dir():
            found = pictures(path, recursive)
            return found or [Item(word, "the folder holds no picture")]
        if path.exists():
            return [Item(str(path))]
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        return [Item(word, getattr(error, "strerror", None) or str(error))]
    if not glob.has_magic(word):
        return [Item(word, "no such file")]
    matches = sorted(glob.glob(str(path), recursive=True))
    return [
        item
        for match in matches
        for item in (pictures(Path(match), recursive) if os.path.isdir(match) else [Item(match)])
    ] or [Item(word, "nothing matches this pattern")]


def pictures(folder: Path, recursive: bool) -> list[Item]:
    """Files with a picture's ending in ``folder``, sorted; hidden ones are left out."""
    from clip_adapter.datasets.walk import PICTURE_SUFFIXES

    found: list[str] = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if recursive and not f.startswith("."))
        found += [
            os.path.join(here, name)
            for name in sorted(files)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
        ]
    return [Item(path) for path in found]
