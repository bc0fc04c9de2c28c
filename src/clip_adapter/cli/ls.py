"""``clip-adapter ls``: what there is to choose from."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output, table
from clip_adapter.errors import UsageError
from clip_adapter.options import SourceOptions, changed

What = Literal["methods", "backbones", "templates"]
BACKBONES = "Backbones"


@o.with_options
def ls(
    what: Annotated[What, typer.Argument(metavar="WHAT", help="methods, backbones or templates.")],
    *,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Every backbone that open_clip has weights of, not only those worth having.",
            rich_help_panel=BACKBONES,
        ),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure how many pictures a second each backbone encodes on this machine, with "
            "random weights. It takes minutes, once; what is known is kept.",
            rich_help_panel=BACKBONES,
        ),
    ] = False,
    reading: Annotated[SourceOptions, o.Only(("device", "dtype"))],
    json: o.Json = False,
) -> None:
    """List the methods with their options, the backbones, or the prompt templates.

    **methods** are ways to learn from your pictures. **backbones** are pretrained CLIP networks.
    **templates** are sentences that describe a class to CLIP.

    Of the backbones it shows those that are worth having: how accurate they are without any
    training (zero-shot, in percent, as their makers and open_clip publish it), what they cost, what
    their licence allows, and which are recommended. `docs/backbones.md` says where each figure is
    from.

    **Examples**

        clip-adapter ls methods
        clip-adapter ls backbones --json
        clip-adapter ls backbones --measure
    """
    with Output(json) as out:
        if what != "backbones" and (every or measure or changed(reading)):
            raise UsageError(
                f"--all, --measure, --device and --dtype change nothing for {what}.",
                hint="Leave them away, or list the backbones.",
            )
        rows = (
            backbones(every, measure, reading)
            if what == "backbones"
            else {"methods": methods, "templates": templates}[what]()
        )
        out.result(rows)
        cells = map(_cells, [] if json else rows)
        look = {"caption": _CAPTIONS[what], "show_lines": what != "backbones"}
        printed = table(_HEADINGS[what], cells, right=_NUMBERS, **look)
        printed.columns[0].no_wrap = True  # names are there to be copied
        out.show(printed)


def methods() -> list[dict[str, Any]]:
    """Every method with its options, their defaults, and how much it trains.

    ``parameters`` is the count at the defaults, for ImageNet (C = 1000, K = 16) on ViT-B/16;
    None where it depends on what is chosen.
    """
    from clip_adapter.methods import get_method, method_names
    from clip_adapter.task import VIT_B_16

    attributes = ("name", "summary", "citation", "trains", "reads", "runs_text_tower", "needs_text")
    return [
        {
            **{attribute: getattr(cls, attribute) for attribute in attributes},
            "parameters": cls().parameters(VIT_B_16),
            "options": dataclasses.asdict(cls()),
        }
        for cls in map(get_method, method_names())
    ]


def backbones(every: bool, measured: bool, reading: SourceOptions) -> list[dict[str, Any]]:
    """The backbones that are worth having and those outside open_clip, with what is known of them.

    ``None`` is unknown, ``pictures_per_second`` too where it was not measured on this machine.

    Args:
        every: all that can be named.
        measured: measure what was not.
        reading: device and dtype of the rates.
    """
    from clip_adapter.backbones import list_backbones, resolve_device
    from clip_adapter.backbones.rates import measure, rates
    from clip_adapter.backbones.table import SOURCES, recommended, rows

    device = resolve_device(reading.device)
    speed = measure(rows(), device, reading.dtype) if measured else rates(device, reading.dtype)
    of_name = {row.name: row for row in rows()}
    listed = {row["name"]: row for row in list_backbones()}
    first = [row for row in listed.values() if not row["tag"]]
    names = [row["name"] for row in first] + [name for name in of_name if name in listed]
    shown = []
    for name in dict.fromkeys([*names, *(listed if every else ())]):
        row, known = listed[name], of_name.get(name)
        shown.append(
            {
                **row,
                "imagenet": known and known.imagenet,
                "mean_38": known and known.mean_38,
                "source": known and SOURCES[known.source],
                "parameters": known and round(known.parameters * 1e6),
                "multiply_adds": known and round(known.multiply_adds * 1e9),
                "pictures_per_second": speed.get(row["arch"]),
                "licence": known and known.licence,
                "commercial_use": known and known.commercial,
                "recommended": known in recommended(),
                "extra": known and known.extra,
            }
        )
    return shown


def templates() -> list[dict[str, Any]]:
    """The built-in prompt templates by name."""
    from clip_adapter.datasets.templates import TEMPLATES

    return [{"name": name, "templates": list(prompts)} for name, prompts in TEMPLATES.items()]


def _cells(row: dict[str, Any]) -> list[str]:
    """A row of the table, of what any of the three lists holds."""
    if "templates" in row:
        return [row["name"], "\n".join(row["templates"])]
    if "licence" in row:
        figures = (
            _figure(row["imagenet"], 1, 1),
            _figure(row["mean_38"], 1, 1),
            _figure(row["parameters"], 1e6, 0),
            _figure(row["multiply_adds"], 1e9, 1),
            _figure(row["pictures_per_second"], 1, 1),
        )
        marks = ["recommended"] * row["recommended"] + [row["notes"]]
        return [row["name"], *figures, row["licence"] or "", ", ".join(marks)]
    text = ", text weights" * row["needs_text"] + ", text tower" * row["runs_text_tower"]
    count = "as many as they train"
    if row["parameters"] is not None:
        count = f"{row['parameters']:,} parameters"
    return [
        row["name"],
        f"{row['summary']}\n{row['citation']}\nreads: {row['reads']}{text}",
        f"{row['trains']}\n{count}",
        "\n".join(f"{key}={value}" for key, value in row["options"].items()) or "none",
    ]


def _figure(value: float | None, unit: float, digits: int) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


_NUMBERS = (
    *("ImageNet\n%", "38 sets\n%", "parameters\n10^6", "multiply-adds\n10^9"),
    "pictures/s\nhere",
)
_HEADINGS = {
    "methods": ("--method", "what it does", "trains", "options (-o KEY=VALUE), defaults"),
    "backbones": ("--backbone", *_NUMBERS, "licence", "notes"),
    "templates": ("--prompt", "the sentences it stands for"),
}
_CAPTIONS = {
    "methods": "clip-adapter fit DATA --method NAME -o KEY=VALUE. Methods that read images train "
    "inside CLIP and take minutes; the others seconds. Parameters are those for 1,000 classes and "
    "16 pictures of each on ViT-B/16.",
    "backbones": "Zero-shot accuracies are as published. Recommended: no other one of a licence "
    "for commercial use is more accurate, costs no more and needs no more packages; --backbone "
    "auto takes one of these. Pictures a second: --measure. Also --all, ARCH/random, ARCH/./FILE, "
    "hf-hub:ORG/REPO and local-dir:DIR.",
    "templates": "Or write your own: --prompt 'a photo of a {}, a kind of bird.'",
}
