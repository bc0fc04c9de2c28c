"""Tables of seconds, memory and trained parameters: they differ between machines.

So they stand on a page of their own, and no difference to the paper's is given: its seconds are of
an A100, its memory is the GPU's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from clip_adapter.bench.compare import published_rows, row_of, table_number
from clip_adapter.bench.frame import Findings, Frame, mean_of, records_of
from clip_adapter.bench.recipe import System
from clip_adapter.bench.tables import ENTRY, MISSING, OURS, PAPER, Table, reasons
from clip_adapter.methods import make_method

# Recipes of accuracies whose costs are of interest as well.
COSTED = ("table2", "table3", "table10", "peers")
# What the paper's columns are called.
HEADS = {
    "train_time": "training",
    "parameters": "trained parameters",
    "memory": "memory",
    "inference": "a picture",
}


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


_mib = "{:,.0f} MiB".format
# (head, number of a record, how it is written, the paper's metric)
Numbers = tuple[tuple[str, str, Callable[[float], str], str], ...]
TRAINING: Numbers = (
    ("training", "train_seconds", _seconds, "train_time"),
    ("features of all shots, once", "embed_seconds", _seconds, ""),
    ("trained parameters", "trained_parameters", "{:,.0f}".format, "parameters"),
)
ALONE: Numbers = (
    *TRAINING,
    ("memory in training", "train_peak_mib", _mib, ""),
    ("a picture", "infer_ms", "{:.3g} ms".format, "inference"),
    ("memory in answering", "infer_peak_mib", _mib, "memory"),
)
BESIDE: Numbers = (*TRAINING, ("peak memory of the process", "peak_memory_mib", _mib, "memory"))


def cost_tables(findings: Findings, every: Sequence[Findings]) -> list[Table]:
    """A table for each data set and backbone, at the most shots; none where costs are not asked.

    Args:
        findings: of a recipe.
        every: of all recipes of the profile, for the accuracies beside measured costs.
    """
    recipe, cells = findings.recipe, findings.cells
    if len(findings.systems) < 2 or not (recipe.measure == "cost" or recipe.name in COSTED):
        return []
    cells = cells[cells.test_set == cells.dataset]
    most = cells.groupby(["dataset", "backbone"]).shots.transform("max")
    parts = cells[cells.shots == most].groupby(["dataset", "backbone"], sort=False)
    return [_table(findings, str(name), own, every) for (name, _), own in parts]


def _table(findings: Findings, name: str, cells: Frame, every: Sequence[Findings]) -> Table:
    recipe, shots = findings.recipe, cells.shots.iloc[0]
    alone, table = recipe.measure == "cost", table_number(recipe)
    systems = [s for s in findings.systems if s.label in set(cells.label)]
    columns: dict[str, list[dict[str, Any]]] = {}
    for head, number, write, metric in ALONE if alone else BESIDE:
        ours = [mean_of(runs, number) for runs in cells.runs]
        missing = ["failed" if own else MISSING for own in cells.failures]
        texts = [write(m["value"]) if m["seeds"] else t for m, t in zip(ours, missing, strict=True)]
        columns[head] = [m | {"text": t} for m, t in zip(ours, texts, strict=True)]
        if any(m["seeds"] for m in ours):
            columns[f"paper: {HEADS.get(metric)}"] = [_paper(s, table, metric) for s in systems]
    caption = f"{name}, {shots} shots"
    if alone:
        caption = f"{recipe.cost.backbone}, {recipe.cost.classes} classes, {shots} shots"
        on, known = _accuracies(findings, every)
        columns[f"right on {on} (%)"] = [known.get(s.label, {}) for s in systems]
        dataset = next((f.dataset for own in published_rows(table).values() for f in own), "")
        columns[f"paper: right on {dataset} (%)"] = [_paper(s, table, "top1") for s in systems]
    entries = [
        {"row": row, "label": system.label, "column": column, "title": title}
        | {"kind": OURS, "text": MISSING, "seeds": 0}
        | fields[row]
        for column, (title, fields) in enumerate(columns.items())
        for row, system in enumerate(systems)
    ]
    frame = pd.DataFrame(entries, columns=ENTRY).assign(bold=False)
    frame = frame[frame.value.groupby(frame.column).transform("count") > 0]
    return Table(f"{recipe.name}-costs-{name}", caption, frame, _notes(cells))


def _paper(system: System, table: int, metric: str) -> dict[str, Any]:
    """What the paper's table has of ``metric``."""
    rows = published_rows(table).get(row_of(system, table), []) if table else []
    for figure in (f for f in rows if f.metric == metric):
        more = "+" if "or more" in figure.note else ""
        percent, other = f"{figure.value:.2f}", f"{figure.value:g}{more} {figure.unit}"
        text = percent if figure.unit == "%" else other
        return {"kind": PAPER, "text": text, "value": figure.value}
    return {"kind": PAPER}


def _accuracies(
    findings: Findings, every: Sequence[Findings]
) -> tuple[str, dict[str, dict[str, Any]]]:
    """(data set, {label: accuracy on it}) of the systems in other recipes, at the same shots.

    They are known by method and training recipe; a ratio is free. On the data set of ``findings``
    if there is a result, else on the first that has one.
    """
    here = findings.cells
    known: dict[str, dict[str, dict[str, Any]]] = {}
    for other in (other for other in every if other.recipe.measure == "accuracy"):
        # At the defaults, but for the training recipe.
        usual = {
            _training(s): s.label
            for s in reversed(other.systems)
            if not s.prompts and set(s.options) <= {"recipe"}
        }
        cells = other.cells[(other.cells.test_set == other.cells.dataset) & (other.cells.seeds > 0)]
        for cell in cells[cells.shots.isin(here.shots)].itertuples():
            for system in findings.systems:
                if usual.get(_training(system)) == cell.label:
                    number = {name: getattr(cell, name) for name in ("value", "deviation", "seeds")}
                    own = known.setdefault(cell.dataset, {})
                    own.setdefault(system.label, {"text": f"{cell.value:.2f}", **number})
    name = next((n for n in [*here.dataset, *known] if n in known), "")
    return name, known.get(name, {})


def _training(system: System) -> tuple[str, str]:
    method = make_method(system.method, system.options)
    return system.method, str(getattr(method, "recipe", ""))


def _notes(cells: Frame) -> list[str]:
    """How a training was timed, failures, and the machine."""
    lines, machines = dict[str, None](), dict[str, None]()
    for label, own in cells.groupby("label", sort=False):
        for record in records_of(own.runs.iloc[0]):
            hardware, how = record.get("hardware", {}), record.get("train_how", "timed whole")
            if how != "timed whole":
                lines[f"{label}: {how}, and multiplied."] = None
            threads = hardware.get("threads")
            if name := hardware.get("accelerator") or hardware.get("processor"):
                word = f"{threads} thread{'' if threads == 1 else 's'}"
                machines[f"Measured on {name}, {word}."] = None
        lines |= {f"{label} failed: {reason}": None for reason in reasons(own)}
    return [*lines, *machines]
