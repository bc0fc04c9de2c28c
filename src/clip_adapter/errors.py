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
    ├── PluginError           a method or backbone of another package that broke down
    ├── StoreError            the feature store cannot be read or written
    └── CancelledError        the caller asked a long piece of work to end

Each says what was found, what is allowed and what to do next.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any, Literal


class ClipAdapterError(Exception):
    """Base of all errors of this library; ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, found: str, *, allowed: str = "", hint: str = "") -> None:
        self.found, self.allowed, self.hint = found, allowed, hint
        parts = found, allowed and f"Allowed: {allowed}", hint and f"Next: {hint}"
        super().__init__("\n".join(filter(None, parts)))

    def __reduce__(self) -> tuple[Any, ...]:
        """As other processes raise it, whatever its own kind is made of."""
        return BaseException.__new__, (type(self), *self.args), vars(self)


class UsageError(ClipAdapterError):
    """A wrong name, option or value."""

    exit_code = 2


class MissingExtraError(UsageError):
    """An optional dependency is missing; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.",
            hint=f"{how_to_install(extra)}.",
        )


def how_to_install(extra: str) -> str:
    """The command that installs what ``extra`` adds, by the names of its packages.

    ``clip-adapter[extra]`` would only be right where an index has this very package.
    """
    from importlib.metadata import distributions

    here = next(iter(distributions(name="clip-adapter")), None)  # none: a folder of source
    lines = (here and here.requires) or []
    marked = re.compile(rf"(.+?) *;.*extra *== *['\"]{re.escape(extra)}['\"].*")
    packages = [shlex.quote(found[1]) for line in lines if (found := marked.fullmatch(line))]
    if not packages:
        return f"Install the extra '{extra}' of clip-adapter"
    return f"pip install {' '.join(packages)} (the extra '{extra}')"


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


class PluginError(ClipAdapterError):
    """A method or a backbone of another package broke down."""


class CancelledError(ClipAdapterError):
    """The caller asked a long piece of work to end before it was done."""

    def __init__(self, title: str, done: int, total: int) -> None:
        again = {
            "Embedding": "goes on with the features that its cache holds, if it has one.",
            "Shards": "goes on with the shards made so far.",
            "Training": "begins the training anew, with the features that its cache holds; one "
            "inside the backbone goes on where it was given a checkpoint.",
        }
        super().__init__(
            f"{title} was cancelled after {done} of {total} steps.",
            hint=f"The same call {again.get(title, 'does it again.')}",
        )


@contextlib.contextmanager
def code_of(plugin: object) -> Iterator[None]:
    """Inside, what the code of ``plugin`` raises is told as its own, if it is no part of ours.

    Raises:
        PluginError: an exception that is none of this library's; it is the cause of this one.
    """
    kind = type(plugin)
    try:
        yield
    except Exception as error:
        if isinstance(error, ClipAdapterError) or kind.__module__.split(".")[0] == __package__:
            raise
        raise PluginError(
            f"{kind.__module__}.{kind.__qualname__} failed with {type(error).__name__}: {error}",
            hint="It is no part of clip-adapter: mend it, or report it to its authors. On the "
            "command line CLIP_ADAPTER_DEBUG=1 shows where it happens.",
        ) from error


Offer = Literal["pixels", "text", "backbone"]
"""What a method can need of a source: pictures, text weights, a backbone whose towers run."""

# For what is missing: the error, what needs it, and how to supply it.
_LACKING: dict[Offer, tuple[type[ClipAdapterError], str, str]] = {
    "pixels": (
        UsageError,
        "trains inside the backbone and reads pictures; there are features only.",
        "Give the pictures",
    ),
    "text": (
        MissingTextError,
        "needs text weights (one text feature per class), and there are none.",
        "Add a tensor 'text' (classes, dimension) to the feature file, or name the backbone that "
        "made the features with --backbone, so that the class names are embedded",
    ),
    "backbone": (
        UsageError,
        "runs a tower of the backbone, and there is none.",
        "Name the backbone that made the features (--backbone)",
    ),
}


def lacking(
    offer: Offer, method: str, others: str = "'clip-adapter ls methods'", remedy: str = ""
) -> ClipAdapterError:
    """The error of a ``method`` that needs what is not there.

    Args:
        offer: what is missing.
        method: what needs it, to show.
        others: methods that do not, or where they are listed.
        remedy: how to supply it, where that is not as for a feature file.
    """
    kind, words, usual = _LACKING[offer]
    return kind(
        f"{method} {words}",
        hint=f"{remedy or usual}, or take a method that needs none: {others}.",
    )


def unknown_name(kind: str, name: str, valid: Iterable[str], hint: str = "") -> UsageError:
    """A :class:`UsageError` for an unknown ``name``, with the nearest valid ones."""
    names = sorted(valid)
    guess = near_names(name, names)
    return UsageError(f"Unknown {kind} {name!r}.{guess}", allowed=", ".join(names), hint=hint)


def near_names(name: str, valid: Iterable[str]) -> str:
    """`` Did you mean 'a' or 'b'?``, or nothing where no valid name is near."""
    near = difflib.get_close_matches(str(name), valid, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
