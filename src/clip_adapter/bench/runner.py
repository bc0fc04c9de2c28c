"""``run_bench``: recipes to runs, runs to results. What is there is not done again."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clip_adapter.bench.child import Child
from clip_adapter.bench.data import Place, SetOfData, every_set, open_set
from clip_adapter.bench.plans import save_plan
from clip_adapter.bench.recipe import Recipe, load_recipe
from clip_adapter.bench.results import Results
from clip_adapter.bench.runs import Plan, Run, plan, units, weights_of
from clip_adapter.bench.worker import RESULTS
from clip_adapter.datasets.catalog import known_benchmark
from clip_adapter.errors import DataError, UsageError

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


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


def make_plans(
    recipes: Sequence[str],
    profile: str,
    place: Place,
    overrides: Mapping[str, Any] | None = None,
    say: Say = lambda line: None,
) -> list[Plan]:
    """The plan of every recipe; a data set that cannot be read is told in it.

    Args:
        recipes: names.
        profile: "paper", "demo" or "features".
        place: where data is.
        overrides: keys of :class:`Recipe`, stronger than the files.
        say: receives lines for the user.

    Raises:
        UsageError: an unknown recipe or profile, or features without the profile for them.
    """
    if (profile == "features") != (place.features is not None):
        raise UsageError(
            f"The profile {profile!r} {'without' if profile == 'features' else 'with'} a folder "
            "of features.",
            allowed="--profile features together with --features DIR",
        )
    if profile == "features":
        _refuse_for_features(place, overrides or {})
    loaded = [load_recipe(name, profile, overrides) for name in dict.fromkeys(recipes)]
    _refuse_namesakes(loaded, recipes)
    named = {d for r in loaded for d in (*r.datasets, *r.shifts) if r.measure != "cost"}
    if profile == "paper" and place.root is None and any(map(known_benchmark, named)):
        raise UsageError(
            "The paper's data sets are needed, and not said is where they lie.",
            allowed="--root DIR with the sets in CoOp's folders; 'clip-adapter data ls' lists them",
            hint="'clip-adapter data get NAME --root DIR' fetches one, --get those that are "
            "missing. '--profile demo' needs none.",
        )
    opened: dict[str, SetOfData] = {}

    def data(name: str) -> SetOfData:
        if name not in opened:
            opened[name] = open_set(name, place, say)
        return opened[name]

    weights = functools.cache(weights_of)  # of this call: a file is read once for all recipes
    return [
        plan(
            dataclasses.replace(recipe, datasets=every_set(recipe.datasets, place)),
            data,
            place.dtype,
            weights,
        )
        for recipe in loaded
    ]


def _refuse_namesakes(loaded: Sequence[Recipe], recipes: Sequence[str]) -> None:
    """Stops at two files whose plans and pages would take each other's place.

    Raises:
        UsageError: two recipes have one name.
    """
    names = [recipe.name.lower() for recipe in loaded]  # some file systems do not tell case
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        paths = [path for path in dict.fromkeys(recipes) if Path(path).stem.lower() == twice]
        raise UsageError(
            f"{' and '.join(paths)} are both called {twice!r}, and plans and tables are called by "
            "the name.",
            hint="Rename one of the files.",
        )


def _refuse_for_features(place: Place, overrides: Mapping[str, Any]) -> None:
    """Stops at what would change nothing: features are what they are.

    Raises:
        UsageError: a backbone, its dtype or a root is given.
    """
    given = [
        name
        for name, there in (
            ("--backbone", overrides.get("backbones")),
            ("--dtype", place.dtype != "float32"),
            ("--root", place.root),
        )
        if there
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)} with ready-made features would change nothing.",
            hint="Leave it away.",
        )


def run_bench(
    recipes: Sequence[str],
    *,
    profile: str,
    place: Place,
    overrides: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    again: bool = False,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Outcome:
    """Does every run of ``recipes`` that has no result yet.

    Each unit of runs is done in a process of one thread, ``jobs`` of them side by side, so that
    the results do not depend on how many there are. Costs are measured after all else, alone. A
    run that fails is told, and the others go on; the next call tries it again.

    Args:
        recipes: names.
        profile: "paper", "demo" or "features".
        place: where data is and results go.
        overrides: keys of :class:`Recipe`, stronger than the files.
        jobs: processes; None is one for each core.
        again: make the results that are there once more.
        say: receives lines for the user.
        progress: called with (runs that have a result, all runs).

    Raises:
        UsageError: an unknown recipe, profile or key, or another benchmark works in ``place.out``.
        DataError: results cannot be written.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} jobs.", allowed="1 or more")
    with _alone(Path(place.out)):
        plans = make_plans(recipes, profile, place, overrides, say)
        for made in plans:
            save_plan(made, Path(place.out))
        outcome = Outcome(plans, Results(Path(place.out) / RESULTS, say))
        runs = list({run.key: run for p in plans for run in p.runs}.values())
        waiting = []
        for unit in units(runs):
            # Read every one, so that every damaged one is told.
            known = [outcome.results.read(run) is not None for run in unit]
            if all(known) and not again:
                outcome.present += len(unit)
            else:
                waiting.append(unit)
        outcome.results.set_aside()
        shared = [unit for unit in waiting if unit[0].measure != "cost"]
        costs = [unit for unit in waiting if unit[0].measure == "cost"]
        cores = os.cpu_count() or 1
        crew = _Crew(outcome, len(runs), say, progress)
        crew.work(shared, place, min(jobs or cores, max(len(shared), 1)))
        # All threads, one after the other, each in a new process: times and memory are its own.
        crew.work(costs, dataclasses.replace(place, threads=cores), 1, fresh=True)
    return outcome


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Alone in the folder ``out``."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is no folder.", hint="Name another one.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".bench.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"Another benchmark works in {out}.", hint="Wait for it, or name another --out."
        ) from None
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}.",
            hint="Free some space, or name another --out.",
        ) from error
    try:
        yield
    finally:
        lock.release()


