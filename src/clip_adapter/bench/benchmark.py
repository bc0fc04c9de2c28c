"""``run_bench``: recipes to runs, runs to results. What is there is not done again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clip_adapter.bench.data import Environment
from clip_adapter.bench.plan import Plan, make_plans, save_plan
from clip_adapter.bench.pool import Done, do_units
from clip_adapter.bench.results import FOLDER, Results
from clip_adapter.bench.run import Run, units
from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import check_folder, writing
from clip_adapter.reporting import Progress, listening, log, tracking


@dataclass
class Outcome:
    """What a call did.

    Attributes:
        plans: of every recipe.
        results: where the results are.
        done: runs that were made now.
        present: runs whose result was there.
        failed: {title of a run: why}.
    """

    plans: list[Plan]
    results: Results
    done: int = 0
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """Data sets that cannot be read, with the reason."""
        return {name: why for plan in self.plans for name, why in plan.missing.items()}

    def note(self, unit: Sequence[Run], done: Done) -> None:
        """Write the results of ``unit``, or why it failed.

        Raises:
            DataError: a result cannot be written.
        """
        for run in unit if done.error else ():
            self.failed[run.title] = done.error
            with contextlib.suppress(DataError):  # told all the same
                self.results.fail(run, done.error, done.trace)
        for run, record in zip(unit, done.records, strict=False):
            self.results.write(run, record)
            self.done += 1


def run_bench(
    recipes: Sequence[str],
    *,
    profile: str,
    environment: Environment,
    overrides: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    again: bool = False,
    progress: Progress = None,
    cancel: threading.Event | None = None,
) -> Outcome:
    """Do every run of ``recipes`` that has no result yet.

    Each unit of runs is done in a process of one thread, ``jobs`` of them side by side, so that
    the results do not depend on how many there are. Costs are measured after all else, alone. A
    run that fails is told, and the others go on; the next call tries it again.

    Args:
        recipes: names.
        profile: "paper", "demo" or "features".
        environment: where data is and results go.
        overrides: keys of :class:`~clip_adapter.bench.recipe.Recipe`, stronger than the files.
        jobs: processes; None is one for each core.
        again: make the results that are there once more.
        progress: hears how many runs have a result, see
            :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends after the runs that are done.

    Raises:
        UsageError: an unknown recipe, profile or key, or another benchmark works in the folder.
        DataError: results cannot be written.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} jobs.", allowed="1 or more")
    out = Path(environment.out)
    with listening(progress, cancel), _alone(out):
        plans = make_plans(recipes, profile, environment, overrides)
        for plan in plans:
            save_plan(plan, out)
        outcome = Outcome(plans, Results(out / FOLDER))
        runs = {key: run for plan in plans for key, run in plan.runs().items()}
        waiting: list[list[Run]] = []
        for unit in units(runs.values()):
            # Read every one, so that every damaged one is told.
            known = [outcome.results.read(run) is not None for run in unit]
            if all(known) and not again:
                outcome.present += len(unit)
            else:
                waiting.append(unit)
        outcome.results.set_aside()
        cores = os.cpu_count() or 1
        # A process keeps its data set open, so those of one set follow each other.
        names = list(dict.fromkeys(unit[0].dataset for unit in waiting))
        waiting.sort(key=lambda unit: names.index(unit[0].dataset))
        shared = [unit for unit in waiting if unit[0].measure != "cost"]
        costs = [unit for unit in waiting if unit[0].measure == "cost"]
        # All threads, one after the other, each in a new process: times and memory are its own.
        whole = dataclasses.replace(environment, threads=cores)
        parts = ((shared, environment, jobs or cores, False), (costs, whole, 1, True))
        heard: set[str] = set()
        with tracking("Runs", len(runs), "runs") as tracker:
            for unit, done in (each for part in parts if part[0] for each in do_units(*part)):
                lines = done.lines
                if done.error:
                    lines = [*lines, f"Failed: {unit[0].title}: {done.error.splitlines()[0]}"]
                for line in lines:  # once, however many processes read the same data
                    if line not in heard:
                        heard.add(line)
                        log.info(line)
                try:
                    outcome.note(unit, done)
                except DataError as error:
                    raise DataError(
                        f"The benchmark stopped: {error}",
                        hint="What was done is kept: the same command goes on.",
                    ) from error
                tracker.at(outcome.present + outcome.done + len(outcome.failed))
    return outcome


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Alone in the folder ``out``."""
    check_folder(out)
    lock = FileLock(out / ".bench.lock", timeout=0)
    try:
        with writing(out / ".bench.lock", "name another --out"):
            lock.acquire()
    except Timeout:
        raise UsageError(
            f"Another benchmark works in {out}.", hint="Wait for it, or name another --out."
        ) from None
    try:
        yield
    finally:
        lock.release()
