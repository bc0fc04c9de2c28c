"""``load_folder``: pictures in class folders, with or without splits above them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from clip_adapter.datasets.class_names import ClassNames, name_classes, normal
from clip_adapter.datasets.dataset import (
    SPLIT_ALIASES,
    UNSPLIT,
    Dataset,
    Sample,
    class_notes,
    present,
)
from clip_adapter.datasets.templates import known_dataset, resolve_templates
from clip_adapter.errors import DataError
from clip_adapter.wording import counted, listed, shown

# Endings of the formats that decode reads; other files are counted, not opened.
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".jp2", ".j2k", ".jpx", ".avif"}
)
LAYOUTS = "FOLDER/class/picture.jpg, or FOLDER/train|val|test/class/picture.jpg"
_HOW = "Put the pictures of each class into a folder of its own."
# Names that say nothing of the data set; the folder above does.
_GENERIC = ("2750", "images", "jpg", "data", "101_ObjectCategories", "UCF-101-midframes")


@dataclass
class _Found:
    """What a walk met: picture paths by split and label, and what was left out."""

    pictures: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    other_endings: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, split: str, class_folder: Path) -> None:
        classes = self.pictures.setdefault(split, {})
        classes.setdefault(normal(class_folder.name), []).extend(
            _walk(class_folder, self.other_endings)
        )

    def note_loose(self, folder: Path) -> None:
        loose = sum(_is_picture(entry.name) for entry in _entries(folder) if not _is_dir(entry))
        if loose:
            self.notes.append(
                f"{counted(loose, 'picture')} directly in {shown(folder)} without a class folder: "
                "left out. Move them into the folder of their class to have them read."
            )


def load_folder(root: str | Path, class_names: ClassNames | None = None) -> Dataset:
    """Reads ``root/class/...`` (split "all") or ``root/train|val|test/class/...``.

    Classes are the folder names, sorted; pictures in deeper folders belong to their class;
    pictures are sorted by path. ``training``, ``valid``, ``validation``, ``dev`` and ``testing``
    are understood. A class folder without pictures stays a class. Hidden files are skipped, files
    with other endings counted in the notes. A folder that holds one folder only is looked into.

    Args:
        root: the folder.
        class_names: names for the prompts, see :func:`~.class_names.name_classes`.

    Raises:
        DataError: no such folder, or no class folders with pictures in it.
        UsageError: ``class_names`` does not fit the classes.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"The folder {shown(root)} {what}.", allowed=LAYOUTS)
    found = _Found()
    base = _descend(root, found)
    folders = _folders(base)
    split_folders = _split_folders(base, folders)
    found.note_loose(base)
    for folder in folders:
        if not split_folders:
            found.add(UNSPLIT, folder)
        elif folder in split_folders:
            for class_folder in _folders(folder):
                found.add(SPLIT_ALIASES[folder.name.lower()], class_folder)
            found.note_loose(folder)
    if split_folders and len(split_folders) < len(folders):
        others = [folder.name for folder in folders if folder not in split_folders]
        found.notes.append(f"Not train, val or test, left out: {listed(others)}.")
    return _dataset(root, found, class_names)


def _dataset(root: Path, found: _Found, class_names: ClassNames | None) -> Dataset:
    if found.other_endings:
        total = sum(found.other_endings.values())
        endings = ", ".join(f"{n} {e or 'without ending'}" for e, n in found.other_endings.items())
        found.notes.append(
            f"{counted(total, 'file')} left out, not pictures by their ending ({endings})."
        )
    labels = sorted({label for classes in found.pictures.values() for label in classes})
    total = sum(len(p) for classes in found.pictures.values() for p in classes.values())
    if not total:
        what = f"class folders {listed(labels)}, but no picture" if labels else "no class folder"
        raise DataError(
            f"The folder {shown(root)} has {what} in it.",
            allowed=LAYOUTS,
            hint=" ".join(found.notes)
            or "Put the pictures of each class into a folder of its own.",
        )
    names = name_classes(labels, class_names)
    splits = {
        split: [
            Sample(shown(path.relative_to(root).as_posix()), index, path)
            for index, label in enumerate(labels)
            for path in sorted(classes.get(label, []), key=lambda path: path.as_posix())
        ]
        for split, classes in found.pictures.items()
    }
    splits = present(splits)
    notes = class_notes(names, splits) + found.notes
    name = _name(root.resolve())
    return Dataset(name, names, splits, resolve_templates(None, name), notes)


def _name(root: Path) -> str:
    own = root.parent.name if root.name in _GENERIC else root.name
    return known_dataset(own) or shown(root.name) or "pictures"


def _descend(root: Path, found: _Found) -> Path:
    """Past folders that hold nothing but one folder of folders, as an unpacked archive does."""
    base = root
    while True:
        folders = _folders(base)
        loose = any(_is_picture(entry.name) for entry in _entries(base) if not _is_dir(entry))
        if len(folders) != 1 or loose or not _folders(folders[0]):
            break
        if folders[0].name.lower() in SPLIT_ALIASES:
            break
        base = folders[0]
    if base != root:
        found.notes.append(f"The classes were found in {shown(base.relative_to(root))}/.")
    return base


def _split_folders(base: Path, folders: list[Path]) -> list[Path]:
    """The folders that are splits: named so and holding folders.

    A class may be called "train" too, so one such name among others is a class.
    """
    named = [folder for folder in folders if folder.name.lower() in SPLIT_ALIASES]
    structured = [folder for folder in named if _folders(folder)]
    if len(structured) >= 2 or (structured and len(named) == len(folders)):
        return structured
    if named and len(named) == len(folders):
        raise DataError(
            f"In {shown(base)}, {listed(folder.name for folder in named)} have no class folders.",
            allowed=LAYOUTS,
            hint=_HOW,
        )
    return []


def _walk(folder: Path, other_endings: Counter[str]) -> list[Path]:
    """All pictures below ``folder``; symbolic links are followed, circles are not."""
    pictures, todo, seen = [], [folder], set()
    while todo:
        here = todo.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(here):
            path = here / entry.name
            if _is_dir(entry):
                todo.append(path)
            elif _is_picture(entry.name) and (entry.is_symlink() or entry.is_file()):
                pictures.append(path)
            else:
                other_endings[path.suffix.lower()] += 1
    return pictures


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in ``folder`` and is not hidden, sorted."""
    try:
        with os.scandir(folder) as entries:
            seen = [e for e in entries if not e.name.startswith(".") and e.name != "__MACOSX"]
    except OSError as error:
        raise DataError(
            f"The folder {shown(folder)} cannot be listed: {error.strerror}."
        ) from error
    return sorted(seen, key=lambda entry: entry.name)


def _folders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _entries(folder) if _is_dir(entry)]


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # A link that points at itself.
    except OSError:
        return False


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
