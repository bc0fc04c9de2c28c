"""``load_folder``: pictures in class folders; and what a folder holds, in one order everywhere."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from clip_adapter.datasets.class_names import ClassNames, nfc
from clip_adapter.datasets.dataset import UNSPLIT, Dataset, Sample, known_split, make_dataset
from clip_adapter.datasets.templates import known_dataset
from clip_adapter.errors import DataError
from clip_adapter.wording import counted, listed, shown

# Endings of the formats that decode reads; other files are counted, not opened.
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".jp2", ".j2k", ".jpx", ".avif"}
    | {".heic", ".heif", ".hif"}
)
LAYOUTS = "FOLDER/class/picture.jpg, or FOLDER/train|val|test/class/picture.jpg"
_HOW = "Put the pictures of each class into a folder of its own."
# Names that say nothing of the data set; the folder above does.
_GENERIC = ("2750", "images", "jpg", "data", "101_ObjectCategories", "UCF-101-midframes")


def load_folder(root: str | Path, class_names: ClassNames | None = None) -> Dataset:
    """Read ``root/class/...`` (split "all") or ``root/train|val|test/class/...``.

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
    base, notes = _descend(root), []
    if base != root:
        notes.append(f"The classes were found in {shown(base.relative_to(root))}/.")
    inside = folders(base)
    split_folders = _split_folders(base, inside)
    notes += (
        f"{counted(len(loose), 'picture')} directly in {shown(folder)} without a class folder: "
        "left out. Move them into the folder of their class to have them read."
        for folder in (base, *split_folders)
        if (loose := pictures(folder))
    )
    others = [folder for folder in inside if folder not in split_folders]
    if split_folders and others:
        notes.append(f"Not train, val or test, left out: {listed(f.name for f in others)}.")
    classes = [(known_split(f.name) or UNSPLIT, own) for f in split_folders for own in folders(f)]
    classes = classes if split_folders else [(UNSPLIT, folder) for folder in others]
    labels = sorted({nfc(folder.name) for _, folder in classes})
    files: list[tuple[int, str, Path]] = []
    endings: Counter[str] = Counter()
    for split, folder in classes:
        label = labels.index(nfc(folder.name))
        for entry in files_below(folder):
            # A pipe is none, whatever it is called; a link that leads nowhere is a broken one.
            if is_picture(entry.name) and (entry.is_symlink() or entry.is_file()):
                files.append((label, split, Path(entry.path)))
            else:
                endings[os.path.splitext(entry.name)[1].lower()] += 1
    if endings:
        each = ", ".join(f"{count} {end or 'without ending'}" for end, count in endings.items())
        what = counted(endings.total(), "file")
        notes.append(f"{what} left out, not pictures by their ending ({each}).")
    if not files:
        what = f"class folders {listed(labels)}, but no picture" if labels else "no class folder"
        raise DataError(
            f"The folder {shown(root)} has {what} in it.",
            allowed=LAYOUTS,
            hint=" ".join(notes) or _HOW,
        )
    splits: defaultdict[str, list[Sample]] = defaultdict(list)
    for label, split, path in sorted(files, key=lambda file: (file[0], file[2].as_posix())):
        splits[split].append(Sample(shown(path.relative_to(root).as_posix()), label, path))
    full = root.resolve()
    known = known_dataset(full.parent.name if full.name in _GENERIC else full.name)
    return make_dataset(known or full.name or "pictures", labels, splits, class_names, notes)


def _descend(base: Path) -> Path:
    """``base``, or the folder in it where it only wraps one, as an unpacked archive does."""
    inside = folders(base)
    if len(inside) != 1 or pictures(base) or known_split(inside[0].name) or not folders(inside[0]):
        return base
    return _descend(inside[0])


def _split_folders(base: Path, inside: list[Path]) -> list[Path]:
    """The folders that are splits: named so and holding folders.

    A class may be called "train" too, so one such name among others is a class.
    """
    named = [folder for folder in inside if known_split(folder.name)]
    structured = [folder for folder in named if folders(folder)]
    if len(structured) >= 2 or (structured and len(named) == len(inside)):
        return structured
    if named and len(named) == len(inside):
        raise DataError(
            f"In {shown(base)}, {listed(folder.name for folder in named)} have no class folders.",
            allowed=LAYOUTS,
            hint=_HOW,
        )
    return []


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
    # Only the second takes a link that points at itself for none.
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()
