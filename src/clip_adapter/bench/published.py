"""Published numbers, as they were printed, and the one beside each of ours.

Two files hold one row for each number. ``tables.csv`` holds the tables of CLIP-Adapter (arXiv
2110.04544), with a note where a number contradicts the text or another table.
``fewshot_numbers.csv`` holds accuracies by shots from figures and released logs, under two kinds
of preprocessing that are never mixed.

A difference is told only where data set, backbone, preprocessing, shots and method are the same,
and where ours was measured on the whole data set. Where one of them is another, the published
number shows the shape of the finding and nothing else.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from clip_adapter.bench.frame import Findings, Frame
from clip_adapter.bench.recipe import Recipe, System, shipped
from clip_adapter.datasets.catalog import get_benchmark, known_benchmark
from clip_adapter.errors import DataError

TABLES, FEW_SHOT = "tables.csv", "fewshot_numbers.csv"
TYPES: Any = {
    **dict.fromkeys(("row", "column", "dataset", "backbone", "style", "metric", "unit"), str),
    **dict.fromkeys(("source", "note", "preprocess", "method"), str),
    **{"table": int, "shots": int, "value": float, "acc": float},
}
# Columns that each file must have.
NEEDED = {
    TABLES: "table row column dataset backbone style shots metric value",
    FEW_SHOT: "source backbone preprocess dataset method shots acc",
}
# Other spellings in the file.
_DATASETS = {"fgvc": "fgvc_aircraft"}
# Most of the published numbers are of this one.
USUAL_BACKBONE = "RN50"
# Why there is no difference; "" where there is one.
SETTING, METHOD, INCOMPLETE = "setting", "method", "incomplete"
# Published name -> our method.
METHODS = {
    "zero-shot": "zero-shot",
    "Zero-shot CLIP": "zero-shot",
    "linear-probe": "linear-probe",
    "Linear probe CLIP": "linear-probe",
    "CoOp": "coop",
    "CLIP-Adapter": "clip-adapter",
    "Tip-Adapter": "tip-adapter",
    "Tip-Adapter-F": "tip-adapter-f",
    "APE": "ape",
    "APE-T": "ape-t",
    "GDA": "gda",
}


@cache
def load_published(folder: Path | None = None) -> Any:
    """Both files of ``folder`` (those of the package by default) as one frame.

    Columns are table (its number, or 0), row (what was measured), dataset ("avg" is the mean of
    the paper's eleven), backbone (as the paper writes it), style (preprocessing), shots (0 for
    zero-shot, which has the same at every K), metric, value, unit, note (what is odd about it),
    digitised (read off a plot, to 0.2 points) and text (value and unit).

    Raises:
        DataError: one is missing or damaged.
    """
    frames: list[Frame] = []
    for name, needed in NEEDED.items():
        path = (folder or shipped("published")) / name
        try:
            frames.append(pd.read_csv(path, dtype=TYPES, keep_default_na=False))
            if absent := set(needed.split()) - set(frames[-1]):
                raise ValueError(f"there is no column {', '.join(sorted(absent))}")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} cannot be read: {error}.",
                hint="Install clip-adapter again, or take the file from its repository.",
            ) from error
    tables, few = frames
    few = few.rename(columns={"method": "row", "acc": "value"}).assign(
        table=0,
        metric="top1",
        unit="%",
        note="",
        digitised=few.source.str.contains("digitised"),
        style=few.preprocess.str.removesuffix("-style"),
        dataset=few.dataset.replace(_DATASETS),
    )
    whole = pd.concat([tables.assign(digitised=False), few], ignore_index=True)
    texts = [
        f"{value:.2f}" if unit == "%" else f"{value:g}{'+' * ('or more' in note)} {unit}"
        for value, unit, note in zip(whole.value, whole.unit, whole.note, strict=True)
    ]
    return whole.assign(text=texts)


def paper_backbone(name: str) -> str:
    """``ViT-B-16/openai`` -> ``ViT-B/16``, ``RN50/openai`` -> ``RN50``; others as they are."""
    if not name.endswith("/openai"):
        return name
    return re.sub(r"^ViT-([BLH])-", r"ViT-\1/", name.removesuffix("/openai"))


def table_number(recipe: Recipe) -> int:
    """5 for a recipe of "Table 5"; 0 for figures and recipes of one's own."""
    match = re.fullmatch(r"Table (\d+)", recipe.source)
    return int(match[1]) if match else 0


