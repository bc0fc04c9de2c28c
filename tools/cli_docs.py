"""Writes ``docs/cli.md`` from the commands' own help, or with ``--check`` compares the two."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from clip_adapter.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
OPENING = "<!-- Written by 'make docs' from the help texts in src/clip_adapter/cli. -->\n\n"


def render() -> str:
    """The page, as Markdown."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command, **command.context_settings), name="clip-adapter"
    )
    return OPENING + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def main(arguments: list[str]) -> int:
    """0 when the page is as it should be."""
    page = render()
    if "--check" in arguments:
        if PAGE.is_file() and PAGE.read_text("utf-8") == page:
            return 0
        print(f"{PAGE.name} is not what the commands' help says. Next: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(page, "utf-8")
    print(f"Written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
