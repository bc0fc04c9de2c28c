"""Recipes and published figures: beside the code in a package, in ``benchmarks/`` of a clone."""

from __future__ import annotations

from pathlib import Path

from clip_adapter.errors import DataError


def shipped(folder: str) -> Path:
    """The folder ``recipes`` or ``published``.

    Raises:
        DataError: the installation is not whole.
    """
    here = Path(__file__).parent
    for path in (here / folder, here.parents[2] / "benchmarks" / folder):
        if path.is_dir():
            return path
    raise DataError(
        f"The folder {folder!r} of the benchmark is missing.", hint="Install clip-adapter again."
    )
