"""Where a data set of the paper lies: its folder, and the files beside the pictures."""

from __future__ import annotations

import os
from pathlib import Path

from clip_adapter.datasets.catalog.base import Benchmark, SideFile
from clip_adapter.errors import DataError
from clip_adapter.wording import shown

HUB_FOLDER = "hub"
DOWNLOADS = "downloads"
VARIANTS = "variants.txt"


def find_folder(record: Benchmark, root: str | Path) -> Path:
    """The folder of the set: in ``root``, or ``root`` itself, or the one above it.

    Raises:
        DataError: ``root`` does not exist, or the set is not in it.
    """
    root = Path(os.path.expanduser(root))
    if not root.is_dir():
        raise DataError(f"The folder {shown(root)} does not exist.", hint=how_to_get(record, root))
    # The user may name the parent of all sets, the set, or the folder with its pictures.
    folders = (root / record.folder, root / record.name, root)
    candidates = [folder for folder in folders if has_pictures(record, folder)]
    if root.name in _marks(record):
        candidates.append(root.parent)
    if record.hub is not None:
        candidates += [folder for folder in folders if (folder / HUB_FOLDER).is_dir()]
    if candidates:
        return candidates[0]
    raise DataError(
        f"{record.title} is not in {shown(root)}.",
        allowed=f"the folder that holds {record.folder}/, or that folder itself; in it "
        + " or ".join(f"{mark}/" for mark in _marks(record)),
        hint=how_to_get(record, root),
    )


def _marks(record: Benchmark) -> list[str]:
    """Folders inside the set's that show that it is there."""
    if record.split_folders:
        return list(record.split_folders.values())
    # Cars keep their pictures in two folders beside the split file.
    return [record.images] if record.images else ["cars_train", "cars_test"]


def find_file(record: Benchmark, file: SideFile | None, folder: Path, root: str | Path) -> Path:
    """A file that lies beside the pictures, or one folder up.

    The class names of ImageNet may also lie in ImageNet's own folder: its shifts share them.

    Raises:
        DataError: it is nowhere.
    """
    assert file is not None, record.name  # noqa: S101 - the reader of a record goes with its files
    root = Path(os.path.expanduser(root))
    near = [folder, root, folder.parent]
    if file is record.class_file:
        near += [folder.parent / "imagenet", root / "imagenet"]
    for place in near:
        if (place / file.name).is_file():
            return place / file.name
    raise DataError(
        f"{record.title}: {file.name} is not in {shown(folder)}.",
        allowed="CoOp's file, since it says which picture is of which class and split",
        hint=f"Put it into {shown(folder)}. {how_to_get(record, root)} tries to fetch it; in a "
        f"browser it is at {file.link}",
    )


def has_pictures(record: Benchmark, folder: Path) -> bool:
    """Whether ``folder`` has the pictures in CoOp's layout, and not only a copy of the hub."""
    return any((folder / mark).is_dir() for mark in _marks(record))


def how_to_get(record: Benchmark, root: Path) -> str:
    """The command that brings the set."""
    return f"clip-adapter data get {record.name} --root {shown(root)}"
