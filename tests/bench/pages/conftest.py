"""Plans and results that nobody ran: every number is known beforehand."""

import pytest

from clip_adapter.bench.recipe import load_recipe
from clip_adapter.bench.results import Results
from clip_adapter.bench.runs import plan
from clip_adapter.datasets.catalog import get_benchmark, known_benchmark
from clip_adapter.errors import DataError


class Pretended:
    """A data set of which only the name is real."""

    takes_prompts = True

    def __init__(self, name, reason):
        self.name, self._reason = name, reason

    def identity(self):
        return f"digest of {self.name}"

    def shots(self, wanted):
        return list(wanted)

    def lacks(self, method):
        if self.name == "textless" and method.needs_text:
            return "no text"
        return self._reason if method.reads == "images" else ""


def pictures(name):
    """All that a test set has."""
    return get_benchmark(name).sizes["test"] if known_benchmark(name) else 200


class Bench:
    """Results in a folder, and plans of recipes on pretended data."""

    def __init__(self, folder):
        self.said = []
        self.results = Results(folder / "results", self.said.append)

    def plan(self, name, profile="demo", reason="", missing=(), **overrides):
        """The plan of a recipe; ``reason`` leaves out what reads images."""

        def data(dataset):
            if dataset in missing:
                raise DataError(f"no {dataset}")
            return Pretended(dataset, reason)

        return plan(load_recipe(name, profile, overrides), data)

    def fill(self, made, top1, **more):
        """A record for each run; ``top1(run)`` is its accuracy, None leaves it out."""
        for run in made.runs:
            accuracy = top1(run)
            if accuracy is not None:
                shifts = {s: {"top1": accuracy - 10, "n": pictures(s)} for s in run.shifts}
                record = {
                    "top1": accuracy,
                    "n": pictures(run.dataset),
                    "classes": get_benchmark(run.dataset).classes
                    if known_benchmark(run.dataset)
                    else 5,
                    "shifts": shifts,
                    "chosen": {},
                    **more,
                }
                self.results.write(run, record)
        return made


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench")
