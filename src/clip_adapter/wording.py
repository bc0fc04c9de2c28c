"""Words for people: lists, counts and paths that any output can print."""

from __future__ import annotations

import os
from collections.abc import Iterable


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
