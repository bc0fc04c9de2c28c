"""Tables of seconds, memory and trained parameters: they differ between machines.

So they stand on a page of their own, and no difference to the paper's is given: its seconds are of
an A100, its memory is the GPU's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clip_adapter.bench.beside import row_of, table_number
from clip_adapter.bench.layout import MISSING, Cell, Column, Row, Table
from clip_adapter.bench.published import Published, TableFigure
from clip_adapter.bench.recipe import System
from clip_adapter.bench.values import Findings, Measured, Place, Read, again, field_of, first_line
from clip_adapter.methods import make_method

# Recipes of accuracies whose costs are of interest as well.
COSTED = ("table2", "table3", "table10", "peers")
HEADS = {
    "train_time": "training",
    "parameters": "trained parameters",
    "memory": "memory",
    "inference": "a picture",
}
# (data set, {label: accuracy on it})
Accuracies = tuple[str, dict[str, Cell]]
# (head, our number, how it is written, the paper's metric)
Spec = tuple[str, Read, Callable[[float], str], str]


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def _count(value: float) -> str:
    return f"{round(value):,}"


def _mib(value: float) -> str:
    return f"{value:,.0f} MiB"


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


MEASURED: tuple[Spec, ...] = (
    ("training", field_of("train_seconds"), _seconds, "train_time"),
    ("features of all shots, once", field_of("embed_seconds"), _seconds, ""),
    ("trained parameters", field_of("trained_parameters"), _count, "parameters"),
    ("memory in training", field_of("train_peak_mib"), _mib, ""),
    ("a picture", field_of("infer_ms"), _ms, "inference"),
    ("memory in answering", field_of("infer_peak_mib"), _mib, "memory"),
)
BESIDE_ACCURACY: tuple[Spec, ...] = (
    ("training", field_of("train_seconds"), _seconds, "train_time"),
    ("features of all shots, once", field_of("embed_seconds"), _seconds, ""),
    ("trained parameters", field_of("trained_parameters"), _count, "parameters"),
    ("peak memory of the process", field_of("peak_memory_mib"), _mib, "memory"),
)


def accuracies(findings: Findings, every: Sequence[Findings]) -> Accuracies:
    """What other recipes of the profile found for the systems of ``findings``, at its shots.

    They are known by method and training recipe; a ratio is free. On the data set of ``findings``
    if there is a result, else on the first that has one.
    """
    shots = {p.shots for p in findings.places()}
    found: dict[str, dict[str, Cell]] = {}
    for other in every:
        if other.recipe.measure != "accuracy" or other.recipe.profile != findings.recipe.profile:
            continue
        usual = {_training(s): s for s in reversed(other.systems) if _is_usual(s)}
        for place in other.places():
            for system in findings.systems:
                same = usual.get(_training(system))
                if same is None or place.shots not in shots:
                    continue
                number = other.accuracy(same.label, place)
                if number is not None:
                    cell = Cell(f"{number.mean:.2f}", number.mean, number.deviation, number.seeds)
                    found.setdefault(place.dataset, {}).setdefault(system.label, cell)
    own = [p.dataset for p in findings.places() if p.dataset in found]
    name = next(iter([*own, *found]), "")
    return name, found.get(name, {})


def _training(system: System) -> tuple[str, str]:
    method = make_method(system.method, system.options)
    return system.method, str(getattr(method, "recipe", ""))


def _is_usual(system: System) -> bool:
    """At the defaults, but for the training recipe."""
    return not system.prompts and set(system.options) <= {"recipe"}


def cost_tables(findings: Findings, published: Published, known: Accuracies) -> list[Table]:
    """A table for each data set and backbone, at the most shots; none where costs are not asked.

    Args:
        findings: of a recipe.
        published: for what the paper measured.
        known: accuracies of the systems, of :func:`accuracies`.
    """
    recipe = findings.recipe
    alone = recipe.measure == "cost"
    if len(findings.systems) < 2 or not (alone or recipe.name in COSTED):
        return []
    last: dict[tuple[str, str], Place] = {}
    for place in sorted(findings.places(), key=lambda p: p.shots):
        last[place.dataset, place.backbone] = place
    figures = published.table(table_number(recipe) or 0)
    specs = MEASURED if alone else BESIDE_ACCURACY
    made = []
    for place in last.values():
        caption = f"{place.dataset}, {place.shots} shots"
        if alone:
            told = {"backbone": recipe.cost.get("backbone"), "classes": recipe.cost.get("classes")}
            caption = f"{told['backbone']}, {told['classes']} classes, {place.shots} shots"
        made.append(_table(findings, place, caption, specs, figures, known if alone else None))
    return made


def _table(
    findings: Findings,
    place: Place,
    caption: str,
    specs: Sequence[Spec],
    figures: Sequence[TableFigure],
    known: Accuracies | None,
) -> Table:
    columns, by_column = [], []
    found = [findings.at(s.label, place) for s in findings.systems]
    for head, read, write, metric in specs:
        cells = [_cell(m, read, write) for m in found]
        if all(c.value is None for c in cells):
            continue
        columns.append(Column(head))
        by_column.append(cells)
        theirs = [_paper(findings, s.label, metric, figures) for s in findings.systems]
        if any(c.value is not None for c in theirs):
            columns.append(Column(f"paper: {HEADS[metric]}", "paper"))
            by_column.append(theirs)
    if known is not None and known[1]:
        columns.append(Column(f"right on {known[0]} (%)"))
        by_column.append([known[1].get(s.label, Cell()) for s in findings.systems])
    theirs = [_paper(findings, s.label, "top1", figures) for s in findings.systems]
    if known is not None and figures:
        columns.append(Column(f"paper: right on {figures[0].dataset} (%)", "paper"))
        by_column.append(theirs)
    rows = tuple(
        Row(s.label, tuple(column[i] for column in by_column))
        for i, s in enumerate(findings.systems)
    )
    name = f"{findings.recipe.name}-costs-{place.dataset}"
    return Table(name, caption, "system", tuple(columns), rows, _notes(findings, found))


def _cell(measured: Measured, read: Read, write: Callable[[float], str]) -> Cell:
    number = measured.number(read)
    if number is None:
        return Cell("failed" if measured.failures else MISSING)
    return Cell(write(number.mean), number.mean, number.deviation, number.seeds)


def _paper(findings: Findings, label: str, metric: str, figures: Sequence[TableFigure]) -> Cell:
    system = next(s for s in findings.systems if s.label == label)
    row = row_of(system, {f.row for f in figures})
    for f in figures:
        if (f.row, f.metric) == (row, metric):
            more = "+" if "or more" in f.note else ""
            text = f"{f.value:.2f}" if f.unit == "%" else f"{f.value:g}{more} {f.unit}"
            return Cell(text, f.value)
    return Cell()


def _notes(findings: Findings, found: Sequence[Measured]) -> tuple[str, ...]:
    """How a training was timed, failures, and the machine."""
    told: dict[str, None] = {}
    for system, measured in zip(findings.systems, found, strict=True):
        for record in measured.records:
            if (how := record.get("train_how", "timed whole")) != "timed whole":
                told[f"{system.label}: {how}, and multiplied."] = None
        for reason in measured.failures:
            told[f"{system.label} failed: {first_line(reason)}"] = None
        for reason in measured.outdated:
            told[f"{system.label}: {again(reason)}"] = None
    machines = {_machine(r): None for m in found for r in m.records}
    return (*told, *(f"Measured on {machine}." for machine in machines if machine))


def _machine(record: dict) -> str:
    """Processor or accelerator, and threads."""
    hardware = record.get("hardware") or {}
    name = hardware.get("accelerator") or hardware.get("processor")
    if not name:
        return ""
    threads = hardware.get("threads")
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}"
