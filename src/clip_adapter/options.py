"""What a user can choose, with the defaults. Imports nothing heavy: help texts read it.

The annotation of a field says what it takes, as :class:`Bounds`, and its :class:`Help`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from clip_adapter.datasets.class_names import ClassNames
from clip_adapter.errors import UsageError, unknown_name
from clip_adapter.known_names import Runtime

if TYPE_CHECKING:
    from clip_adapter.backbones import Backbone
    from clip_adapter.features.store import FeatureStore

# The smallest of CLIP's own models: good on photographs, and quick on a laptop.
DEFAULT_BACKBONE = "ViT-B-32/openai"
DEFAULT_METHOD = "auto"
# The first of CoOp's three seeds, so that a draw can be compared with published ones.
DEFAULT_SEED = 1
# What a classifier did not learn from, of the split that it learned from.
HELD_OUT = "held-out"

Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Preprocess = Literal["clip", "coop"]
Decode = Literal["auto", "exact", "fast"]
Norm = Literal["auto", "raw", "unit"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


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
        given = {name: value for name, value in vars(self).items() if value is not None}
        return _BOUNDS[tuple(given)].format(**given)


_BOUNDS = {
    ("above",): "a number above {above:g}",
    ("least",): "{least:g} or more",
    ("most",): "at most {most:g}",
    ("below",): "below {below:g}",
    ("above", "most"): "above {above:g}, up to {most:g}",
    ("above", "below"): "above {above:g}, below {below:g}",
    ("least", "most"): "{least:g} to {most:g}",
    ("least", "below"): "{least:g} to below {below:g}",
}


@dataclass(frozen=True)
class Help:
    """What the command line says of a field, written into the annotation of the field.

    Attributes:
        text: what it is for, in plain words.
        metavar: what stands for its value; "" goes by its type.
        default: what is shown as its default; "" is the default itself.
        flag: its option; "" is its name.
        rare: whether few users need it; such options have a section of their own.
    """

    text: str
    metavar: str = ""
    default: str = ""
    flag: str = ""
    rare: bool = False


@dataclass(frozen=True)
class FieldType:
    """The annotation of a field, taken apart.

    Attributes:
        kinds: the types it takes, without None; a Literal is one of them.
        words: the strings that its Literals name.
        notes: what stands beside the type in ``Annotated``.
    """

    kinds: tuple[Any, ...]
    words: tuple[str, ...]
    notes: tuple[Any, ...]

    def note(self, kind: type) -> Any:
        """The note of a kind, or None."""
        return next((note for note in self.notes if isinstance(note, kind)), None)


@functools.cache
def field_types(cls: type) -> dict[str, FieldType]:
    """The annotations of the fields of a dataclass."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: _taken_apart(hints[field.name]) for field in dataclasses.fields(cls)}


def _taken_apart(hint: Any) -> FieldType:
    plain, *notes = typing.get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    union = typing.get_origin(plain) in (typing.Union, types.UnionType)
    members = typing.get_args(plain) if union else (plain,)
    literals = [typing.get_args(kind) for kind in members if typing.get_origin(kind) is Literal]
    words = [word for values in literals for word in values if isinstance(word, str)]
    kinds = [kind for kind in members if kind is not type(None)]
    return FieldType(tuple(kinds), tuple(words), tuple(notes))


def flag_of(cls: type, name: str) -> str:
    """The option of the command line that stands for a field."""
    shown = field_types(cls)[name].note(Help)
    return (shown and shown.flag) or f"--{name.replace('_', '-')}"


def check_bounds(instance: Any) -> None:
    """Check the fields of a dataclass: numbers against their :class:`Bounds`, names for theirs.

    Raises:
        UsageError: one is out of them; says which, and what is allowed.
    """
    for name, declared in field_types(type(instance)).items():
        value, bounds = getattr(instance, name), declared.note(Bounds)
        if value is None or value in declared.words:
            continue
        if bounds is not None and str not in declared.kinds:
            whole = int in declared.kinds and float not in declared.kinds
            number = not isinstance(value, str) and (not whole or isinstance(value, Integral))
            if not number or not bounds.hold(value):
                allowed = [f"{'a whole number, ' * whole}{bounds}", ", ".join(declared.words)]
                raise UsageError(f"{name} = {value!r}.", allowed="; ".join(filter(None, allowed)))
        elif len(declared.kinds) == 1 and declared.words:
            raise unknown_name(name, str(value), declared.words)


