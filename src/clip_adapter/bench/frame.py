"""The results of a plan as one frame: runs, cells of tables, and the published beside.

Published numbers are as they were printed, in two files with one row for each. ``tables.csv`` holds
the tables of CLIP-Adapter (arXiv 2110.04544), with a note where a number contradicts the text or
another table. ``fewshot_numbers.csv`` holds accuracies by shots from figures and released logs,
under two kinds of preprocessing that are never mixed.

A difference is told only where data set, backbone, preprocessing, shots and method are the same,
and where ours was measured on the whole data set. Where one of them is another, the published
number shows the shape of the finding and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from clip_adapter.bench.plan import Plan
from clip_adapter.bench.recipe import Recipe, System, shipped
from clip_adapter.bench.results import NUMBERS, Results, Run
from clip_adapter.datasets.catalog import get_benchmark, known_benchmark
from clip_adapter.errors import DataError
from clip_adapter.training.selection import shown

# What a cell is of: a row's label; the set that it was trained on, seen through a backbone, and K
# shots of it; the test set, which is a shifted one where it is not that of the first.
CELL = ["label", "dataset", "backbone", "shots", "test_set"]
PLACE = CELL[:-1]
PUBLISHED = ["theirs", "where", "source", "why", "digitised", "note"]
SCORES = ["top1", *NUMBERS]
Frame = Any  # a pandas frame: what its columns hold is said where it is made
TABLES, FEW_SHOT = "tables.csv", "fewshot_numbers.csv"
NUMBER: Any = {"table": int, "shots": int, "value": float, "acc": float}  # all else is text
# Columns that each file must have.
NEEDED = {
    TABLES: "table row column dataset backbone style shots metric value unit source note",
    FEW_SHOT: "source backbone preprocess dataset method shots acc",
}
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


class Findings:
    """All that the runs of a plan found.

    Attributes:
        plan: what was asked for.
        recipe: of the plan.
        runs: a row for each run and test set: ``CELL``, setting (its number), key, failure, record,
            chosen, and the numbers of the record.
        cells: a row for each cell, in order: ``CELL``; value, deviation (of the sample) and seeds
            of top1, NaN where there are too few; same_shots (of all seeds); repeated (and they came
            to the same, which is no deviation); wanted (seeds); settings and best_of (those with a
            result, of which the best on the test set is taken); chosen (in words); failures (why
            runs have no result); and its records. What is published of it, if anything: theirs (in
            percent, or NaN), where (data set and backbone, as the paper writes them), source
            ("paper" for a table of CLIP-Adapter's, else "published"), digitised (read off a plot,
            to 0.2 points), note (what is odd about it), and why there can be no difference: ""
            where ours was measured on the same, else SETTING (another data set, backbone,
            preprocessing or number of shots), METHOD (another method, or prompts of its own) or
            INCOMPLETE (not known to be of the whole data set).
        numbers: {name of a number: value, deviation and seeds of each cell}.
        systems: those that were not left out, in order.
        few: whether there is nothing to compare; a recipe of one system does not mean to.
    """

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan, self.recipe = plan, plan.recipe
        rows = [row for planned in plan.planned() for row in _rows(*planned, results)]
        self.runs: Frame = pd.DataFrame(
            rows, columns=[*CELL, "setting", "key", "failure", "record", "chosen", *SCORES]
        ).astype(dict.fromkeys(SCORES, float))
        self.systems = [s for s in self.recipe.systems if s.label in set(self.runs.label)]
        self.few = len(self.systems) < min(2, len(self.recipe.systems))
        own = self.runs.query("test_set == dataset")
        by_setting = own.groupby([*PLACE, "setting"], sort=False).top1.mean()
        places = by_setting.groupby(PLACE, sort=False)
        failures = own.groupby(PLACE).failure.agg(lambda why: [*why.dropna().unique()])
        best = by_setting.fillna(-1).groupby(PLACE, sort=False).transform("idxmax") if rows else []
        shown = pd.MultiIndex.from_frame(self.runs[[*PLACE, "setting"]]).isin(set(best))
        cells = self.runs[shown].groupby(CELL, sort=False)
        # Rounded, as the error of a sum would decide how a tie is shown.
        means: Frame = (
            cells[SCORES]
            .agg(["mean", "std", "count"])
            .round(12)
            .rename(columns={"mean": "value", "std": "deviation", "count": "seeds"})
        )
        same_shots = cells.record.agg(_same_shots).astype(bool)
        self.cells: Frame = (
            means.top1.assign(
                same_shots=same_shots,
                repeated=same_shots & (means.top1.deviation == 0),
                wanted=cells.size(),
                records=cells.record.agg(_known),
                chosen=cells.chosen.agg(_known).map(_in_words),
            )
            .join(places.agg(settings="size", best_of="count"), on=PLACE)
            .join(failures.rename("failures"), on=PLACE)
            .reset_index()
        )
        self.cells["deviation"] = self.cells.deviation.mask(self.cells.repeated)
        self.numbers: dict[str, Frame] = {n: means[n].reset_index(drop=True) for n in SCORES}
        systems = {system.label: system for system in self.systems}
        published = [
            _counterpart(self.recipe, systems[c.label], c) for c in self.cells.itertuples()
        ]
        self.cells[PUBLISHED] = pd.DataFrame(published, columns=PUBLISHED).astype({"theirs": float})
        labels = dict.fromkeys(("dataset", "test_set"), self.recipe.labels)
        if (self.recipe.profile, self.recipe.columns) == ("features", "backbone"):
            self._name_backbones()
        self.cells, self.runs = self.cells.replace(labels), self.runs.replace(labels)

    def _name_backbones(self) -> None:
        """Call the backbone of each file as the file does, where it does."""
        told = self.runs.set_index("dataset").record.dropna()
        names = {data: name for data, r in told.items() if (name := r["backbone"]["name"])}
        for frame in (self.cells, self.runs):
            frame["backbone"] = frame.dataset.map(names).fillna(frame.backbone)

    @property
    def columns(self) -> Frame:
        """Every data set, backbone and shots once, in order, on its own test set."""
        return self.cells.query("test_set == dataset")[CELL[1:]].drop_duplicates()

    def shown_as(self, label: str) -> str:
        """``label``; a system that read the test set to choose says so."""
        cells = self.cells[(self.cells.label == label) & (self.cells.settings > 1)]
        counts = sorted(set(cells.best_of) - {0})
        count = " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]])))
        return f"{label} (best of {count} on the test set)" if counts else label


def _rows(system: System, setting: int, run: Run, results: Results) -> list[dict[str, Any]]:
    """A run on its own test set, and on each shifted one."""
    record = results.read(run)
    known = record or {}
    chosen = known.get("chosen", {})
    if known and len(system.settings(run.protocol)) > 1:
        chosen = {name: run.options[name] for name in system.search}
    row = {
        **{name: getattr(run, name) for name in ("dataset", "backbone", "shots", "key")},
        **{"label": system.label, "setting": setting, "test_set": run.dataset},
        **{"record": record, "chosen": chosen if known else None},
        "failure": None if known else results.failure(run),
        **{name: known.get(name) for name in SCORES},
    }
    shifts = known.get("shifts", {})
    return [row, *(row | {"top1": None, "test_set": n, **shifts.get(n, {})} for n in run.shifts)]


def _same_shots(records: Frame) -> bool:
    """Whether several seeds are known to have learned from the same shots."""
    shots = [record.get("train_digest") for record in records.dropna()]
    return len(shots) > 1 and len(set(shots)) == 1 and shots[0] is not None


def _known(values: Frame) -> list[Any]:
    return values.dropna().tolist()


def _in_words(choices: Sequence[Mapping[str, Any]]) -> str:
    """One choice where all seeds have the same, else one for each; its name once, if it can be."""
    words = [
        # A choice of several things names them itself.
        ", ".join(
            shown(value)
            if isinstance(value, Mapping)
            else f"{name} {', '.join(map(shown, value if isinstance(value, list) else [value]))}"
            for name, value in chosen.items()
        )
        for chosen in choices
    ]
    first = words[0].partition(" ")[0] + " " if words else ""
    if len(set(words)) > 1 and all(w.startswith(first) and ", " not in w for w in words):
        return first + " / ".join(word.removeprefix(first) for word in words)
    return " / ".join(words if len(set(words)) > 1 else words[:1])


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
            types = dict.fromkeys(needed.split(), str) | NUMBER
            frames.append(
                pd.read_csv(path, usecols=needed.split(), dtype=types, keep_default_na=False)
            )
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
        dataset=few.dataset.replace({"fgvc": "fgvc_aircraft"}),
    )
    whole = pd.concat([tables.assign(digitised=False), few], ignore_index=True)
    return whole.assign(
        text=[
            f"{value:.2f}" if unit == "%" else f"{value:g}{'+' * ('or more' in note)} {unit}"
            for value, unit, note in zip(whole.value, whole.unit, whole.note, strict=True)
        ]
    )


def paper_backbone(name: str) -> str:
    """``ViT-B-16/openai`` -> ``ViT-B/16``, ``RN50/openai`` -> ``RN50``; others as they are."""
    printed = re.sub(r"^ViT-([BLH])-", r"ViT-\1/", name.removesuffix("/openai"))
    return printed if name.endswith("/openai") else name


def table_number(recipe: Recipe) -> int:
    """5 for a recipe of "Table 5"; 0 for figures and recipes of one's own."""
    match = re.fullmatch(r"Table (\d+)", recipe.source)
    return int(match[1]) if match else 0


