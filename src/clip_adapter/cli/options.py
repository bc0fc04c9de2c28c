"""Arguments that several commands share, and options made from the dataclasses that hold them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clip_adapter.cli.output import command as command_line
from clip_adapter.errors import ClassifierError, UsageError
from clip_adapter.known_names import check_device
from clip_adapter.options import (
    Bounds,
    Help,
    SourceOptions,
    field_types,
    flag_of,
)
from clip_adapter.paths import check_exists, is_classifier, needs_quotes
from clip_adapter.wording import shown

if TYPE_CHECKING:
    from clip_adapter.datasets.open import DataSpec

READING, TRAINING, RESULT = SourceOptions.PANEL, "How it learns", "Results"
RARE = "Rarely needed"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Labelled pictures: a folder with one sub-folder per class; a table (.csv, .tsv, "
        ".parquet) with the columns path and label; hub:NAME for a data set of the Hugging Face "
        "hub; a data set of the paper by its name ('clip-adapter data ls'), with --root; or "
        "features made before, FILE.safetensors#SET.",
    ),
]
SavedClassifier = Annotated[
    str,
    typer.Argument(
        metavar="CLASSIFIER",
        help="The folder that 'clip-adapter fit' wrote, or a repository of the hub (user/name).",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the result as JSON on standard output, and nothing else there.",
        rich_help_panel=RESULT,
    ),
]


@dataclass(frozen=True)
class Only:
    """The fields that a command offers, as in ``Annotated[SourceOptions, Only(("root",))]``."""

    names: Sequence[str]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, whose parameters that are dataclasses become an option for each field.

    The options are made of the fields' :class:`~clip_adapter.options.Help` and
    :class:`~clip_adapter.options.Bounds`; a field without help is none. ``command`` is called with
    the dataclass filled in.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    shown: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    for name, parameter in signature.parameters.items():
        kind, *notes = typing.get_args(hints[name]) or (hints[name],)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            options = list(_options(kind, notes))
            groups[name] = kind, [option.name for option in options]
            shown += options
        else:
            shown.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        for name, (kind, fields) in groups.items():
            given[name] = kind(**{field: given.pop(field) for field in fields})
        command(**given)

    call.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    call.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    return call


def _options(kind: type, notes: Sequence[Any]) -> Iterator[inspect.Parameter]:
    """An option for each field of a dataclass that has help, or for those that a note names."""
    only = next((note.names for note in notes if isinstance(note, Only)), None)
    for field in dataclasses.fields(kind):
        declared = field_types(kind)[field.name]
        help_, bounds = declared.note(Help), declared.note(Bounds)
        if help_ is None or (only is not None and field.name not in only):
            continue
        option = typer.Option(
            flag_of(kind, field.name),
            metavar=help_.metavar or None,
            help=help_.text,
            show_default=help_.default or True,
            min=bounds and bounds.least,
            rich_help_panel=RARE if help_.rare else kind.PANEL,  # type: ignore[attr-defined]
        )
        # A path, several strings, or its own type.
        others = {Path: Path, Sequence[str]: list[str]}
        kind_read = next((others[k] for k in declared.kinds if k in others), declared.kinds[0])
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if field.default == () else field.default,
            annotation=Annotated[kind_read | None, option],
        )


def read_classifier(verb: str, name: str, others: Sequence[str]) -> Path:
    """The folder of the saved classifier ``name``; the command ``verb`` has ``others`` after it.

    Raises:
        ClassifierError: there is none.
        UsageError: one of the others is meant, or some of the words are one path with spaces.
    """
    from clip_adapter.hub import classifier_folder

    missing = [one for one in (name, *others) if not os.path.exists(one)]
    if missing and (hint := needs_quotes([name, *others])):
        raise UsageError(f"{shown(missing[0])} does not exist.", hint=hint)
    try:
        return classifier_folder(name)
    except ClassifierError as error:
        meant = [*filter(is_classifier, others)]
        if not meant:
            raise
        rest = [name, *(one for one in others if one != meant[0])]
        raise UsageError(
            f"{shown(meant[0])} is a saved classifier, and {shown(name)} is none.",
            hint=f"The classifier comes first: {command_line(verb, meant[0], *rest)}",
        ) from error


def read_spec(data: str, reading: SourceOptions) -> DataSpec:
    """What ``data`` names, if it, the paths and the device of a command are there; without torch.

    Raises:
        ClipAdapterError: one is not.
    """
    from clip_adapter.datasets.open import parse_spec

    spec = parse_spec(data, reading.root)
    check_device(reading.device)
    for what, path in (
        ("The file of class names", reading.class_names),
        ("The file of descriptions", reading.descriptions),
    ):
        if isinstance(path, str | Path):
            check_exists(path, what)
    return spec


def check_backbone(reading: SourceOptions, *, pictures: bool = True) -> None:
    """Check the name of the backbone, and for pictures that its weights can be had.

    Raises:
        UsageError, BackboneError: as :func:`~clip_adapter.backbones.load_backbone`.
    """
    from clip_adapter.backbones import names
    from clip_adapter.options import DEFAULT_BACKBONE

    if reading.backbone is not None or pictures:
        names.check_backbone(reading.backbone or DEFAULT_BACKBONE, fetched=pictures)


def key_values(pairs: Sequence[str] | None) -> dict[str, str]:
    """``["a=1"]`` as ``{"a": "1"}``.

    Raises:
        UsageError: no ``=``, or the same key twice.
    """
    values: dict[str, str] = {}
    for key, equals, value in (pair.partition("=") for pair in pairs or []):
        if not equals or not key:
            raise UsageError(
                f"-o {key}{equals}{value}",
                allowed="-o KEY=VALUE, such as -o visual_ratio=0.2",
                hint="'clip-adapter ls methods' lists the options of every method.",
            )
        if key in values:
            raise UsageError(f"-o {key} is given twice.", hint="Give it once.")
        values[key] = value
    return values
