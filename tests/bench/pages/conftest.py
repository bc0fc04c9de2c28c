"""Plans and results that nobody ran: every number is known beforehand."""

import re

import pytest

from clip_adapter.bench.data import Named
from clip_adapter.bench.frame import Findings
from clip_adapter.bench.plan import make_plan
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.bench.results import Results
from clip_adapter.bench.tables import Table, tables
from clip_adapter.datasets.catalog import get_benchmark, known_benchmark
from clip_adapter.errors import DataError


class Pretended(Named):
    """A data set of which only the name is real."""

    def __init__(self, name, reason):
        super().__init__(name)
        self.identity, self._reason = f"digest of {name}", reason

    def lacks(self, method, prompts=()):
        if self.name == "textless" and method.needs_text:
            return "no text"
        return self._reason if method.reads == "images" else ""


class Read:
    """A table as its Markdown has it."""

    def __init__(self, table):
        self.caption, self.notes, self.chosen = table.caption, table.notes, []
        self.titles, self.rows = self._read(table.entries)
        if len(table.chosen):
            self.chosen = list(self._read(table.chosen)[1].values())

    @staticmethod
    def _read(entries):
        text = Table("", "", entries).markdown()
        lines = [re.split(r"\s*(?<!\\)\|\s*", line)[1:-1] for line in text.splitlines()]
        (_, *titles), _, *rows = lines
        return titles, {label: cells for label, *cells in rows}

    def cell(self, label, title):
        """Of the first row whose label begins so."""
        row = next(row for name, row in self.rows.items() if name.startswith(label))
        return row[self.titles.index(title)]


class Bench:
    """Results in a folder, and plans of recipes on pretended data."""

    def __init__(self, folder):
        self.results = Results(folder / "results")

    def plan(self, name, profile="demo", reason="", missing=(), **overrides):
        """The plan of a recipe; ``reason`` leaves out what reads images."""

        def data(dataset):
            if dataset in missing:
                raise DataError(f"no {dataset}")
            return Pretended(dataset, reason)

        return make_plan(load_recipe(name, profile, overrides), data)

    def fill(self, plan, top1, **more):
        """A record for each run; ``top1(run)`` is its accuracy, None leaves it out."""

        def size(name):
            return get_benchmark(name).sizes["test"] if known_benchmark(name) else 200

        for run in plan.runs().values():
            accuracy, known = top1(run), known_benchmark(run.dataset)
            record = {
                "top1": accuracy,
                "n": size(run.dataset),
                "classes": get_benchmark(run.dataset).classes if known else 5,
                "shifts": {s: {"top1": (accuracy or 0) - 10, "n": size(s)} for s in run.shifts},
                "chosen": {},
                **more,
            }
            if accuracy is not None:
                self.results.write(run, record)
        return plan

    def findings(self, *words, top1=lambda run: 60.0, more=None, **changes):
        """What was found of a recipe that is filled with ``top1``."""
        return Findings(self.fill(self.plan(*words, **changes), top1, **more or {}), self.results)

    def tables(self, *words, **changes):
        """The tables of :meth:`findings`."""
        return list(map(Read, tables(self.findings(*words, **changes))))


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench")
