"""``clip-adapter ls``: what there is to choose from."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output, table

What = Literal["methods", "backbones", "templates"]


def ls(
    what: Annotated[What, typer.Argument(metavar="WHAT", help="methods, backbones or templates.")],
    json: o.Json = False,
) -> None:
    """List the methods with their options, the backbones, or the prompt templates.

    **methods** are ways to learn from your pictures. **backbones** are pretrained CLIP networks.
    **templates** are sentences that describe a class to CLIP.

    **Examples**

        clip-adapter ls methods
        clip-adapter ls backbones --json
    """
    with Output(json) as out:
        rows = {"methods": methods, "backbones": backbones, "templates": templates}[what]()
        out.result(rows)
        cells = map(_cells, [] if json else rows)
        lines = what != "backbones"
        out.show(table(_HEADINGS[what], cells, caption=_CAPTIONS[what], show_lines=lines))


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


def backbones() -> list[dict[str, Any]]:
    """Every backbone that can be named."""
    from clip_adapter.backbones import list_backbones

    return list_backbones()


def templates() -> list[dict[str, Any]]:
    """The built-in prompt templates by name."""
    from clip_adapter.datasets.templates import TEMPLATES

    return [{"name": name, "templates": list(prompts)} for name, prompts in TEMPLATES.items()]


def _cells(row: dict[str, Any]) -> list[str]:
    """A row of the table, of what any of the three lists holds."""
    if "options" not in row:
        return [row["name"], row.get("notes") or "\n".join(row["templates"])]
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


_HEADINGS = {
    "methods": ("--method", "what it does", "trains", "options (-o KEY=VALUE), defaults"),
    "backbones": ("--backbone", "what it is"),
    "templates": ("--prompt", "the sentences it stands for"),
}
_CAPTIONS = {
    "methods": "clip-adapter fit DATA --method NAME -o KEY=VALUE. Methods that read images train "
    "inside CLIP and take minutes; the others seconds. Parameters are those for 1,000 classes and "
    "16 pictures of each on ViT-B/16.",
    "backbones": "Also ARCH/random, ARCH/./FILE, hf-hub:ORG/REPO and local-dir:DIR.",
    "templates": "Or write your own: --prompt 'a photo of a {}, a kind of bird.'",
}
