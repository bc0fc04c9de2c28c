"""Processes that do units of runs side by side; one that dies costs its own unit alone.

A worker imports this module before it knows how many threads it gets, so that nothing here may
load torch at the top.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pebble import ProcessExpired, ProcessPool

from clip_adapter.errors import ClipAdapterError
from clip_adapter.reporting import log

if TYPE_CHECKING:
    from clip_adapter.bench.data import Environment
    from clip_adapter.bench.execute import Worker
    from clip_adapter.bench.results import Run

LOG = ".bench.log"


@dataclass
class Done:
    """What came of a unit.

    Attributes:
        records: of its runs; none where it failed.
        lines: for the user.
        error: why it failed; "" where it did not.
        trace: where, of an error that is a bug.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    error: str = ""
    trace: str = ""


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
    output = Path(environment.out) / LOG
    pool = ProcessPool(
        max_workers=min(jobs, len(units)),
        max_tasks=int(fresh),
        initializer=_begin,
        initargs=(environment.threads, str(output)),
        context=multiprocessing.get_context("spawn"),
    )
    try:
        scheduled = [pool.schedule(do_unit, args=(environment, unit)) for unit in units]
        futures: dict[Any, Sequence[Run]] = dict(zip(scheduled, units, strict=True))
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


def do_unit(environment: Environment, unit: Sequence[Run]) -> Done:
    """Do ``unit`` in this process; an error goes into the result: it is not the other units'."""
    done, lines = Done(), BufferingHandler(capacity=sys.maxsize)
    log.addHandler(lines)
    try:
        done.records = _worker(environment).do(unit)
    except ClipAdapterError as error:
        done.error = str(error)
    except Exception as error:
        done.error, done.trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    finally:
        log.removeHandler(lines)
        done.lines = [record.getMessage() for record in lines.buffer]
    return done


@functools.cache
def _worker(environment: Environment) -> Worker:
    """One for the life of the process: it keeps a data set open."""
    from clip_adapter.bench.execute import Worker

    return Worker(environment)


def _begin(threads: int, output: str) -> None:
    """Ready a new process: its threads, its end, and what libraries print."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when libraries load
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    log.setLevel(logging.INFO)
    import torch

    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """End this process with the one that started it, whatever it is doing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
