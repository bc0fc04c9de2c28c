"""The processor, and how many threads a piece of work gets: small matrices stay on one core."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import torch

# Multiply-adds of one step below which a second thread costs more than it brings.
SMALL = 100_000_000

if hasattr(os, "register_at_fork"):
    # A fork copies no threads, and the copy would wait for those of torch for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.exists() else ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()


@contextlib.contextmanager
def suited_threads(multiply_adds: int | None) -> Iterator[None]:
    """Torch keeps to one thread inside, where a step has few ``multiply_adds``; None are many.

    The rule looks at the task alone, so the same task gives the same bits again.
    """
    threads = torch.get_num_threads()
    if multiply_adds is not None and multiply_adds < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch, BLAS and scikit-learn keep to one thread inside.

    Products of a few hundred rows are done before a second thread has woken up, and on a machine
    that is busy with other things, waiting for it takes ten times the work itself.
    """
    import sklearn.linear_model  # noqa: F401 - its libraries must be loaded to be limited
    from threadpoolctl import threadpool_limits

    with suited_threads(0), threadpool_limits(1):
        yield
