"""``load_benchmark``: a data set of the paper as CoOp reads it, from CoOp's layout or the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from clip_adapter.datasets.catalog import Benchmark, HubCopy, get_benchmark
from clip_adapter.datasets.class_names import ClassNames
from clip_adapter.datasets.coop import Row, read_rows, row_labels
from clip_adapter.datasets.dataset import SPLITS, Dataset, Sample, make_dataset
from clip_adapter.datasets.hub import load_hub
from clip_adapter.datasets.walk import folders, pictures
from clip_adapter.errors import DataError
from clip_adapter.files import read_text
from clip_adapter.wording import listed, shown

HUB_FOLDER = "hub"
_VARIANTS = "variants.txt"


class Listing(NamedTuple):
    """What a set consists of: C class labels, and (path in its folder, label index) by split.

    ``rows`` are those of CoOp's split file, where the set has one.
    """

    labels: list[str]
    files: dict[str, list[tuple[str, int]]]
    rows: dict[str, list[Row]] | None = None


def load_benchmark(name: str, root: str | Path, class_names: ClassNames | None = None) -> Dataset:
    """A data set of the paper, its splits in CoOp's order, its classes by CoOp's names.

    Where CoOp reads a folder in the order of the file system, the files are sorted here.

    Args:
        name: see :func:`~clip_adapter.datasets.catalog.benchmark_names`.
        root: the folder with all sets in CoOp's layout, or the folder of this one.
        class_names: other names for the classes, by CoOp's names.

    Raises:
        UsageError: no such set, or ``class_names`` does not fit.
        DataError: the set is not there, or a file that tells its splits or classes.
    """
    record = get_benchmark(name)
    folder = find_folder(record, root)
    if record.hub is not None and not has_pictures(record, folder):
        return _load_hub_copy(record, record.hub, folder, root, class_names)
    listing = list_files(record, folder, root)
    splits = {
        split: [Sample(shown(file), label, folder / file) for file, label in files]
        for split, files in listing.files.items()
    }
    if not any(splits.values()):
        raise DataError(
            f"{record.title} in {shown(folder)} has no pictures.",
            hint=how_to_get(record, folder.parent),
        )
    # CLIP calls two pairs of ImageNet's classes alike (missile, sunglasses), and so does CoOp.
    return make_dataset(record.name, listing.labels, splits, class_names)


def _load_hub_copy(
    record: Benchmark, hub: HubCopy, folder: Path, root: str | Path, class_names: ClassNames | None
) -> Dataset:
    """What ``get --hub`` brought: the hub's splits, with CoOp's class names."""
    loaded = load_hub(f"hub:{folder / HUB_FOLDER}")
    labels = [hub.rename(label) for label in loaded.class_names]
    if record.split_folders:
        # Both sort the classes by WordNet id.
        labels = list(_class_table(record, find_file(record, folder, root)).values())
    if len(labels) != len(loaded.class_names):
        raise DataError(
            f"The copy in {shown(folder / HUB_FOLDER)} has {len(loaded.class_names)} classes.",
            allowed=f"the {record.classes} of {record.title}",
            hint=f"Remove that folder; then {how_to_get(record, folder.parent)}",
        )
    splits = {ours: loaded.splits.get(theirs, []) for theirs, ours in hub.splits.items()}
    note = f"Read from a copy of {hub.repository}: its own splits, not CoOp's."
    return make_dataset(record.name, labels, splits, class_names, [note], hub.repository)


def find_folder(record: Benchmark, root: str | Path) -> Path:
    """The folder of the set: in ``root``, or ``root`` itself, or the one above it.

    Raises:
        DataError: ``root`` does not exist, or the set is not in it.
    """
    root = Path(os.path.expanduser(root))
    if not root.is_dir():
        raise DataError(f"The folder {shown(root)} does not exist.", hint=how_to_get(record, root))
    # The user may name the parent of all sets, the set, or the folder with its pictures.
    own = (root / record.folder, root / record.name, root)
    candidates = [folder for folder in own if has_pictures(record, folder)]
    if root.name in record.picture_folders:
        candidates.append(root.parent)
    if record.hub is not None:
        candidates += [folder for folder in own if (folder / HUB_FOLDER).is_dir()]
    if not candidates:
        inside = " or ".join(f"{folder}/" for folder in record.picture_folders)
        raise DataError(
            f"{record.title} is not in {shown(root)}.",
            allowed=f"the folder that holds {record.folder}/, or that folder itself; in it "
            f"{inside}",
            hint=how_to_get(record, root),
        )
    return candidates[0]


def find_file(record: Benchmark, folder: Path, root: str | Path) -> Path:
    """The file that lies beside the pictures, or one folder up.

    The class names of ImageNet may also lie in ImageNet's own folder: its shifts share them.

    Raises:
        DataError: it is nowhere.
    """
    file, root = record.side_file, Path(os.path.expanduser(root))
    near = (folder, root, folder.parent, folder.parent / "imagenet", root / "imagenet")
    paths = [place / file.name for place in near if file and (place / file.name).is_file()]
    if file and not paths:
        raise DataError(
            f"{record.title}: {file.name} is not in {shown(folder)}.",
            allowed="CoOp's file, since it says which picture is of which class and split",
            hint=f"Put it into {shown(folder)}. {how_to_get(record, root)} tries to fetch it; in a "
            f"browser it is at {file.link}",
        )
    return paths[0]


def has_pictures(record: Benchmark, folder: Path) -> bool:
    """Whether ``folder`` has the pictures in CoOp's layout, and not only a copy of the hub."""
    return any((folder / inner).is_dir() for inner in record.picture_folders)


