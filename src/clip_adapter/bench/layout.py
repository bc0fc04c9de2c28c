"""What a table is: cells, columns, rows; and which cells stand beside each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from clip_adapter.bench.values import Findings, Place

MISSING, FAILED = "-", "failed"


@dataclass(frozen=True)
class Cell:
    """A field of a table; ``value`` and what follows are for CSV."""

    text: str = MISSING
    value: float | None = None
    deviation: float | None = None
    seeds: int = 0
    bold: bool = False


@dataclass(frozen=True)
class Column:
    """``kind`` is "ours", "paper" or "difference"."""

    title: str
    kind: str = "ours"


@dataclass(frozen=True)
class Row:
    """``kind`` as that of a column, where published numbers are rows."""

    label: str
    cells: tuple[Cell, ...]
    kind: str = "ours"


@dataclass(frozen=True)
class Table:
    """What the writers of :mod:`~clip_adapter.bench.formats` take.

    Attributes:
        name: of its files.
        caption: above it; "" where it is the only one of its recipe.
        corner: head of the first column.
        columns: heads.
        rows: each with a cell per column.
        notes: sentences below.
        chosen: what was chosen, as a table of its own.
    """

    name: str
    caption: str
    corner: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    chosen: Table | None = None


@dataclass(frozen=True)
class Group:
    """The places of one table."""

    name: str
    caption: str
    places: tuple[Place, ...]
    titles: tuple[str, ...]


def groups(findings: Findings) -> list[Group]:
    """Which places stand beside each other."""
    recipe, places = findings.recipe, findings.places()
    if recipe.columns == "shots":
        key, parts = _parts("dataset", "backbone"), _parts("shots")
    elif recipe.columns == "backbone":
        key, parts = _parts("dataset", "shots"), _parts("backbone")
    elif recipe.columns == "shift":
        key, parts = _parts("dataset", "backbone", "shots"), _parts("test_set")
    else:
        key, parts = _parts(), _parts("dataset", "backbone", "shots")
    found: dict[tuple[str, ...], list[Place]] = {}
    for place in places:
        found.setdefault(key(place), []).append(place)
    made = []
    for own in found.values():
        if recipe.columns == "shift":
            own += [dataclasses.replace(own[0], shift=shift) for shift in recipe.shifts]
        caption = _varying(key, [g[0] for g in found.values()])(own[0])
        name = "-".join([recipe.name, *caption])
        title = _varying(parts, own)
        titles = tuple(", ".join(title(p)) or p.test_set for p in own)
        made.append(Group(name, ", ".join(caption), tuple(own), titles))
    return made


def _parts(*names: str) -> Callable[[Place], tuple[str, ...]]:
    def read(place: Place) -> tuple[str, ...]:
        return tuple(_word(name, getattr(place, name)) for name in names)

    return read


def _word(name: str, value: str | int) -> str:
    return shots_word(int(value)) if name == "shots" else str(value)


def shots_word(shots: int) -> str:
    """``1 shot``, ``2 shots``."""
    return "1 shot" if shots == 1 else f"{shots} shots"


def _varying(
    read: Callable[[Place], tuple[str, ...]], places: Sequence[Place]
) -> Callable[[Place], list[str]]:
    """The parts that differ between ``places``; the first where none does."""
    columns = list(zip(*(read(p) for p in places), strict=True))
    differ = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    kept = differ or ([0] if columns and len(places) == 1 else [])
    return lambda place: [read(place)[i] for i in kept]


def best_bold(column: Iterable[Cell], digits: int = 2) -> list[Cell]:
    """The highest in bold, and all that are shown as the same number of so many digits."""
    cells = list(column)
    known = [round(c.value, digits) for c in cells if c.value is not None]
    if len(known) < 2:
        return cells
    return [
        dataclasses.replace(c, bold=c.value is not None and round(c.value, digits) == max(known))
        for c in cells
    ]