@cache
def published_rows(table: int) -> dict[str, list[Any]]:
    """The numbers of a table of the paper, or those by shots (0), by the name of the row."""
    return {
        str(row): list(group.itertuples(index=False))
        for row, group in load_published().query("table == @table").groupby("row")
    }


def row_of(system: System, table: int) -> str:
    """The name of ``system`` in a table of the paper."""
    return system.of if not table or system.of in published_rows(table) else system.label


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
        return (None,) * len(PUBLISHED)
    figure = next((f for f in figures if f.backbone == own), figures[0])
    asked = own, recipe.style, cell.test_set
    if (figure.backbone, figure.style, dataset) != asked or figure.shots not in shots:
        why = SETTING
    # The table says which rows have prompts of their own, but not what others call a row.
    elif (system.prompts and (not table or name == system.of)) or (
        METHODS.get(name, system.method if table else "") != system.method
    ):
        why = METHOD
    else:
        why = "" if recipe.profile == "paper" and _whole(cell) else INCOMPLETE
    return (
        figure.value,
        f"{figure.dataset}, {figure.backbone}",
        "paper" if table else "published",
        why,
        figure.digitised,
        figure.note,
    )


def _whole(cell: Any) -> bool:
    """Whether all records are of all classes and of all test pictures of the paper's data set."""
    if any(known_benchmark(name) != name for name in (cell.dataset, cell.test_set)):
        return not cell.records
    wanted = get_benchmark(cell.dataset).classes, get_benchmark(cell.test_set).sizes["test"]
    # A copy is split its own way, so its shots are others.
    return all(
        not (record.get("skipped") or part.get("test_skipped") or record.get("copy_of"))
        and (record.get("classes"), part.get("n")) == wanted
        for record in cell.records
        for part in [record.get("shifts", {}).get(cell.test_set, record)]
    )
