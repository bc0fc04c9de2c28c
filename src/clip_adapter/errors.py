"""Every error that a user can meet.

    ClipAdapterError          exit code 1
    ├── UsageError            exit code 2: a wrong name, option or value
    │   └── MissingExtraError an optional dependency is not installed
    ├── DataError             pictures, tables, splits or features that cannot be used
    │   └── DecodeError       one picture that cannot be read
    ├── MissingTextError      a method needs text weights and the task has none
    ├── BackboneError         weights that cannot be found, fetched or loaded
    ├── ClassifierError       a saved classifier that cannot be read or used
    │   └── UnknownTowerAdapterError  it needs a package that is not installed
    ├── LeakError             a method that opened data beyond its task
    ├── StoreError            the feature store cannot be read or written
    └── CancelledError        the caller asked a long piece of work to end

Each says what was found, what is allowed and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClipAdapterError(Exception):
    """Base of all errors of this library; ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, found: str, *, allowed: str = "", hint: str = "") -> None:
        self.found, self.allowed, self.hint = found, allowed, hint
        parts = [found]
        if allowed:
            parts.append(f"Allowed: {allowed}")
        if hint:
            parts.append(f"Next: {hint}")
        super().__init__("\n".join(parts))


class UsageError(ClipAdapterError):
    """A wrong name, option or value."""

    exit_code = 2


class MissingExtraError(UsageError):
    """An optional dependency is missing; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.",
            hint=f"pip install 'clip-adapter[{extra}]'",
        )


class DataError(ClipAdapterError):
    """Pictures, tables, splits or features that cannot be used."""


class DecodeError(DataError):
    """One picture that cannot be read."""


class MissingTextError(ClipAdapterError):
    """A method needs text weights and the task has none."""


class BackboneError(ClipAdapterError):
    """Backbone weights that cannot be found, fetched or loaded."""


class ClassifierError(ClipAdapterError):
    """A saved classifier that cannot be read or used."""


class UnknownTowerAdapterError(ClassifierError):
    """A saved classifier needs what no installed package provides."""


class LeakError(ClipAdapterError):
    """A method opened data beyond its task."""


class StoreError(ClipAdapterError):
    """The feature store cannot be read or written."""


class CancelledError(ClipAdapterError):
    """The caller asked a long piece of work to end before it was done."""

    def __init__(self, title: str, done: int, total: int) -> None:
        super().__init__(
            f"{title} was cancelled after {done} of {total} steps.",
            hint="The same call again goes on with the features made so far.",
        )


def unknown_name(kind: str, name: str, valid: Iterable[str], hint: str = "") -> UsageError:
    """A :class:`UsageError` for an unknown ``name``, with the nearest valid ones."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return UsageError(f"Unknown {kind} {name!r}.{guess}", allowed=", ".join(names), hint=hint)
