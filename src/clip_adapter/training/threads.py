"""``one_thread``: small matrices on one core."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch, BLAS and scikit-learn keep to one thread inside.

    Products of a few hundred rows are done before a second thread has woken up, and on a machine
    that is busy with other things, waiting for it takes ten times the work itself.
    """
    import sklearn.linear_model  # noqa: F401 - its libraries must be loaded to be limited
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
