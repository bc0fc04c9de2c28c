"""What a user can choose, with the defaults. Imports nothing heavy: help texts read it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from clip_adapter.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from clip_adapter.backbones import Backbone
    from clip_adapter.datasets.class_names import ClassNames
    from clip_adapter.features.store import FeatureStore

# The smallest of CLIP's own models: good on photographs, and quick on a laptop.
DEFAULT_BACKBONE = "ViT-B-32/openai"
DEFAULT_METHOD = "auto"
# The first of CoOp's three seeds, so that a draw can be compared with published ones.
DEFAULT_SEED = 1

Dtype = Literal["float32", "float16", "bfloat16"]
Style = Literal["clip", "coop"]
Norm = Literal["auto", "raw", "unit"]


@dataclass(frozen=True)
class Bounds:
    """What a number may be, written into the annotation of its field.

    ``lr: Annotated[float, Bounds(above=0)] = 1e-3``; :func:`check_bounds` reads it.

    Attributes:
        above: it is larger.
        least: it is as large or larger.
        most: it is as large or smaller.
        below: it is smaller.
    """

    above: float | None = None
    least: float | None = None
    most: float | None = None
    below: float | None = None

    def hold(self, value: float) -> bool:
        """Whether ``value`` is finite and within."""
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.least is not None and self.below is not None:
            return f"{self.least:g} to below {self.below:g}"
        if self.above is not None and self.most is not None:
            return f"above {self.above:g}, up to {self.most:g}"
        if self.above is not None:
            return f"a number above {self.above:g}"
        return f"{self.least:g} or more" if self.least is not None else f"at most {self.most:g}"


@functools.cache
def bounded_fields(cls: type) -> dict[str, tuple[Bounds, tuple[Any, ...]]]:
    """Bounds of the fields of a dataclass, and the words that each takes in place of a number."""
    found = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        bounds = [b for b in getattr(hint, "__metadata__", ()) if isinstance(b, Bounds)]
        if bounds:
            kinds = get_args(hint.__origin__) or (hint.__origin__,)
            words = [w for kind in kinds for w in get_args(kind) if isinstance(w, str)]
            found[name] = bounds[0], tuple(words)
    return found


def check_bounds(instance: Any) -> None:
    """Checks the numbers in the fields of a dataclass against their :class:`Bounds`.

    Raises:
        UsageError: one is out of them; says which, and what is allowed.
    """
    for name, (bounds, words) in bounded_fields(type(instance)).items():
        value = getattr(instance, name)
        if value is not None and not isinstance(value, str) and not bounds.hold(value):
            raise UsageError(f"{name} = {value}.", allowed=", ".join([str(bounds), *words]))


@dataclass(frozen=True)
class SourceOptions:
    """How to read a source.

    Attributes:
        backbone: name, or an object of one's own; None is ``DEFAULT_BACKBONE`` for pictures and
            none for features.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "float32", "float16" or "bfloat16", of the backbone.
        prompts: templates, or names of built-in ones; several are an ensemble. One str is one
            prompt.
        descriptions: JSON file of sentences on each class, which take the place of the default
            prompt; they are averaged with ``prompts`` where these are given too.
        class_names: a table that rewrites the names of the source.
        root: where relative paths of a table start.
        style: preprocessing, "clip" or "coop".
        views: augmented views of every training picture; 1 is the plain picture.
        cache: folder of the feature store; None is the user's cache folder.
        strict: a picture that cannot be read is an error.
        batch_size: pictures per pass of the backbone.
        feature_norm: of ready-made features.

    Raises:
        UsageError: an unknown ``feature_norm``.
    """

    backbone: Any = None
    device: str = "auto"
    dtype: Dtype = "float32"
    prompts: Sequence[str] = ()
    descriptions: str | Path | None = None
    class_names: ClassNames | None = None
    root: str | Path | None = None
    style: Style = "clip"
    views: int = 1
    cache: str | Path | None = None
    strict: bool = False
    batch_size: int = 64
    feature_norm: Norm = "auto"

    def __post_init__(self) -> None:
        # A str is a sequence too, of its letters; None says "no prompts" in other libraries.
        if isinstance(self.prompts, str) or self.prompts is None:
            object.__setattr__(self, "prompts", (self.prompts,) if self.prompts else ())
        if self.feature_norm not in get_args(Norm):
            raise unknown_name("feature_norm", str(self.feature_norm), get_args(Norm))

    def load_backbone(self, default: str | None = None) -> Backbone:
        """The backbone named or given, or ``default``."""
        from clip_adapter.backbones import load_backbone

        chosen = self.backbone if self.backbone is not None else default
        return load_backbone(chosen or DEFAULT_BACKBONE, device=self.device, dtype=self.dtype)

    def store(self) -> FeatureStore:
        """The feature store."""
        from clip_adapter.features.store import FeatureStore

        return FeatureStore(self.cache)


Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class Compute:
    """How to train inside a backbone.

    Attributes:
        device: of the backbone, such as "cpu" or "cuda".
        devices: how many of them work together.
        precision: "32-true", or mixed precision ("16-mixed" on CUDA, "bf16-mixed").
        accumulate: parts that a batch is cut into, to fit into memory; the gradient is theirs
            together.
        checkpoint: folder where the state of the training is kept, so that it resumes after it was
            interrupted; None keeps nothing.

    Raises:
        UsageError: a value out of range.
    """

    device: str = "cpu"
    devices: Annotated[int, Bounds(least=1)] = 1
    precision: Precision = "32-true"
    accumulate: Annotated[int, Bounds(least=1)] = 1
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.precision not in get_args(Precision):
            raise unknown_name("precision", str(self.precision), get_args(Precision))

    def refuse(self, method: str) -> None:
        """Stops where a method would not look at anything but the device.

        Raises:
            UsageError: something else is set.
        """
        names = ("devices", "precision", "accumulate", "checkpoint")
        if given := [n for n in names if getattr(self, n) != getattr(Compute(), n)]:
            raise UsageError(
                f"{method} runs the tower once and trains on its features in seconds: "
                f"{', '.join(given)} would change nothing.",
                hint="Leave it away.",
            )