def changed(options: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults."""
    plain = vars(type(options)())
    return {name: value for name, value in vars(options).items() if value != plain[name]}


@dataclass(frozen=True)
class SourceOptions:
    """How to read a source.

    Attributes:
        backbone: name, "auto", or an object of one's own; None is ``DEFAULT_BACKBONE`` for
            pictures and none for features.
        views: augmented views of every training picture; 1 is the plain picture.
        prompts: templates, or names of built-in ones; several are an ensemble. One str is one
            prompt.
        descriptions: JSON file of sentences on each class, which take the place of the default
            prompt; they are averaged with ``prompts`` where these are given too.
        class_names: a table that rewrites the names of the source.
        root: where relative paths of a table start.
        preprocess: how pictures are cut to size, "clip" or "coop".
        decode: how pictures are decoded: "exact" as Pillow does it, "fast" with pixels a little
            off (``docs/speed.md``), "auto" fast on a CUDA device.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "float32", "float16" or "bfloat16", of the backbone; "auto" is float16 on a CUDA
            device, unless the method runs the backbone itself, and float32 elsewhere.
        runtime: "torch", or "onnx" for convolutional picture towers on a CPU (``docs/speed.md``).
        batch_size: pictures per pass of the backbone; None is 64, on a CUDA device 256 or 512.
        cache: folder of the feature store; None is the user's cache folder.
        strict: a picture that cannot be read is an error.
        feature_norm: of ready-made features.

    Raises:
        UsageError: a number out of range, or an unknown name.
    """

    PANEL: ClassVar[str] = "How pictures are read"

    backbone: Annotated[
        str | Any,
        Help(
            "The pretrained CLIP that looks at the pictures. 'demo' is small and needs no "
            "download; 'auto' goes by the machine and the number of pictures; 'clip-adapter ls "
            "backbones' compares the others.",
            metavar="NAME",
            default=f"{DEFAULT_BACKBONE} for pictures",
        ),
    ] = None
    views: Annotated[
        int,
        Bounds(least=1),
        Help(
            "How often each training picture is seen, each time cropped and flipped at random. "
            "1 is the plain picture.",
            rare=True,
        ),
    ] = 1
    prompts: Annotated[
        Sequence[str],
        Help(
            "How a class is described to CLIP, with {} for its name: 'a photo of a {}.' Give it "
            "several times for an average. Names from 'clip-adapter ls templates' work too.",
            metavar="TEXT",
            default="by the data set's name",
            flag="--prompt",
        ),
    ] = ()
    descriptions: Annotated[
        str | Path | None,
        Help(
            "Sentences on each class, as a language model writes them, in place of the prompt: a "
            "JSON object {name: [sentence, ...]}. With --prompt too, all of them are averaged.",
            metavar="FILE",
        ),
    ] = None
    class_names: Annotated[
        ClassNames | None,
        Help(
            "Better names for the classes than the folder names or labels: a CSV with the columns "
            "label,name (or folder,name), a JSON object {label: name}, or a text file with one "
            "name per line, in the order of the labels.",
            metavar="FILE",
        ),
    ] = None
    root: Annotated[
        str | Path | None,
        Help(
            "The folder that the paths in a table start from, or that holds the data set named.",
            metavar="DIR",
            default="the table's own",
        ),
    ] = None
    preprocess: Annotated[
        Preprocess,
        Help(
            "How pictures are cut to size: as CLIP does, or as CoOp's published experiments do.",
            rare=True,
        ),
    ] = "clip"
    decode: Annotated[
        Decode,
        Help(
            "How pictures are decoded: exact, or fast with pixels that are a little off. auto is "
            "fast on a CUDA device and exact elsewhere."
        ),
    ] = "auto"
    device: Annotated[
        str,
        Help("Where to compute: auto (the fastest that is here), cpu, cuda, cuda:1, mps.", "NAME"),
    ] = "auto"
    dtype: Annotated[
        Dtype, Help("Number format of the backbone. auto is float16 on a CUDA device.", rare=True)
    ] = "auto"
    runtime: Annotated[
        Runtime, Help("What computes RN50 and its like: onnx is quicker on a CPU.", rare=True)
    ] = "torch"
    batch_size: Annotated[
        int | None,
        Bounds(least=1),
        Help(
            "Pictures that go to the backbone at once. Less by itself where memory or speed asks.",
            default="64, on a CUDA device 256 or 512",
            rare=True,
        ),
    ] = None
    cache: Annotated[
        str | Path | None,
        Help(
            "Where features are kept, so that no picture is embedded twice.",
            metavar="DIR",
            default="$CLIP_ADAPTER_CACHE, else the user's cache folder",
            rare=True,
        ),
    ] = None
    strict: Annotated[
        bool, Help("Stop at a picture that cannot be read, instead of naming and skipping it.")
    ] = False
    feature_norm: Annotated[
        Norm,
        Help(
            "Whether ready-made features were scaled to length 1 (unit) or not (raw). auto looks.",
            rare=True,
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        # A str is a sequence too, of its letters; None says "no prompts" in other libraries.
        prompts = [self.prompts] if isinstance(self.prompts, str) else self.prompts or ()
        object.__setattr__(self, "prompts", tuple(filter(None, prompts)))
        check_bounds(self)

    def load_backbone(self) -> Backbone:
        """The backbone named or given, or the default one."""
        from clip_adapter.backbones import load_backbone

        chosen = DEFAULT_BACKBONE if self.backbone is None else self.backbone
        return load_backbone(chosen, device=self.device, dtype=self.dtype, runtime=self.runtime)

    def store(self) -> FeatureStore:
        """The feature store."""
        from clip_adapter.features.store import FeatureStore

        return FeatureStore(self.cache)


@dataclass(frozen=True)
class Compute:
    """How to train inside a backbone.

    Attributes:
        device: of the backbone, such as "cpu" or "cuda".
        devices: how many of them work together.
        precision: "32-true", or mixed precision ("16-mixed" on CUDA, "bf16-mixed").
        accumulate: parts of a batch that go through one by one, to fit into memory.
        checkpoint: folder that keeps the state of the training, to resume it; None keeps nothing.

    Raises:
        UsageError: a value out of range.
    """

    PANEL: ClassVar[str] = "Methods that train inside CLIP"

    device: str = "cpu"
    devices: Annotated[
        int, Bounds(least=1), Help("How many GPUs (or processes on the CPU) train together.")
    ] = 1
    precision: Annotated[
        Precision,
        Help("Number format of the training: 16-mixed and bf16-mixed are faster on GPUs."),
    ] = "32-true"
    accumulate: Annotated[
        int, Bounds(least=1), Help("Cut every batch into this many parts, to need less memory.")
    ] = 1
    checkpoint: Annotated[
        Path | None,
        Help(
            "Keep the state of the training here; the same command goes on from it.",
            metavar="DIR",
            default="nothing is kept",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_bounds(self)

    def refuse(self, method: str) -> None:
        """Stop where a method would not look at anything but the device.

        Raises:
            UsageError: something else is set.
        """
        if given := [name for name in changed(self) if name != "device"]:
            raise UsageError(
                f"{method} runs the tower once and trains on its features in seconds: "
                f"{', '.join(given)} would change nothing.",
                hint="Leave it away.",
            )


def source_options(given: Mapping[str, Any]) -> SourceOptions:
    """:class:`SourceOptions` from keywords.

    Raises:
        UsageError: an unknown one, or a value that it does not take.
    """
    known = {f.name for f in dataclasses.fields(SourceOptions)}
    if unknown := sorted(set(given) - known):
        raise UsageError(
            f"Unknown arguments: {', '.join(unknown)}.",
            allowed=", ".join(sorted(known)),
            hint="'style' is called 'preprocess'." if "style" in unknown else "",
        )
    return SourceOptions(**given)
