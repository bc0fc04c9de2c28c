"""``Measured``: what the runs of one cell of a table found, over seeds; and where it stands."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clip_adapter.bench.recipe import Recipe, System
from clip_adapter.bench.results import Record, Results
from clip_adapter.bench.runs import Plan, Run
from clip_adapter.training.selection import shown

CellKey = tuple[str, str, str, int]
Read = Callable[[Record], float | None]


@dataclass(frozen=True)
class Place:
    """A column: where something is measured.

    Attributes:
        dataset: that the runs are trained on.
        backbone: as ``--backbone`` has it.
        shots: K.
        shift: the test set, where it is another one.
    """

    dataset: str
    backbone: str
    shots: int
    shift: str = ""

    @property
    def test_set(self) -> str:
        """What is answered."""
        return self.shift or self.dataset


@dataclass(frozen=True)
class Number:
    """A mean over seeds.

    Attributes:
        mean: of the seeds that have a result.
        deviation: of the sample; None for fewer than two.
        seeds: how many have a result.
    """

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class Measured:
    """The runs of a cell.

    Attributes:
        records: of the seeds that have one.
        wanted: runs that there should be.
        failures: reasons of those that failed.
        outdated: reasons of those whose last attempt failed, but that have an older result.
        best_of: settings with a result, of which the best on the test set is taken; 0 where none.
        settings: those that there should be.
        setting: the option that was searched, and the value taken.
    """

    records: tuple[Record, ...] = ()
    wanted: int = 0
    failures: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    best_of: int = 0
    settings: int = 0
    setting: Mapping[str, Any] = field(default_factory=dict)

    def number(self, read: Read) -> Number | None:
        """What ``read`` finds in the records; None where it finds nothing."""
        found = [value for record in self.records if (value := read(record)) is not None]
        if not found:
            return None
        spread = statistics.stdev(found) if len(found) > 1 else None
        return Number(statistics.fmean(found), spread, len(found))

    def chosen(self) -> str:
        """What was chosen, in words: by seed where they differ; "" where nothing was."""
        if self.best_of:
            return ", ".join(f"{k} {shown(v)}" for k, v in self.setting.items())
        told = [_choice(record.get("chosen", {})) for record in self.records]
        if len(set(told)) <= 1:
            return told[0] if told else ""
        first = told[0].partition(" ")[0] + " "
        if all(word.startswith(first) and ", " not in word for word in told):
            return first + " / ".join(word.removeprefix(first) for word in told)
        return " / ".join(told)


def _choice(chosen: Mapping[str, Any]) -> str:
    """A choice of several things names them itself."""
    return ", ".join(
        shown(v) if isinstance(v, Mapping) else f"{k} {_plain(v)}" for k, v in chosen.items()
    )


def _plain(value: Any) -> str:
    return ", ".join(map(shown, value)) if isinstance(value, list) else shown(value)


def first_line(reason: str) -> str:
    """Of why a run failed: enough for a page."""
    return reason.splitlines()[0] if reason else "unknown"


def again(reason: str) -> str:
    """Of a cell whose last attempt failed for ``reason``."""
    return f"An older result; the last attempt failed: {first_line(reason)}"


def top1(shift: str = "") -> Read:
    """Reads the accuracy, on ``shift`` where that is given."""

    def read(record: Record) -> float | None:
        if shift:
            return record.get("shifts", {}).get(shift, {}).get("top1")
        return record.get("top1")

    return read


def field_of(name: str, factor: float = 1.0) -> Read:
    """Reads the number ``name``, times ``factor``."""

    def read(record: Record) -> float | None:
        value = record.get(name)
        return None if value is None else factor * value

    return read


class Findings:
    """All that a plan's runs found, and its places and systems in order."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan, self.recipe = plan, plan.recipe
        self.measured = {
            key: _measured(self.recipe, key[0], cell, results) for key, cell in plan.cells.items()
        }
        labels = {key[0] for key in plan.cells}
        self.systems: list[System] = [s for s in self.recipe.systems if s.label in labels]

    def places(self) -> list[Place]:
        """Data set, backbone and shots of every cell, in the order of the plan."""
        return list(dict.fromkeys(Place(*key[1:]) for key in self.plan.cells))

    def at(self, label: str, place: Place) -> Measured:
        """What the system ``label`` found there; nothing where it was left out."""
        key = (label, place.dataset, place.backbone, place.shots)
        return self.measured.get(key, Measured())

    def runs(self, label: str, place: Place) -> bool:
        """Whether the system ``label`` can be run there."""
        return (label, place.dataset, place.backbone, place.shots) in self.measured

    def accuracy(self, label: str, place: Place) -> Number | None:
        """In percent."""
        return self.at(label, place).number(top1(place.shift))

    def any(self) -> bool:
        """Whether there is a result at all."""
        return any(found.records for found in self.measured.values())

    def shown_as(self, label: str) -> str:
        """``label``; a system that read the test set to choose says so."""
        found = {m.best_of for key, m in self.measured.items() if key[0] == label and m.best_of}
        if not found:
            return label
        low, high = min(found), max(found)
        count = str(low) if low == high else f"{low} to {high}"
        return f"{label} (best of {count} on the test set)"

    def chosen_on_test(self) -> bool:
        """Whether anything here was chosen on the test set."""
        return any(m.best_of for m in self.measured.values())


def _measured(recipe: Recipe, label: str, cell: list[list[Run]], results: Results) -> Measured:
    """The only candidate, or the one whose mean on the test set is best."""
    found = [_candidate(runs, results) for runs in cell]
    if len(found) == 1:
        return found[0]
    (searched,) = next(s for s in recipe.systems if s.label == label).search
    settings = [{searched: runs[0].options[searched]} for runs in cell]
    done = [i for i, m in enumerate(found) if m.number(top1()) is not None]
    failures = tuple(dict.fromkeys(reason for m in found for reason in m.failures))
    outdated = tuple(dict.fromkeys(reason for m in found for reason in m.outdated))
    if not done:
        return Measured((), len(cell[0]), failures, outdated, settings=len(cell))
    best = max(done, key=lambda i: _mean(found[i]))
    return Measured(
        found[best].records,
        len(cell[best]),
        failures,
        outdated,
        len(done),
        len(cell),
        settings[best],
    )


def _mean(measured: Measured) -> float:
    number = measured.number(top1())
    return -1.0 if number is None else number.mean


def _candidate(runs: Iterable[Run], results: Results) -> Measured:
    records, wanted = [], 0
    failures, outdated = dict[str, None](), dict[str, None]()
    for run in runs:
        wanted += 1
        record, reason = results.read(run), results.failure(run)
        if record is not None:
            records.append(record)
        if reason:
            (failures if record is None else outdated)[reason] = None
    return Measured(tuple(records), wanted, tuple(failures), tuple(outdated))
