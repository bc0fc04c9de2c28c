"""``Method`` and the registry of methods.

A method is a dataclass of hyper-parameters with ``fit(task) -> Fitted``. Registered means listed,
documented and tested: the command line, the docs and the contract tests go through
:func:`method_names`. A third party registers one by the entry point group
``clip_adapter.methods``. What the file of a method needs beside training is imported from here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import pkgutil
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, Self, TypeVar, dataclass_transform, overload

from torch import Tensor

from clip_adapter.errors import Offer, UsageError, unknown_name
from clip_adapter.heads import ABSENT, Head, Mixture
from clip_adapter.known_names import METHOD_GROUP
from clip_adapter.options import Bounds, check_bounds, field_types
from clip_adapter.reporting import warn
from clip_adapter.task import FewShotTask, Fitted, HeldOutLogits, Sizes
from clip_adapter.training import Fold
from clip_adapter.wording import shortened

__all__ = [
    "ABSENT",
    "Bounds",
    "FewShotTask",
    "Fitted",
    "Head",
    "HeldOutLogits",
    "Method",
    "Mixture",
    "Sizes",
    "get_method",
    "make_method",
    "method_names",
    "register",
]


@dataclass
class Method(ABC):
    """Hyper-parameters in the fields, each with a default; ``fit`` learns.

    What a number may be stands in the annotation of its field, as
    :class:`~clip_adapter.options.Bounds`, and is checked here.

    Class attributes, which :func:`register` sets:
        name: as users write it.
        summary: one line for people.
        citation: authors, year and arXiv number.
        trains: what is trained, in a few words ("nothing", "image adapter").
        reads: "features", or "images" where something inside the visual tower is trained.
        runs_text_tower: the text tower runs while it trains, so the task needs a backbone.
        uses_views: it learns from the augmented views of the features (``--views``).
        needs_text: the task needs text weights.
        uses_text: text weights, where the task has any, speak for classes without pictures; else
            such a class is never the answer.
        symbols: {what the paper calls a hyper-parameter: the option}, for those who ask for that.
        one_vector_per_class: what it learns is one weight vector per class, on features of unit
            length and without a cache: such weights can be mixed with the text's (WiSE-FT).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    citation: ClassVar[str]
    trains: ClassVar[str] = "unknown"
    reads: ClassVar[Literal["features", "images"]] = "features"
    runs_text_tower: ClassVar[bool] = False
    uses_views: ClassVar[bool] = True
    needs_text: ClassVar[bool] = True
    uses_text: ClassVar[bool] = True
    symbols: ClassVar[Mapping[str, str]] = {}
    one_vector_per_class: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_bounds(self)

    @abstractmethod
    def fit(self, task: FewShotTask) -> Fitted:
        """Learn from ``task``, which stays as it is.

        Raises:
            MissingTextError: the method needs text weights and the task has none.
            UsageError: it needs pictures or a backbone and the task has none.
        """

    def held_out_logits(self, task: FewShotTask, folds: Sequence[Fold]) -> Iterator[Tensor]:
        """Logits (m, C) of every fold's held-out shots, fitted on its other shots.

        A method that can train all folds in one pass does so here.
        """
        for fold in folds:
            (fitted,) = self.fit_parts(task, [fold.fit])
            yield fitted.logits(task.train.subset(fold.held_out))

    def fit_parts(self, task: FewShotTask, rows: Sequence[Tensor]) -> list[Fitted]:
        """A result for each tensor of ``rows`` (n,), on these shots of ``task`` alone.

        A method that trains otherwise from some number of shots on goes by ``task`` here.
        """
        parts = [dataclasses.replace(task, train=task.train.subset(r)) for r in rows]
        return [self.fit(part) for part in parts]

    def parameters(self, sizes: Sizes) -> int | None:
        """How many numbers it trains on a task of these ``sizes``; None where that is open."""
        return 0 if self.trains == "nothing" else None

    @classmethod
    def needs(cls) -> frozenset[Offer]:
        """What it must have of a source: "text", "pixels", "backbone"."""
        wanted: dict[Offer, bool] = {
            "pixels": cls.reads == "images",
            "text": cls.needs_text,
            "backbone": cls.reads == "images" or cls.runs_text_tower,
        }
        return frozenset(offer for offer, needed in wanted.items() if needed)

    def together_key(self) -> Hashable:
        """What two instances must share to train in one pass; None: it trains alone."""
        return None

    @classmethod
    def fit_together(cls, methods: Sequence[Self], tasks: Sequence[FewShotTask]) -> list[Fitted]:
        """A result for each method and task, as :meth:`fit` makes it, to rounding.

        Args:
            methods: of one :meth:`together_key`.
            tasks: as many, with one text and equally many shots.
        """
        return [m.fit(t) for m, t in zip(methods, tasks, strict=True)]


M = TypeVar("M", bound=type[Method])
_REGISTRY: dict[str, type[Method]] = {}
# Entry points that failed: told once.
_BROKEN: set[str] = set()
# Larger whole numbers are slips: they fit into no memory and end in no lifetime.
MAX_WHOLE = 2**31 - 1
# Other numbers beyond these, in size, leave float32 as soon as something is computed with them.
LARGEST, SMALLEST = 1e30, 1e-30
# What a value of other types may be, for people.
NAMES = {str: "a name", bool: "true, false", type(None): "none"}


