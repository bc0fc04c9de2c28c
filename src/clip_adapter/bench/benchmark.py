"""``run_bench``: recipes to runs, runs to results. What is there is not done again."""

from __future__ import annotations

import clip_adapter.bench.extra  # noqa: F401

# isort: split

import contextlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from pebble import ProcessExpired, ProcessPool

from clip_adapter.bench.data import Environment
from clip_adapter.bench.execute import Done, do_unit
from clip_adapter.bench.plan import Plan, make_plans, save_plan
from clip_adapter.bench.results import FOLDER, Results, Run
from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import check_folder, writing
from clip_adapter.reporting import Progress, listening, log, tracking

# Runs that are trained in one pass: bounds what a kill can cost, and the memory.
MOST_TOGETHER = 24
LOG, THREADS = ".bench.log", "OMP_NUM_THREADS"


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
    out, cores = Path(environment.out), os.cpu_count() or 1
    with listening(progress, cancel), alone(out):
        plans = make_plans(recipes, profile, environment, overrides)
        for plan in plans:
            save_plan(plan, out)
        outcome = Outcome(plans, Results(out / FOLDER))
        runs = {key: run for plan in plans for key, run in plan.runs().items()}
        # Each is read, so that every damaged one is told.
        known = {key: outcome.results.read(run) is not None for key, run in runs.items()}
        outcome.results.set_aside()
        waiting = [
            unit
            for unit in units(runs.values())
            if again or not all(known[run.key] for run in unit)
        ]
        outcome.present = len(runs) - sum(map(len, waiting))
        waiting.sort(key=lambda unit: unit[0].dataset)  # a process keeps its data set open
        parts = (
            ([u for u in waiting if u[0].measure != "cost"], environment, jobs or cores, False),
            # All threads, one after the other, each in a new process: time and memory are its own.
            (
                [u for u in waiting if u[0].measure == "cost"],
                replace(environment, threads=cores),
                1,
                True,
            ),
        )
        heard: set[str] = set()
        with tracking("Runs", len(runs), "runs") as tracker:
            for unit, done in itertools.chain(*(do_units(*part) for part in parts if part[0])):
                if done.error and done.error not in outcome.failed.values():  # each reason once
                    done.lines.append(f"Failed: {unit[0].title}: {done.error.splitlines()[0]}")
                for line in done.lines:  # once, however many processes read the same data
                    if line not in heard:
                        heard.add(line)
                        log.info(line)
                for run in unit if done.error else ():
                    outcome.failed[run.title] = done.error
                    with contextlib.suppress(DataError):  # told all the same
                        outcome.results.fail(run, done.error, done.trace)
                try:
                    for run, record in zip(unit, done.records, strict=False):
                        outcome.results.write(run, record)
                        outcome.done += 1
                except DataError as error:
                    raise DataError(
                        f"The benchmark stopped: {error}",
                        hint="What was done is kept: the same command goes on.",
                    ) from error
                tracker.at(outcome.present + outcome.done + len(outcome.failed))
    return outcome


def do_units(
    units: Sequence[Sequence[Run]], environment: Environment, jobs: int, fresh: bool = False
) -> Iterator[tuple[Sequence[Run], Done]]:
    """Each unit with what came of it, in the order in which they end.

    All processes end with this iterator, whatever they do.

    Args:
        units: runs of one data set each.
        environment: where data is; ``threads`` is how many each process gets.
        jobs: processes.
        fresh: each unit is done in a new process.
    """
    output, before = Path(environment.out) / LOG, os.environ.get(THREADS)
    os.environ[THREADS] = str(environment.threads)  # read when a worker loads its libraries
    pool = ProcessPool(
        max_workers=min(jobs, len(units)),
        max_tasks=int(fresh),
        initializer=_begin,
        initargs=(str(output),),
        context=multiprocessing.get_context("spawn"),
    )
    try:
        futures: dict[Any, Sequence[Run]] = {
            pool.schedule(do_unit, args=(environment, unit)): unit for unit in units
        }
        for future in as_completed(futures):
            try:
                done = future.result()
            except ProcessExpired as error:
                code = error.exitcode or 0
                how = f"signal {-code}, maybe for want of memory" if code < 0 else f"code {code}"
                done = Done(error=f"The process ended by {how}.", trace=f"See {output}.")
            yield futures[future], done
    finally:
        pool.stop()
        pool.join()
        del os.environ[THREADS]
        os.environ |= {} if before is None else {THREADS: before}


def _begin(output: str) -> None:
    """Ready a new process: its end, and what libraries print."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    log.setLevel("INFO")


def _end_with_parent() -> None:
    """End this process with the one that started it, whatever it is doing."""
    cast("multiprocessing.Process", multiprocessing.parent_process()).join()
    os._exit(1)


def units(runs: Iterable[Run]) -> list[list[Run]]:
    """``runs`` in groups that are trained in one pass; most are alone."""
    groups: dict[Hashable, list[Run]] = {}
    for number, run in enumerate(runs):
        own = run.instance().together_key() if run.measure == "accuracy" else None
        # Methods of one name are of one class.
        shared = number if own is None else (replace(run, options={}, seed=0).key, own)
        groups.setdefault(shared, []).append(run)
    return [
        group[start : start + MOST_TOGETHER]
        for group in groups.values()
        for start in range(0, len(group), MOST_TOGETHER)
    ]


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Alone in the folder ``out``, which is made.

    Raises:
        UsageError: it is no folder, or another benchmark works there.
        DataError: it cannot be written.
    """
    check_folder(out)
    path = out / ".bench.lock"
    with writing(path, "name another --out"):
        try:
            held = FileLock(path, timeout=0).acquire()
        except Timeout:
            raise UsageError(
                f"Another benchmark works in {out}.", hint="Wait for it, or name another --out."
            ) from None
    with held:
        yield
