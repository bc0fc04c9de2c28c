"""``Walk``: how every part reads a folder, and what it leaves out (docs/decisions/0009)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import NamedTuple

from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import OUTPUT_MARK
from clip_adapter.wording import counted, listed, shown

# Endings of the formats that decode reads; other files are counted, not opened.
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".jp2", ".j2k", ".jpx", ".avif"}
    | {".heic", ".heif", ".hif"}
)
# Folders that file servers, file systems, archives and Python make.
_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "#recycle", "#snapshot"}
    | {"lost+found", "$recycle.bin", "system volume information", "found.000", "__macosx"}
    | {"network trash folder", "temporary items", "thevolumesettingsfolder", "__pycache__"}
)
_OWN_FOLDERS = frozenset({"_none", "_unsorted", "_quarantine"})
# A folder that holds one of these was written by this library.
_OWN_MARKS = ("classifier.json", OUTPUT_MARK)
# Figures that it draws into any folder: these names, drawn by Matplotlib.
_OWN_FIGURES = frozenset({"confusion.png", "ratio-curve.png", "accuracy-by-shots.png"})

# Why something is left out, where others ask for it.
ENDING = "no picture by its ending"
OWN = "of clip-adapter"
SPECIAL = "a pipe or device"
DEAD = "a link that leads nowhere"
LOCKED = "cannot be opened"


class Content(NamedTuple):
    """What lies in a folder, by name, and why the rest of it does not count."""

    folders: list[Path]
    pictures: list[Path]
    left_out: dict[Path, str]

    def without(self, why: str) -> list[Path]:
        """What is left out for this reason."""
        return [path for path, reason in self.left_out.items() if reason == why]


class Walk:
    """Reads ``root`` and what is below it, always by the same rule.

    Attributes:
        left_out: why a path does not count; what is below a folder is left out with it.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.left_out = root, dict[Path, str]()
        self._contents: dict[Path, Content] = {}
        # A link to a folder above the root leads in a circle.
        above = Path(os.path.realpath(root)).parents
        self._entered: dict[str, tuple[Path, Hashable]] = {str(f): (f, None) for f in above}

    def read(self, folder: Path) -> Content:
        """What lies directly in ``folder``; what is left out of it is kept in mind.

        Raises:
            DataError: it cannot be listed.
        """
        content = self.look(folder)
        self.left_out |= content.left_out
        return content

    def look(self, folder: Path) -> Content:
        """As :meth:`read`, and nothing is kept in mind.

        Raises:
            DataError: it cannot be listed.
        """
        if folder not in self._contents:
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                raise DataError(
                    f"The folder {shown(folder)} cannot be listed: {error.strerror}.",
                    hint="Its pictures would be missing. Make it readable, or move it away.",
                ) from error
            self._contents[folder] = content = Content([], [], {})
            for entry in entries:
                path, link = folder / entry.name, entry.is_symlink()
                # Only the first takes a link that points at itself for none.
                is_folder = os.path.isdir(entry) if link else entry.is_dir()
                if why := _why_not(path, entry, is_folder, link):
                    content.left_out[path] = why
                else:
                    (content.folders if is_folder else content.pictures).append(path)
        return self._contents[folder]

    def enter(self, folder: Path, key: Hashable = None) -> bool:
        """Whether this is the first way to ``folder``; a second one is left out.

        Args:
            folder: may be a link, or lie below one.
            key: what its pictures count for.

        Raises:
            UsageError: its pictures would count for two things.
        """
        first, other = self._entered.setdefault(os.path.realpath(folder), (folder, key))
        if first == folder:
            return True
        if None not in (key, other) and key != other:
            raise UsageError(
                f"{shown(first)} and {shown(folder)} are one folder by a link, and would count "
                "for two classes or splits.",
                hint="Remove the link.",
            )
        self.left_out[folder] = "another way to a folder that is read"
        return False

    def below(self, folder: Path, key: Hashable = None) -> Iterator[tuple[Path, Content]]:
        """``folder`` and all folders below it, each with its content; links are followed.

        Args:
            folder: where to start.
            key: see :meth:`enter`.

        Raises:
            DataError: ``folder`` cannot be listed; one below it is left out.
            UsageError: see :meth:`enter`.
        """
        todo = [folder]
        while todo:
            here = todo.pop()
            if not self.enter(here, key):
                continue
            try:
                content = self.read(here)
            except DataError:
                if here == folder:
                    raise
                self.left_out[here] = LOCKED
                continue
            yield here, content
            todo += reversed(content.folders)

    def pictures(self) -> list[Path]:
        """All pictures in and below the root.

        Raises:
            DataError: the root cannot be listed.
        """
        return [path for _, content in self.below(self.root) for path in content.pictures]

    def notes(self) -> list[str]:
        """What was left out, in a line or two."""
        whys: dict[str, list[Path]] = {}
        for path, why in self.left_out.items():
            whys.setdefault(why, []).append(path)
        lines = []
        if others := whys.pop(ENDING, []):
            endings = Counter(path.suffix.lower() for path in others)
            each = ", ".join(f"{count} {end or 'without ending'}" for end, count in endings.items())
            lines.append(
                f"{counted(len(others), 'file')} left out, not pictures by their ending ({each})."
            )
        parts = [
            f"{listed(shown(path.relative_to(self.root)) for path in paths)} ({why})"
            for why, paths in whys.items()
        ]
        return lines + ([f"Left out: {'; '.join(parts)}."] if parts else [])


def _why_not(path: Path, entry: os.DirEntry[str], is_folder: bool, link: bool) -> str:
    """Why ``entry`` does not count; "" where it does."""
    if entry.name.startswith("."):
        return "hidden"
    if is_folder:
        if entry.name.casefold() in _SYSTEM_FOLDERS:
            return "of the system"
        own = entry.name in _OWN_FOLDERS or any((path / mark).exists() for mark in _OWN_MARKS)
        return OWN if own else ""
    if link and not path.exists():
        # A picture that is missing: who reads it says so.
        return "" if is_picture(entry.name) else DEAD
    if not entry.is_file():
        return SPECIAL
    if not is_picture(entry.name):
        return ENDING
    return OWN if entry.name in _OWN_FIGURES and _is_drawn(path) else ""


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its ending."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def _is_drawn(path: Path) -> bool:
    """Whether a PNG was drawn by Matplotlib, which writes its name at the beginning."""
    try:
        with open(path, "rb") as file:
            return b"Software\0Matplotlib" in file.read(512)
    except OSError:
        return False
