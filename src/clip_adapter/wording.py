"""Words for people: lists, counts and paths that any output can print."""

from __future__ import annotations

import os
from collections.abc import Iterable


def some_of(items: Iterable[str], limit: int = 5) -> str:
    """The first few of ``items``, and how many more there are."""
    items = list(items)
    return ", ".join(items[:limit]) + f" and {len(items) - limit} more" * (len(items) > limit)


def listed(items: Iterable[object], limit: int = 5) -> str:
    """The first few of ``items`` in quotes, and how many more there are."""
    return some_of((repr(str(item)) for item in items), limit)


def shortened(text: str, most: int = 60, mark: str = "...") -> str:
    """``text``, or its beginning with ``mark``, together ``most`` letters."""
    return text if len(text) <= most else text[: most - len(mark)] + mark


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def counted(number: int, singular: str, plural: str = "") -> str:
    """``1 picture`` or ``5 pictures``."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def shown(path: str | os.PathLike[str]) -> str:
    """A path that any output can print: bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", errors="replace")
