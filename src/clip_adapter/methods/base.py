"""``Method``, ``FewShotTask`` and the registry of methods.

A method is a dataclass of hyper-parameters with ``fit(task) -> Classifier``. Registered means
listed, documented and tested: the command line, the docs and the contract tests go through
:func:`method_names`. A third party registers one by the entry point group
``clip_adapter.methods``.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from clip_adapter.errors import DataError, MissingTextError, UsageError, unknown_name
from clip_adapter.features.feature_set import FeatureSet

if TYPE_CHECKING:
    from clip_adapter.classifier import Classifier

Progress = Callable[[int, int], None]


@dataclass
class FewShotTask:
    """All that a method may see. There is no test split in it.

    Attributes:
        train: features of the shots, (V, N, D).
        classifier_weights: (C, D) text weights of unit length; None where there is no text.
        logit_scale: 1/tau of the backbone, about 100.
        seed: the only source of randomness.
        val: held-out features that the user set aside, if any.
    """

    train: FeatureSet
    classifier_weights: Tensor | None
    logit_scale: float = 100.0
    seed: int = 1
    val: FeatureSet | None = None

    def __post_init__(self) -> None:
        if len(self.train) == 0:
            raise DataError("There is no training picture.", hint="Add pictures to the classes.")
        if len(self.class_names) < 2:
            raise DataError(
                f"There is one class only ({self.class_names[0]!r}): every picture would be of it.",
                allowed="two classes or more",
                hint="Add a folder for a second class, for instance 'something else'.",
            )
        if not 0 < self.logit_scale < math.inf:
            raise DataError(f"logit_scale = {self.logit_scale}.", allowed="a number above 0")
        weights = self.classifier_weights
        expected = (len(self.class_names), self.train.dim)
        if weights is not None and tuple(weights.shape) != expected:
            raise DataError(
                f"Text weights of shape {tuple(weights.shape)}.",
                allowed=f"(classes, dimension of the features) = {expected}",
                hint="Give one row per class, of the backbone that made the features.",
            )
        if weights is not None and not torch.isfinite(weights).all():
            raise DataError("The text weights hold NaN or infinite values.")

    @property
    def class_names(self) -> list[str]:
        """C names in label order."""
        return self.train.class_names

    @property
    def shots(self) -> int:
        """K: pictures of the class that has the most."""
        return int(torch.bincount(self.train.labels).max())

    def text(self, method: str) -> Tensor:
        """The text weights (C, D).

        Raises:
            MissingTextError: the task has none; says how to supply them.
        """
        if self.classifier_weights is None:
            raise MissingTextError(
                f"{method} needs text weights (one text feature per class) and the task has none.",
                hint="add a tensor 'text' (classes, dimension) to the feature file, or name the "
                "backbone that made the features with --backbone, so that the class names are "
                "embedded; or use a method that needs no text: "
                + ", ".join(n for n in method_names() if not get_method(n).needs_text),
            )
        return self.classifier_weights


@dataclass
class Method(ABC):
    """Hyper-parameters in the fields; ``fit`` learns and returns a classifier."""

    name: ClassVar[str]
    summary: ClassVar[str]
    citation: ClassVar[str]
    reads: ClassVar[Literal["features", "images"]] = "features"
    needs_text: ClassVar[bool] = True

    @abstractmethod
    def fit(self, task: FewShotTask, progress: Progress | None = None) -> Classifier:
        """Learns from ``task``; never changes it.

        Args:
            task: the shots.
            progress: called with (steps done, all steps).

        Raises:
            MissingTextError: the method needs text weights and the task has none.
        """


M = TypeVar("M", bound=type[Method])
_REGISTRY: dict[str, type[Method]] = {}


def register(cls: M) -> M:
    """Class decorator: makes a method known under its ``name``."""
    if _REGISTRY.get(cls.name, cls).__qualname__ != cls.__qualname__:
        raise UsageError(f"Two methods are called {cls.name!r}.", hint="Rename one of them.")
    _REGISTRY[cls.name] = cls
    return cls


def _discover() -> None:
    package = importlib.import_module("clip_adapter.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"clip_adapter.methods.{module.name}")
    for entry in entry_points(group="clip_adapter.methods"):
        entry.load()


def method_names() -> list[str]:
    """Names of all registered methods, sorted."""
    _discover()
    return sorted(_REGISTRY)


def get_method(name: str) -> type[Method]:
    """The class registered as ``name``.

    Raises:
        UsageError: no such method; the valid names are listed.
    """
    names = method_names()
    if name not in _REGISTRY:
        raise unknown_name("method", name, names)
    return _REGISTRY[name]


def make_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """An instance of the method ``name`` with ``options``; strings are read as the field's type.

    Raises:
        UsageError: unknown method or option, or a value that the option does not take.
    """
    cls = get_method(name)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in (options or {}).items():
        if key not in fields:
            listed = [f"{n} (default {f.default})" for n, f in fields.items()]
            error = unknown_name(f"option of {name}", key, fields)
            raise UsageError(error.found, allowed="; ".join(listed) or "none: it has no options")
        values[key] = read_value(f"{name} option {key}", hints[key], value)
    return cls(**values)


def read_value(what: str, annotation: Any, value: Any) -> Any:
    """``value`` as ``annotation`` (a type, a Literal, or a union of them).

    Raises:
        UsageError: it fits none of them.
    """
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    choices = typing.get_args(annotation) if union else (annotation,)
    for choice in choices:
        if typing.get_origin(choice) is Literal:
            if value in typing.get_args(choice):
                return value
        elif choice in (int, float) and not isinstance(value, bool):
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if choice is float or number.is_integer():
                return choice(number)
        elif choice is str and isinstance(value, str):
            return value
        elif choice is bool and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        elif choice is type(None) and value in (None, "none"):
            return None
    words = [
        ", ".join(map(str, typing.get_args(c))) if typing.get_origin(c) is Literal else c.__name__
        for c in choices
        if c is not type(None)
    ]
    raise UsageError(f"{what} = {value!r}.", allowed="; ".join(words))
