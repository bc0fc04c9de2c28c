"""Folders: what lies in them and counts, in one order on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from clip_adapter.errors import DataError
from clip_adapter.wording import shown

# Endings of the formats that decode reads; other files are counted, not opened.
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".jp2", ".j2k", ".jpx", ".avif"}
)


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its ending."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in ``folder`` and is not hidden, sorted by name.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as listing:
            visible = [e for e in listing if not e.name.startswith(".") and e.name != "__MACOSX"]
    except OSError as error:
        raise DataError(
            f"The folder {shown(folder)} cannot be listed: {error.strerror}."
        ) from error
    return sorted(visible, key=lambda entry: entry.name)


def folders(folder: Path) -> list[Path]:
    """The folders directly in ``folder``."""
    return [folder / entry.name for entry in entries(folder) if _is_dir(entry)]


def pictures(folder: Path) -> list[str]:
    """Names of the pictures directly in ``folder``."""
    return [e.name for e in entries(folder) if is_picture(e.name) and not _is_dir(e)]


def files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All files in and below ``folder``; symbolic links are followed, circles are not."""
    todo, visited = [folder], set()
    while todo:
        here = todo.pop()
        real = os.path.realpath(here)
        if real in visited:
            continue
        visited.add(real)
        for entry in entries(here):
            if _is_dir(entry):
                todo.append(here / entry.name)
            else:
                yield entry


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # A link that points at itself.
    except OSError:
        return False
