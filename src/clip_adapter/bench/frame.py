"""The results of a plan as one frame, and the cells of its tables: means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from clip_adapter.bench.plan import Plan, Planned
from clip_adapter.bench.results import NUMBERS, Results
from clip_adapter.training.selection import shown

# What a cell is of: a row's label; the set that it was trained on, seen through a backbone, and K
# shots of it; the test set, which is a shifted one where it is not that of the first.
CELL = ["label", "dataset", "backbone", "shots", "test_set"]
PLACE = CELL[:-1]
SCORES = ["top1", *NUMBERS]
Frame = Any  # a pandas frame: what its columns hold is said where it is made


class Findings:
    """All that the runs of a plan found.

    Attributes:
        plan: what was asked for.
        recipe: of the plan.
        runs: a row for each run and test set: ``CELL``, setting (its number), key, failure, record,
            chosen, and the numbers of the record.
        cells: a row for each cell, in order: ``CELL``; value, deviation (of the sample) and seeds
            of top1, NaN where there are too few; wanted (seeds); settings and best_of (those with a
            result, of which the best on the test set is taken); chosen (in words); failures (why
            runs have no result); and its records.
        numbers: {name of a number: value, deviation and seeds of each cell}.
        systems: those that were not left out, in order.
    """

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan, self.recipe = plan, plan.recipe
        rows = [row for planned in plan.planned() for row in _rows(planned, results)]
        names = [*CELL, "setting", "key", "failure", "record", "chosen", *SCORES]
        self.runs: Frame = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(SCORES, float))
        self.systems = [s for s in self.recipe.systems if s.label in set(self.runs.label)]
        own = self.runs[self.runs.test_set == self.runs.dataset]
        by_setting = own.groupby([*PLACE, "setting"], sort=False).top1.mean()
        by_place, places = by_setting.groupby(PLACE, sort=False), own.groupby(PLACE, sort=False)
        facts: Frame = pd.DataFrame(
            {
                "settings": by_place.size(),
                "best_of": by_place.count(),
                "failures": places.failure.agg(_each_once),
            }
        )
        best = by_setting.fillna(-1).groupby(PLACE, sort=False).transform("idxmax") if rows else []
        setting = pd.MultiIndex.from_frame(self.runs[[*PLACE, "setting"]])
        cells = self.runs[setting.isin(set(best))].groupby(CELL, sort=False)
        # Rounded, as the error of a sum would decide how a tie is shown.
        means = cells[SCORES].agg(["mean", "std", "count"]).round(12)
        means = means.rename(columns={"mean": "value", "std": "deviation", "count": "seeds"})
        lists = {
            "records": cells.record.agg(_known),
            "chosen": cells.chosen.agg(_known).map(_in_words),
        }
        own = means.top1.assign(wanted=cells.size(), **lists)
        self.cells: Frame = own.join(facts, on=PLACE).reset_index()
        self.numbers: dict[str, Frame] = {
            name: means[name].reset_index(drop=True) for name in SCORES
        }

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


def _rows(planned: Planned, results: Results) -> list[dict[str, Any]]:
    """A run on its own test set, and on each shifted one."""
    system, setting, run = planned
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
    shifts = {name: known.get("shifts", {}).get(name, {}).get("top1") for name in run.shifts}
    return [row, *(row | {"test_set": name, "top1": top1} for name, top1 in shifts.items())]


def _known(values: Frame) -> list[Any]:
    """Those that are there."""
    return values.dropna().tolist()


def _each_once(values: Frame) -> list[Any]:
    return list(dict.fromkeys(_known(values)))


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
