"""``quiet``: silence for warnings of the calling thread alone."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _ThisThread(threading.local):
    """Stands where a warning filter keeps its pattern for modules; matches in quiet threads."""

    depth = 0
    # Libraries that hand the filters to their workers (joblib) read it: matches nothing there.
    pattern = "(?!)"

    def match(self, _module: str) -> bool:
        return self.depth > 0


_THREAD = _ThisThread()
_FILTER: Any = ("ignore", None, Warning, _THREAD, 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Drops the warnings that this thread gives inside the block.

    ``warnings.catch_warnings`` swaps a list that all threads share, so two threads that use it at
    once can leave the wrong filters behind. This adds one filter for good, which matches nothing
    but what a thread inside such a block says.
    """
    filters: Any = warnings.filters
    if not filters or filters[0] is not _FILTER:
        # One assignment: other threads see the old list or the new one.
        filters[:] = [_FILTER, *(item for item in filters if item is not _FILTER)]
    _THREAD.depth += 1
    try:
        yield
    finally:
        _THREAD.depth -= 1
