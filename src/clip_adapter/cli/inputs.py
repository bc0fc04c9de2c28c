"""Which pictures the words after ``predict`` mean: files, folders, globs, standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from clip_adapter.errors import DataError, UsageError
from clip_adapter.wording import shown


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
    names = [name for word in words for name in (standard_input() if word == "-" else [word])]
    items = [item for name in names for item in _expand(name, recursive)]
    if not items:
        raise UsageError(
            "No pictures were named.", hint="Name files, folders or globs, or '-' and a list."
        )
    return items


def standard_input() -> list[str]:
    """Paths on standard input, separated by NUL where there is one, else by line ends."""
    data = sys.stdin.buffer.read()
    parts = data.split(b"\0") if b"\0" in data else data.replace(b"\r\n", b"\n").split(b"\n")
    return [os.fsdecode(part) for part in parts if part]


def _expand(word: str, recursive: bool) -> list[Item]:
    path = Path(os.path.expanduser(word))
    try:
        if path.is_dir():
            return pictures(path, recursive) or [Item(word, "the folder holds no picture")]
        if path.exists():
            return [Item(str(path))]
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        return [Item(word, getattr(error, "strerror", None) or str(error))]
    if not glob.has_magic(word):
        return [Item(word, "no such file")]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    items = (pictures(m, recursive) if m.is_dir() else [Item(str(m))] for m in matches)
    return list(chain(*items)) or [Item(word, "nothing matches this pattern")]


def pictures(folder: Path, recursive: bool) -> list[Item]:
    """The pictures in ``folder``, sorted, and folders in it that cannot be opened.

    What else is left out is logged; docs/decisions/0009 has the rule.
    """
    from clip_adapter.datasets.walk import LOCKED, Walk
    from clip_adapter.reporting import log

    walk = Walk(folder)
    try:
        paths = walk.pictures() if recursive else walk.read(folder).pictures
    except DataError as error:
        return [Item(str(folder), error.found)]
    for note in walk.notes():
        log.warning(f"{shown(folder)}: {note}")
    locked = [path for path, why in walk.left_out.items() if why == LOCKED]
    return [Item(str(path)) for path in paths] + [Item(str(path), LOCKED) for path in locked]
