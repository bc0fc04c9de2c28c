"""Tables: a pure function of a plan, its results and the published numbers.

A cell is the mean over seeds and their standard deviation. The best of a column is bold, in ours
and in the published ones each for itself. Nothing that differs between two machines is in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from clip_adapter.bench.beside import INCOMPLETE, METHOD, SETTING, Beside, beside
from clip_adapter.bench.layout import (
    FAILED,
    MISSING,
    Cell,
    Column,
    Group,
    Row,
    Table,
    best_bold,
    groups,
    shots_word,
)
from clip_adapter.bench.published import Published
from clip_adapter.bench.recipe import System
from clip_adapter.bench.values import Findings, Measured, Place, again, field_of, first_line, top1

SHAPE = (
    "The published numbers are of another data set, backbone, preprocessing or number of shots: "
    "they show the shape of the finding, and no difference is given."
)
PARTS = (
    "Published numbers without a difference stand beside results of another or an incomplete data "
    "set (ready-made features, a copy split its own way, other classes or other test pictures): "
    "they show the shape alone."
)
OTHERS = (
    "Published numbers without a difference stand beside another method, or prompts of one's own: "
    "they show the shape alone."
)
SAME = "The difference is ours minus the published number."
CHOSEN = "The paper names no validation data for its ratios; ours are chosen on the shots."
DIGITISED = "The published numbers were read off a plot, to 0.2 points."


def tables(findings: Findings, published: Published) -> list[Table]:
    """The tables of a recipe; none for the measure "cost"."""
    if findings.recipe.measure == "cost":
        return []
    if findings.recipe.measure == "tsne":
        return [_plane_table(findings)]
    make = _in_rows if findings.recipe.columns == "shots" else _in_columns
    every = [(group, _systems(findings, group)) for group in groups(findings)]
    return [make(findings, group, systems, published) for group, systems in every if systems]


def _systems(findings: Findings, group: Group) -> list[System]:
    """Those that can be run in ``group``, if there are two to compare."""
    found = [s for s in findings.systems if any(findings.runs(s.label, p) for p in group.places)]
    return found if len(found) > 1 else []


def _in_columns(
    findings: Findings, group: Group, systems: list[System], published: Published
) -> Table:
    """Published numbers and differences as columns."""
    notes = _Notes(findings)
    columns: list[Column] = []
    by_column: list[list[Cell]] = []
    for place, title in zip(group.places, group.titles, strict=True):
        columns.append(Column(title))
        ours = [notes.cell(findings.at(s.label, place), place) for s in systems]
        by_column.append(best_bold(ours))
        found = [beside(findings, s, place, published) for s in systems]
        if known := [b for b in found if b is not None]:
            notes.published(known, systems, found)
            columns.append(Column(known[0].head, "paper"))
            by_column.append(best_bold([_published(b) for b in found]))
        if any(b.same for b in known):
            columns.append(Column("difference", "difference"))
            by_column.append([_difference(c, b) for c, b in zip(ours, found, strict=True)])
    rows = [
        Row(findings.shown_as(s.label), tuple(column[i] for column in by_column))
        for i, s in enumerate(systems)
    ]
    return _table(findings, group, columns, rows, notes)


def _in_rows(
    findings: Findings, group: Group, systems: list[System], published: Published
) -> Table:
    """Published numbers and differences as rows below all of ours."""
    notes = _Notes(findings)
    cells = [
        [notes.cell(findings.at(s.label, place), place) for place in group.places] for s in systems
    ]
    bold = zip(*(best_bold(column) for column in zip(*cells, strict=True)), strict=True)
    rows = [Row(findings.shown_as(s.label), tuple(c)) for s, c in zip(systems, bold, strict=True)]
    for system, ours in zip(systems, cells, strict=True):
        found = [beside(findings, system, place, published) for place in group.places]
        known = [b for b in found if b is not None]
        if not known:
            continue
        notes.published(known, [system] * len(found), found)
        label = f"{system.label}, {known[0].head}"
        rows.append(Row(label, tuple(_published(b) for b in found), "paper"))
        if any(b.same for b in known):
            apart = tuple(_difference(c, b) for c, b in zip(ours, found, strict=True))
            rows.append(Row(f"{system.label}, difference", apart, "difference"))
    return _table(findings, group, [Column(t) for t in group.titles], rows, notes)


def _plane_table(findings: Findings) -> Table:
    """Silhouettes, and the accuracy of the same classifiers."""
    notes, columns, rows = _Notes(findings), [], []
    several = len({p.shots for p in findings.places()}) > 1
    for place in findings.places():
        where = f"{place.dataset}, {shots_word(place.shots)}" if several else place.dataset
        columns += [Column(f"{where}: right (%)"), Column("silhouette")]
    for system in findings.systems:
        cells: list[Cell] = []
        for place in findings.places():
            found = findings.at(system.label, place)
            apart = found.number(field_of("silhouette"))
            cells.append(notes.cell(found, place))
            cells.append(Cell() if apart is None else Cell(f"{apart.mean:.3f}", apart.mean))
        rows.append(Row(findings.shown_as(system.label), tuple(cells)))
    by_column = zip(*(row.cells for row in rows), strict=True)
    # Accuracies have two digits, silhouettes three.
    marked = [best_bold(cells, 2 + number % 2) for number, cells in enumerate(by_column)]
    bold = zip(*marked, strict=True)
    rows = [dataclasses.replace(r, cells=tuple(c)) for r, c in zip(rows, bold, strict=True)]
    group = Group(findings.recipe.name, "", tuple(findings.places()), ())
    return dataclasses.replace(_table(findings, group, columns, rows, notes), chosen=None)


def _table(
    findings: Findings, group: Group, columns: list[Column], rows: list[Row], notes: _Notes
) -> Table:
    chosen = _chosen(findings, group)
    return Table(
        group.name, group.caption, "system", tuple(columns), tuple(rows), notes.told(), chosen
    )


def _chosen(findings: Findings, group: Group) -> Table | None:
    places = [p for p in group.places if not p.shift]
    titles = [t for p, t in zip(group.places, group.titles, strict=False) if not p.shift]
    rows = []
    for system in findings.systems:
        told = [findings.at(system.label, place).chosen() for place in places]
        if any(told):
            cells = tuple(Cell(word or MISSING) for word in told)
            rows.append(Row(findings.shown_as(system.label), cells))
    if not rows:
        return None
    columns = tuple(Column(t) for t in titles)
    return Table(f"{group.name}-chosen", "What was chosen", "system", columns, tuple(rows))


def _published(found: Beside | None) -> Cell:
    return Cell() if found is None else Cell(f"{found.value:.2f}", found.value)


def _difference(ours: Cell, found: Beside | None) -> Cell:
    if found is None or not found.same or ours.value is None:
        return Cell()
    apart = ours.value - found.value
    return Cell(f"{apart:+.2f}", apart)


class _Notes:
    """Cells of ours, and what is to be said below the table."""

    def __init__(self, findings: Findings) -> None:
        self._recipe, self._failures = findings.recipe, dict[str, int]()
        self._known: list[Beside] = []
        self._odd = dict[str, None]()

    def cell(self, measured: Measured, place: Place) -> Cell:
        """The accuracy at ``place``, or why there is none."""
        marks = "".join(f" [{self._number(reason)}]" for reason in measured.failures)
        marks += "".join(f" [{self._number(again(reason))}]" for reason in measured.outdated)
        number = measured.number(top1(place.shift))
        if number is None:
            return Cell(FAILED + marks if marks else MISSING)
        text = f"{number.mean:.2f}"
        if number.deviation is not None:
            text += f" ± {number.deviation:.2f}"
        if number.seeds < measured.wanted:
            text += f" ({number.seeds} of {measured.wanted} seeds)"
        if measured.best_of < measured.settings:
            text += f" ({measured.best_of} of {measured.settings} settings)"
        return Cell(text + marks, number.mean, number.deviation, number.seeds)

    def published(
        self, known: list[Beside], systems: Sequence[System], found: Sequence[Beside | None]
    ) -> None:
        """Remembers what has to be said about published numbers."""
        self._known += known
        for system, one in zip(systems, found, strict=True):
            if one is not None and one.note:
                row = system.of or system.label
                self._odd[f"Published {one.value:.2f} of {row!r}: {one.note}."] = None

    def told(self) -> tuple[str, ...]:
        """Sentences."""
        lines = [f"[{number}] {reason}" for reason, number in self._failures.items()]
        if any(b.same for b in self._known):
            lines.append(SAME)
            if self._recipe.protocol == "ours" and any(s.search for s in self._recipe.systems):
                lines.append(CHOSEN)
        told = {SETTING: SHAPE, INCOMPLETE: PARTS, METHOD: OTHERS}
        whys = {b.why for b in self._known}
        lines += [line for why, line in told.items() if why in whys]
        if any(b.digitised for b in self._known):
            lines.append(DIGITISED)
        return (*lines, *self._odd)

    def _number(self, reason: str) -> int:
        return self._failures.setdefault(first_line(reason), len(self._failures) + 1)
