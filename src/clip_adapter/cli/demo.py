"""``clip-adapter demo``."""

from __future__ import annotations

import typer


def add(app: typer.Typer) -> None:
    """Makes this a command of ``app``."""
