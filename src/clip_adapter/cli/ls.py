"""``clip-adapter ls``: what there is to choose from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output

if TYPE_CHECKING:
    from rich.table import Table

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
        if not json:
            out.show(_table(what, rows))


def methods() -> list[dict[str, Any]]:
    """Every method with its options and their defaults."""
    from clip_adapter.methods import method_names
    from clip_adapter.methods.base import get_method

    rows = []
    for cls in map(get_method, method_names()):
        fields = {f.name: _default(f) for f in dataclasses.fields(cls)}
        rows.append(
            {
                "name": cls.name,
                "summary": cls.summary,
                "citation": cls.citation,
                "needs_text": cls.needs_text,
                "options": fields,
            }
        )
    return rows


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def backbones() -> list[dict[str, Any]]:
    """Every backbone that can be named."""
    from clip_adapter.backbones import list_backbones

    return list_backbones()


def templates() -> list[dict[str, Any]]:
    """The built-in prompt templates by name."""
    from clip_adapter.data.templates import TEMPLATES

    return [{"name": name, "templates": list(prompts)} for name, prompts in TEMPLATES.items()]


def _table(what: What, rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    headings = {
        "methods": ("--method", "what it does", "options (-o KEY=VALUE) and their defaults"),
        "backbones": ("--backbone", "what it is"),
        "templates": ("--prompt", "the sentences it stands for"),
    }[what]
    table = Table(caption=_CAPTIONS[what], show_lines=what != "backbones")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        if what == "methods":
            defaults = "\n".join(f"{key}={value}" for key, value in row["options"].items())
            table.add_row(row["name"], f"{row['summary']}\n{row['citation']}", defaults or "none")
        elif what == "backbones":
            table.add_row(row["name"], row["notes"])
        else:
            table.add_row(row["name"], "\n".join(row["templates"]))
    return table


_CAPTIONS = {
    "methods": "clip-adapter fit DATA --method NAME -o KEY=VALUE",
    "backbones": "Also ARCH/random, ARCH/./FILE, hf-hub:ORG/REPO and local-dir:DIR.",
    "templates": "Or write your own: --prompt 'a photo of a {}, a kind of bird.'",
}


def add(app: typer.Typer) -> None:
    """Makes this a command of ``app``."""
    app.command(no_args_is_help=True)(ls)
