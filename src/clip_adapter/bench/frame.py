"""The results of a plan as one frame, and the cells of its tables: means over seeds."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import pandas as pd

from clip_adapter.bench.plan import Plan, Planned
from clip_adapter.bench.recipe import System
from clip_adapter.bench.results import NUMBERS, Record, Results
from clip_adapter.training.selection import shown

# What a cell is of: a row's label; the set that it was trained on, seen through a backbone, and K
# shots of it; the test set, which is a shifted one where it is not that of the first.
CELL = ["label", "dataset", "backbone", "shots", "test_set"]
PLACE = CELL[:-1]
Row = dict[str, Any]
Frame = Any  # a pandas frame: what its columns hold is said where it is made
FACTS = [
    "value",
    "deviation",
    "seeds",
    "wanted",
    "best_of",
    "settings",
    "chosen",
    "failures",
    "runs",
]


class Findings:
    """All that the runs of a plan found.

    Attributes:
        plan: what was asked for.
        recipe: of the plan.
        runs: a row for each run and test set: ``CELL``, setting (its number), key, failure, record,
            and the numbers of the record.
        cells: a row for each cell, in order: ``CELL``, the :func:`mean_of` top1, wanted (seeds),
            settings and best_of (those with a result, of which the best on the test set is taken),
            chosen (in words), failures (why runs have no result), and its runs.
        systems: those that were not left out, in order.
    """

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan, self.recipe = plan, plan.recipe
        rows = [row for planned in plan.planned() for row in _rows(planned, results)]
        names = [*CELL, "setting", "key", "failure", "record", "top1", *NUMBERS]
        self.runs: Frame = pd.DataFrame(rows, columns=names)
        self.systems = [s for s in self.recipe.systems if s.label in set(self.runs.label)]
        by_label = {system.label: system for system in self.systems}
        places = itertools.groupby(rows, itemgetter(*PLACE))
        cells = [cell for key, own in places for cell in self._cells(by_label[key[0]], list(own))]
        self.cells: Frame = pd.DataFrame(cells, columns=[*CELL, *FACTS])

    def _cells(self, system: System, runs: list[Row]) -> list[Row]:
        """By test set: of the only setting, or of the best on the own test set."""
        settings = system.settings(self.recipe.protocol)
        own = [run for run in runs if run["test_set"] == run["dataset"]]
        by_setting = [[run for run in own if run["setting"] == i] for i in range(len(settings))]
        means = {i: mean_of(part, "top1")["value"] for i, part in enumerate(by_setting)}
        known = {i: mean for i, mean in means.items() if mean == mean}
        best = max(known, key=lambda i: known[i], default=0)
        choices = [record.get("chosen", {}) for record in records_of(by_setting[best])]
        if len(settings) > 1:
            choices = [{key: settings[best][key] for key in system.search}][: len(known)]
        facts = {
            "settings": len(settings),
            "best_of": len(known),
            "chosen": _in_words(choices),
            "failures": list(dict.fromkeys(run["failure"] for run in own if run["failure"])),
        }
        cells: list[Row] = []
        for name in dict.fromkeys(run["test_set"] for run in runs):
            kept = [run for run in runs if (run["test_set"], run["setting"]) == (name, best)]
            place = {key: kept[0][key] for key in CELL}
            numbers = {**mean_of(kept, "top1"), "wanted": len(kept), "runs": kept}
            cells.append(place | numbers | facts)
        return cells

    @property
    def columns(self) -> Frame:
        """Every data set, backbone and shots once, in order, on its own test set."""
        own = self.cells[self.cells.test_set == self.cells.dataset]
        return own[CELL[1:]].drop_duplicates()

    def shown_as(self, label: str) -> str:
        """``label``; a system that read the test set to choose says so."""
        cells = self.cells[(self.cells.label == label) & (self.cells.settings > 1)]
        counts = sorted(set(cells.best_of) - {0})
        count = " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]])))
        return f"{label} (best of {count} on the test set)" if counts else label


def _rows(planned: Planned, results: Results) -> list[Row]:
    """A run on its own test set, and on each shifted one."""
    label, setting, run = planned
    record = results.read(run)
    known = record or {}
    row = {name: getattr(run, name) for name in ("dataset", "backbone", "shots", "key")}
    row |= {"label": label, "setting": setting, "record": record, "test_set": run.dataset}
    row |= {name: known.get(name) for name in ("top1", *NUMBERS)}
    row["failure"] = results.failure(run) if record is None else None
    shifts = {name: known.get("shifts", {}).get(name, {}).get("top1") for name in run.shifts}
    return [row, *(row | {"test_set": name, "top1": top1} for name, top1 in shifts.items())]


def mean_of(runs: Sequence[Row], name: str) -> Row:
    """Mean, deviation of the sample, and seeds of a number; NaN where there are too few."""
    known = [run[name] for run in runs if run[name] is not None]
    return {
        "value": statistics.fmean(known) if known else float("nan"),
        "deviation": statistics.stdev(known) if len(known) > 1 else float("nan"),
        "seeds": len(known),
    }


def records_of(runs: Sequence[Row]) -> list[Record]:
    """Of the runs that have one."""
    return [run["record"] for run in runs if run["record"]]


def _in_words(choices: Sequence[Mapping[str, Any]]) -> str:
    """One choice where all seeds have the same, else one for each; its name once, if it can be."""
    words = [", ".join(_choice(*item) for item in chosen.items()) for chosen in choices]
    first = words[0].partition(" ")[0] + " " if words else ""
    if len(set(words)) > 1 and all(w.startswith(first) and ", " not in w for w in words):
        return first + " / ".join(word.removeprefix(first) for word in words)
    return " / ".join(words if len(set(words)) > 1 else words[:1])


def _choice(name: str, value: Any) -> str:
    """A choice of several things names them itself."""
    if isinstance(value, Mapping):
        return shown(value)
    return f"{name} {', '.join(map(shown, value)) if isinstance(value, list) else shown(value)}"