def how_to_get(record: Benchmark, root: Path) -> str:
    """The command that brings the set."""
    return f"clip-adapter data get {record.name} --root {shown(root)}"


def list_files(record: Benchmark, folder: Path, root: str | Path) -> Listing:
    """The files of a set in CoOp's layout, as its lists name them, there or not.

    Args:
        record: the set.
        folder: its folder, see :func:`find_folder`.
        root: where else to look for the lists.

    Raises:
        DataError: a list is missing, or of another form.
    """
    if record.split_folders:
        return _from_folders(record, folder, root)
    if record.side_file is None:
        return _from_variants(record, folder)
    path = find_file(record, folder, root)
    rows = read_rows(path)
    files = {s: [(record.prefix + file, label) for file, label, _ in rows[s]] for s in SPLITS}
    return Listing(row_labels(rows, path), files, rows)


def _from_variants(record: Benchmark, folder: Path) -> Listing:
    labels = _lines(record, folder / _VARIANTS)
    index = {label: i for i, label in enumerate(labels)}
    files: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        path = folder / f"images_variant_{split}.txt"
        for line in _lines(record, path):
            picture, _, label = line.partition(" ")
            if label not in index:
                raise DataError(
                    f"{shown(path)} has the line {line!r}.",
                    allowed=f"a picture and one of the {len(index)} variants in {_VARIANTS}",
                )
            files[split].append((f"{record.prefix}{picture}.jpg", index[label]))
    return Listing(labels, files)


def _from_folders(record: Benchmark, folder: Path, root: str | Path) -> Listing:
    path = find_file(record, folder, root)
    names = _class_table(record, path)
    there = {split: class_folders(folder / top) for split, top in record.split_folders.items()}
    if record.numbered:
        names = {str(i): name for i, name in enumerate(names.values())}
    keys = list(names) if record.numbered else sorted(set().union(*there.values()))
    if unknown := [key for key in keys if key not in names]:
        raise DataError(
            f"{record.title} in {shown(folder)} has folders that are no class of "
            f"{shown(path)}: {listed(unknown)}.",
            hint="Move them away.",
        )
    files = {
        split: [
            (f"{record.split_folders[split]}/{key}/{file}", label)
            for label, key in enumerate(keys)
            if key in there.get(split, ())
            for file in pictures(folder / record.split_folders[split] / key)
        ]
        for split in SPLITS
    }
    return Listing([names[key] for key in keys], files)


def class_folders(path: Path) -> set[str]:
    """Names of the folders in ``path``; none where it does not exist."""
    return {folder.name for folder in folders(path)} if path.is_dir() else set()


def _class_table(record: Benchmark, path: Path) -> dict[str, str]:
    """WordNet id → class name, in the file's order."""
    names: dict[str, str] = {}
    for line in _lines(record, path):
        key, _, name = line.partition(" ")
        if not name or key in names:
            raise DataError(
                f"{shown(path)} has the line {line!r}.", allowed="n01440764 tench, once each"
            )
        names[key] = name
    return names


def _lines(record: Benchmark, path: Path) -> list[str]:
    lines = read_text(path, f"{record.title}: the list").splitlines()
    return [line.strip() for line in lines if line.strip()]
