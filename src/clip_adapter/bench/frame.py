"""The results of a plan as one frame, and the cells of its tables: means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from clip_adapter.bench.plan import Plan, Planned
from clip_adapter.bench.recipe import System
from clip_adapter.bench.results import NUMBERS, Results
from clip_adapter.training.selection import shown

# What a cell is of: a row's label; the set that it was trained on, seen through a backbone, and K
# shots of it; the test set, which is a shifted one where it is not that of the first.
CELL = ["label", "dataset", "backbone", "shots", "test_set"]
PLACE = CELL[:-1]
FACTS = ["value", "deviation", "seeds", "wanted", "best_of", "settings", "chosen", "failures", "runs"]


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
        numbers = ["top1", *NUMBERS]
        names = [*CELL, "setting", "key", "failure", "record", *numbers]
        self.runs = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(numbers, float))
        self.systems = [s for s in self.recipe.systems if s.label in set(self.runs.label)]
        by_label = {system.label: system for system in self.systems}
        places = self.runs.groupby(PLACE, sort=False)
        cells = [cell for key, runs in places for cell in self._cells(by_label[key[0]], runs)]
        self.cells = pd.DataFrame(cells, columns=[*CELL, *FACTS])

    def _cells(self, system: System, runs: pd.DataFrame) -> list[dict[str, Any]]:
        """By test set: of the only setting, or of the best on the own test set."""
        settings = system.settings(self.recipe.protocol)
        own = runs[runs.test_set == runs.dataset]
        means = own.dropna(subset="top1").groupby("setting").top1.agg(statistics.fmean)
        best = int(means.idxmax()) if len(means) else 0
        choices = [record.get("chosen", {}) for record in own.record[own.setting == best].dropna()]
        if len(settings) > 1:
            choices = [{key: settings[best][key] for key in system.search}][: len(means)]
        facts = {
            "settings": len(settings),
            "best_of": len(means),
            "chosen": _in_words(choices),
            "failures": own.failure[own.record.isna()].dropna().unique().tolist(),
        }
        return [
            kept[CELL].iloc[0].to_dict()
            | mean_of(kept.top1)
            | facts
            | {"wanted": len(kept), "runs": kept}
            for _, kept in runs[runs.setting == best].groupby("test_set", sort=False)
        ]

    @property
    def columns(self) -> pd.DataFrame:
        """Every data set, backbone and shots once, in order, on its own test set."""
        own = self.cells[self.cells.test_set == self.cells.dataset]
        return own[CELL[1:]].drop_duplicates()

    def shown_as(self, label: str) -> str:
        """``label``; a system that read the test set to choose says so."""
        cells = self.cells[(self.cells.label == label) & (self.cells.settings > 1)]
        counts = sorted(set(cells.best_of) - {0})
        count = " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]])))
        return f"{label} (best of {count} on the test set)" if counts else label


def _rows(planned: Planned, results: Results) -> list[dict[str, Any]]:
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


def mean_of(values: pd.Series) -> dict[str, Any]:
    """Mean, deviation of the sample, and seeds of a number; NaN where there are too few."""
    known = values.dropna().tolist()
    return {
        "value": statistics.fmean(known) if known else float("nan"),
        "deviation": statistics.stdev(known) if len(known) > 1 else float("nan"),
        "seeds": len(known),
    }


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
