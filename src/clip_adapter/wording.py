"""Words for people: lists, counts and paths that any output can print."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape


def some_of(items: Iterable[str], limit: int = 5) -> str:
    """The first few of ``items``, and how many more there are."""
    items = list(items)
    return ", ".join(items[:limit]) + f" and {len(items) - limit} more" * (len(items) > limit)


def listed(items: Iterable[object], limit: int = 5) -> str:
    """The first few of ``items`` in quotes, and how many more there are."""
    # A backslash is one, as in paths of Windows.
    return some_of((repr(str(item)).replace("\\\\", "\\") for item in items), limit)


# What a terminal obeys instead of showing it, and what turns or breaks the line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str, kept: str = "") -> str:
    """``text`` with control characters written out as JSON has them, but for those in ``kept``."""
    return _CONTROL.sub(lambda c: c[0] if c[0] in kept else f"\\u{ord(c[0]):04x}", text)


def shortened(text: str, most: int = 60, mark: str = "...") -> str:
    """``text`` as any output can print it, or its beginning with ``mark``: ``most`` letters."""
    text = printable(text)
    return text if len(text) <= most else text[: most - len(mark)] + mark


def told_apart(one: str, other: str, most: int = 12) -> tuple[str, str]:
    """The first letters of two fingerprints; where these are the same, those that are not."""
    pairs = zip(one, other, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    start = 0 if same < most else same - most // 2
    mark = "..." if start else ""
    first, second = (
        printable(mark + text[start : start + most]) if text else "no fingerprint"
        for text in (one, other)
    )
    return first, second


def located(place: Iterable[object], fault: str) -> str:
    """``a.b: fault``, of what is wrong at a place in a file; ``fault`` where it is the whole."""
    return ": ".join(filter(None, [".".join(map(str, place)), fault]))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def counted(number: int, singular: str, plural: str = "") -> str:
    """``1 picture`` or ``5,000 pictures``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def shown(path: str | os.PathLike[str]) -> str:
    """A path that any output can print: bytes that are not UTF-8 become replacement characters."""
    return printable(as_utf8(path))


def as_utf8(path: str | os.PathLike[str]) -> str:
    """A path as UTF-8 can hold it, control characters and all."""
    return os.fsencode(path).decode("utf-8", errors="replace")


CLASSES_SHOWN = 20


def class_rows(
    per_class: Mapping[str, float | None],
    counts: Mapping[str, int],
    zero_shot: Mapping[str, float | None] | None,
) -> tuple[list[str], list[list[str]], str]:
    """Classes by the share of right answers, worst first; those without pictures are left out.

    Args:
        per_class: percent by class name.
        counts: pictures by class name.
        zero_shot: as ``per_class``, by zero-shot CLIP; None where it is not known.

    Returns:
        Headings, at most ``CLASSES_SHOWN`` rows, and a note on those left out, or "".
    """
    columns = [per_class] if zero_shot is None else [per_class, zero_shot]
    headings = ["class", "pictures", "right %", "zero-shot %"][: 2 + len(columns)]
    scored = sorted((a, i, n) for i, (n, a) in enumerate(per_class.items()) if a is not None)
    rows = [
        [shortened(name), str(counts[name]), *(f"{column[name] or 0:.1f}" for column in columns)]
        for _, _, name in scored[:CLASSES_SHOWN]
    ]
    left = len(scored) - len(rows)
    return headings, rows, f"{left} better ones are not shown." if left else ""


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, numbers to the right of the first column; wide letters count as two."""
    from rich.cells import cell_len

    table = [headings, *rows]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        gaps = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        numbers = (gap + cell for gap, cell in zip(gaps[1:], row[1:], strict=True))
        lines.append("  ".join([row[0] + gaps[0], *numbers]).rstrip())
    return lines


def html_table(
    lines: Iterable[str], headings: Sequence[str] = (), rows: Iterable[Sequence[str]] = ()
) -> str:
    """HTML of ``lines`` and a table, for notebooks; everything in it is escaped."""

    def row(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    above = "".join(f"<div>{escape(line)}</div>" for line in lines)
    head = f"<thead>{row('th', headings)}</thead>" if headings else ""
    return (
        f"{above}<table>{head}<tbody>{''.join(row('td', cells) for cells in rows)}</tbody></table>"
    )