@overload
def register(cls: M, /) -> M: ...
@overload
@dataclass_transform()
def register(**about: str | bool) -> Callable[[M], M]: ...
def register(cls: Any = None, /, **about: Any) -> Any:
    """Class decorator: makes a dataclass of a method, and makes it known under its name.

    Args:
        cls: the class, where its attributes stand in its body.
        **about: its class attributes, see :class:`Method`.

    Raises:
        UsageError: something is missing, or another method has the name.
    """
    if cls is None:
        return functools.partial(register, **about)
    path = f"{cls.__module__}.{cls.__qualname__}"
    if not issubclass(cls, Method):
        raise UsageError(f"{path} is no Method.", hint="Make it a subclass of Method.")
    for key, value in about.items():
        if key not in Method.__annotations__:
            raise unknown_name(f"attribute of {path}", key, Method.__annotations__)
        setattr(cls, key, value)
    if "__dataclass_fields__" not in vars(cls):
        dataclass(cls)
    missing = [key for key in ("name", "summary", "citation") if not hasattr(cls, key)]
    missing += [
        f"default for {f.name}" for f in dataclasses.fields(cls) if f.default is f.default_factory
    ]
    if missing := [*missing, *cls.__abstractmethods__]:
        raise UsageError(
            f"{path} has no {', '.join(missing)}.",
            hint='Write @register(name="...", summary="...", citation="...") above the class, and '
            "into it options with defaults, and fit(self, task); docs/add-a-method.md shows one.",
        )
    # A module that is loaded again brings the same class anew.
    known = _REGISTRY.setdefault(cls.name, cls)
    if (other := f"{known.__module__}.{known.__qualname__}") != path:
        raise UsageError(
            f"Two methods are called {cls.name!r}: {other} and {path}.", hint="Rename one of them."
        )
    _REGISTRY[cls.name] = cls
    return cls


def _discover() -> None:
    for module in pkgutil.iter_modules(importlib.import_module("clip_adapter.methods").__path__):
        importlib.import_module(f"clip_adapter.methods.{module.name}")
    for entry in entry_points(group=METHOD_GROUP):
        if entry.value in _BROKEN:
            continue
        try:
            entry.load()
        except Exception as error:  # another package's code: anything can happen
            _BROKEN.add(entry.value)
            owner = entry.dist.name if entry.dist is not None else "a package"
            warn(
                f"The method {entry.name!r} of {owner} ({entry.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}. The others work.",
            )


def method_names() -> list[str]:
    """Names of all registered methods, sorted."""
    _discover()
    return sorted(_REGISTRY)


def get_method(name: str) -> type[Method]:
    """The class registered as ``name``.

    Raises:
        UsageError: no such method; the valid names are listed.
    """
    if name not in _REGISTRY:  # all of them are imported once one is not known yet
        _discover()
    if name not in _REGISTRY:
        raise unknown_name("method", name, sorted(_REGISTRY))
    return _REGISTRY[name]


# Types of the fields; to resolve their names takes a millisecond, and tables ask thousands.
_hints = functools.cache(typing.get_type_hints)


def make_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """An instance of the method ``name`` with ``options``; strings are read as the field's type.

    Raises:
        UsageError: unknown method or option, or a value that the option does not take.
    """
    cls = get_method(name)
    if not isinstance(options, Mapping | None):
        raise UsageError(
            f"options = {shortened(repr(options))}.",
            allowed="a dict, such as {'lr': 0.001}, or None",
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in options or {}:
        if key not in fields:
            listed = [f"{n} (default {f.default})" for n, f in fields.items()]
            others = [n for n in method_names() if key in _hints(get_method(n))]
            hint = f"Name the method that has it: {', '.join(others)}." if others else ""
            if symbol := cls.symbols.get(key):
                hint = f"What the paper calls {key} is {symbol} here."
            raise UsageError(
                unknown_name(f"option of {name}", key, fields).found,
                allowed="; ".join(listed) or "none: it has no options",
                hint=hint,
            )
    hints, types = _hints(cls), field_types(cls)
    return cls(
        **{
            key: read_value(f"{name} option {key}", hints[key], value, types[key].note(Bounds))
            for key, value in (options or {}).items()
        }
    )


def read_value(what: str, annotation: Any, value: Any, bounds: Bounds | None = None) -> Any:
    """``value`` as ``annotation``: a type, a Literal or a union of them.

    A string is read: "1e3" as a number, "true" as a bool, "none" as None.

    Args:
        what: the option, for the message.
        annotation: of its field.
        value: as it was given.
        bounds: of its numbers.

    Raises:
        UsageError: it fits none of them, is out of its bounds, or is a number that nothing can be
            computed with.
    """
    from pydantic import ValidationError

    literal = typing.get_origin(annotation) is Literal
    kinds = (annotation,) if literal else typing.get_args(annotation) or (annotation,)
    if value == "none" and type(None) in kinds:
        return None
    read = value
    if isinstance(value, str) and {int, float}.intersection(kinds):
        with contextlib.suppress(ValueError):
            read = float(value)
    # To pydantic a bool is a number.
    fits = bool in kinds or not isinstance(value, bool)
    try:
        read = _reader(annotation).validate_python(read)
    except ValidationError:
        fits = False
    if not fits or (bounds and isinstance(read, int | float) and not bounds.hold(read)):
        whole = f"a whole number, {bounds}" if bounds else "a whole number"
        names = {**NAMES, float: str(bounds or "a finite number"), int: whole}
        words = [names.get(k) or ", ".join(map(str, typing.get_args(k))) for k in kinds]
        raise UsageError(f"{what} = {value!r}.", allowed="; ".join(words))
    if type(read) is int and abs(read) > MAX_WHOLE:
        raise UsageError(f"{what} = {value!r}.", allowed=f"whole numbers up to {MAX_WHOLE}")
    if isinstance(read, float) and read != 0 and not SMALLEST <= abs(read) <= LARGEST:
        raise UsageError(
            f"{what} = {read}.",
            allowed=f"0, or {SMALLEST:g} to {LARGEST:g} in size: float32 holds no others",
        )
    return read


@functools.cache
def _reader(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