@cache
def published_rows(table: int) -> dict[str, list[Any]]:
    """The numbers of a table of the paper, or those by shots (0), by the name of the row."""
    published = load_published()
    groups = published[published.table == table].groupby("row")
    return {str(row): list(group.itertuples(index=False)) for row, group in groups}


def row_of(system: System, table: int) -> str:
    """The name of ``system`` in a table of the paper."""
    return system.of if not table or system.of in published_rows(table) else system.label


def compared(findings: Findings) -> Frame:
    """The cells, and beside each what is published of it, if anything.

    Further columns are theirs (in percent, or NaN), where (data set and backbone, as the paper
    writes them), source ("paper" for a table of CLIP-Adapter's, else "published"), digitised (read
    off a plot, to 0.2 points), note (what is odd about it), and why there can be no difference: ""
    where ours was measured on the same, else SETTING (another data set, backbone, preprocessing or
    number of shots), METHOD (another method, or prompts of its own) or INCOMPLETE (not known to be
    of the whole data set).
    """
    systems = {system.label: system for system in findings.systems}
    cells, names = findings.cells, ["theirs", "where", "source", "why", "digitised", "note"]
    rows = [_counterpart(findings.recipe, systems[c.label], c) for c in cells.itertuples()]
    return cells.join(pd.DataFrame(rows, cells.index, names).astype({"theirs": float}))


def _counterpart(recipe: Recipe, system: System, cell: Any) -> tuple[Any, ...]:
    table = table_number(recipe)
    name, own = row_of(system, table), paper_backbone(cell.backbone)
    dataset = recipe.like.get(cell.test_set, cell.test_set)
    shots = (cell.shots,) if table else (0, cell.shots)
    figures = [
        f
        for f in published_rows(table).get(name, [])
        if (f.dataset, f.metric) == (dataset, "top1")
        and (table or (f.style == recipe.style and f.shots in shots))
        and (table or f.backbone in (own, USUAL_BACKBONE))
    ]
    if not figures:
        return (None,) * 6
    figure = next((f for f in figures if f.backbone == own), figures[0])
    same = (figure.backbone, figure.style, dataset) == (own, recipe.style, cell.test_set)
    # The table says which rows have prompts of their own, but not what others call a row.
    prompts = bool(system.prompts) and (not table or name == system.of)
    if not same or figure.shots not in shots:
        why = SETTING
    elif prompts or METHODS.get(name, system.method if table else "") != system.method:
        why = METHOD
    else:
        why = "" if recipe.profile == "paper" and _whole(cell) else INCOMPLETE
    where, source = f"{figure.dataset}, {figure.backbone}", "paper" if table else "published"
    return figure.value, where, source, why, figure.digitised, figure.note


def _whole(cell: Any) -> bool:
    """Whether all records are of all classes and of all test pictures of the paper's data set."""
    if any(known_benchmark(name) != name for name in (cell.dataset, cell.test_set)):
        return not cell.records
    wanted = get_benchmark(cell.dataset).classes, get_benchmark(cell.test_set).sizes["test"]
    shifted = cell.test_set != cell.dataset
    # A copy is split its own way, so its shots are others.
    return all(
        not (record.get("skipped") or part.get("test_skipped") or record.get("copy_of"))
        and (record.get("classes"), part.get("n")) == wanted
        for record in cell.records
        for part in [record.get("shifts", {}).get(cell.test_set, {}) if shifted else record]
    )