class _Crew:
    """Threads that each own a process and take units until none is left."""

    def __init__(self, outcome: Outcome, total: int, say: Say, progress: Progress | None) -> None:
        self._outcome, self._total, self._say, self._progress = outcome, total, say, progress
        self._lock = threading.Lock()
        self._units: list[list[Run]] = []
        self._fatal: str | None = None
        self._stopped = False
        self._children: set[Child] = set()
        self._at_work: list[str] = []  # data sets that are open now
        self._told: set[str] = set()

    def work(self, waiting: list[list[Run]], place: Place, jobs: int, fresh: bool = False) -> None:
        """All of ``waiting``, in ``jobs`` processes; with ``fresh`` each unit in a new one."""
        if not waiting:
            return
        self._units = list(waiting)
        threads = [
            threading.Thread(target=self._loop, args=(place, fresh), daemon=True)
            for _ in range(jobs)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:  # after Ctrl-C, too
            self._stopped = True
            for child in list(self._children):
                child.close()
        self._stopped = False
        if self._fatal is not None:
            raise DataError(
                f"The benchmark stopped: {self._fatal}",
                hint="What was done is kept: the same command goes on.",
            )

    def _loop(self, place: Place, fresh: bool) -> None:
        child: Child | None = None
        last = ""
        try:
            while (unit := self._next(last)) is not None:
                last = unit[0].dataset
                if child is None:
                    child = Child(place)
                    self._children.add(child)
                message = child.do(unit, self._tell)
                if not self._stopped:
                    self._note(unit, message)
                if fresh or message.get("ended"):
                    self._children.discard(child)
                    child.close()
                    child = None
        except Exception as error:  # a thread's error would be lost
            self._fatal = f"{type(error).__name__}: {error}"
        finally:
            if child is not None:
                self._children.discard(child)
                child.close()

    def _next(self, last: str) -> list[Run] | None:
        """A unit: of the data set ``last``, which is open, else of one that nobody works on."""
        with self._lock:
            if last:
                self._at_work.remove(last)
            if self._stopped or self._fatal is not None or not self._units:
                return None
            names = [unit[0].dataset for unit in self._units]
            same = [i for i, name in enumerate(names) if name == last]
            free = [i for i, name in enumerate(names) if name not in self._at_work]
            unit = self._units.pop([*same, *free, 0][0])
            self._at_work.append(unit[0].dataset)
            return unit

    def _tell(self, line: str) -> None:
        """Says each line once, however many processes read the same data."""
        with self._lock:
            if line not in self._told:
                self._told.add(line)
                self._say(line)

    def _note(self, unit: list[Run], message: dict[str, Any]) -> None:
        with self._lock:
            outcome = self._outcome
            if "fatal" in message:
                self._fatal = str(message["fatal"])
            elif "failed" in message:
                reason = str(message["failed"])
                for run in unit:
                    outcome.failed[run.title] = reason
                    with contextlib.suppress(DataError):  # told all the same
                        outcome.results.fail(run, reason, str(message.get("trace", "")))
                self._say(f"Failed: {unit[0].title}: {reason.splitlines()[0]}")
            else:
                outcome.done += len(unit)
            if self._progress is not None:
                finished = outcome.present + outcome.done + len(outcome.failed)
                self._progress(finished, self._total)
