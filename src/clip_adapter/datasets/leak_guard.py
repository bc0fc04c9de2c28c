"""While a method is fitted, no data can be opened: it sees its task and nothing else.

This is what keeps the first rule (the test split cannot leak) when a method breaks it, by mistake
or not: every way of this library to read pictures or features asks here first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from clip_adapter.errors import LeakError

_fitting: ContextVar[str] = ContextVar("fitting", default="")


@contextlib.contextmanager
def nothing_but_the_task(method: str) -> Iterator[None]:
    """Inside, :func:`check_opening` raises; ``method`` is named in the error."""
    token = _fitting.set(method)
    try:
        yield
    finally:
        _fitting.reset(token)


def check_opening(what: str) -> None:
    """Refuse to open data while a method is fitted; call it before every reading.

    Raises:
        LeakError: a method is being fitted.
    """
    if method := _fitting.get():
        raise LeakError(
            f"{method} opened {what} while it was fitted.",
            allowed="a method reads its task alone: the shots, their text weights, the backbone",
            hint="Take what it needs from the task; scores on other data are for 'evaluate'.",
        )
