"""``load_benchmark``: a data set of the paper as CoOp reads it, from CoOp's layout or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clip_adapter.datasets.catalog.base import Benchmark, HubCopy, get_benchmark
from clip_adapter.datasets.catalog.locate import (
    HUB_FOLDER,
    VARIANTS,
    find_file,
    find_folder,
    has_pictures,
    how_to_get,
)
from clip_adapter.datasets.class_names import ClassNames
from clip_adapter.datasets.coop import Row, read_rows, row_labels
from clip_adapter.datasets.dataset import SPLITS, Dataset, Sample, make_dataset
from clip_adapter.datasets.hub import load_hub
from clip_adapter.datasets.walk import folders, pictures
from clip_adapter.errors import DataError
from clip_adapter.files import read_text
from clip_adapter.wording import listed, shown


@dataclass(frozen=True)
class Listing:
    """What a set consists of: class labels, and (path in ``folder``, label index) by split.

    ``rows`` are those of CoOp's split file, where the set has one.
    """

    folder: Path
    labels: list[str]
    files: dict[str, list[tuple[str, int]]]
    rows: dict[str, list[Row]] | None = None


def load_benchmark(name: str, root: str | Path, class_names: ClassNames | None = None) -> Dataset:
    """A data set of the paper, its splits in CoOp's order, its classes by CoOp's names.

    Where CoOp reads a folder in the order of the file system, the files are sorted here.

    Args:
        name: see :func:`~clip_adapter.datasets.catalog.base.benchmark_names`.
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


def list_files(record: Benchmark, folder: Path, root: str | Path) -> Listing:
    """The files of a set in CoOp's layout, as its lists name them, there or not.

    Args:
        record: the set.
        folder: its folder, see :func:`~clip_adapter.datasets.catalog.locate.find_folder`.
        root: where else to look for the lists.

    Raises:
        DataError: a list is missing, or of another form.
    """
    if record.reader == "variants":
        return _from_variants(record, folder)
    read = _from_split if record.reader == "split" else _from_folders
    return read(record, folder, root)


def _from_split(record: Benchmark, folder: Path, root: str | Path) -> Listing:
    path = find_file(record, record.split_file, folder, root)
    rows = read_rows(path)
    prefix = f"{record.images}/" if record.images else ""
    files = {split: [(prefix + file, label) for file, label, _ in rows[split]] for split in SPLITS}
    return Listing(folder, row_labels(rows, path), files, rows)


def _from_variants(record: Benchmark, folder: Path) -> Listing:
    labels = _lines(record, folder / VARIANTS)
    index = {label: i for i, label in enumerate(labels)}
    files: dict[str, list[tuple[str, int]]] = {}
    for split in SPLITS:
        path = folder / f"images_variant_{split}.txt"
        files[split] = []
        for line in _lines(record, path):
            picture, _, label = line.partition(" ")
            if label not in index:
                raise DataError(
                    f"{shown(path)} has the line {line!r}.",
                    allowed=f"a picture and one of the {len(index)} variants in {VARIANTS}",
                )
            files[split].append((f"{record.images}/{picture}.jpg", index[label]))
    return Listing(folder, labels, files)


def _from_folders(record: Benchmark, folder: Path, root: str | Path) -> Listing:
    path = find_file(record, record.class_file, folder, root)
    names = class_table(record, path)
    by_split = {split: class_folders(folder / top) for split, top in record.split_folders.items()}
    if record.numbered:
        keys = {str(i): name for i, name in enumerate(names.values())}
    else:
        present = sorted(set().union(*by_split.values()))
        if unknown := [key for key in present if key not in names]:
            raise DataError(
                f"{record.title} in {shown(folder)} has folders that are no class of "
                f"{shown(path)}: {listed(unknown)}.",
                hint="Move them away.",
            )
        keys = {key: names[key] for key in present}
    files = {split: [] for split in SPLITS} | {
        split: [
            (f"{top}/{key}/{file}", label)
            for label, key in enumerate(keys)
            if key in by_split[split]
            for file in pictures(folder / top / key)
        ]
        for split, top in record.split_folders.items()
    }
    return Listing(folder, list(keys.values()), files)


def class_table(record: Benchmark, path: Path) -> dict[str, str]:
    """WordNet id → class name, in the file's order.

    Raises:
        DataError: a line has another form.
    """
    names: dict[str, str] = {}
    for line in _lines(record, path):
        key, _, name = line.partition(" ")
        if not name or key in names:
            raise DataError(
                f"{shown(path)} has the line {line!r}.", allowed="n01440764 tench, once each"
            )
        names[key] = name
    return names


def class_folders(path: Path) -> set[str]:
    """Names of the folders in ``path``; none where it does not exist."""
    return {folder.name for folder in folders(path)} if path.is_dir() else set()


def _lines(record: Benchmark, path: Path) -> list[str]:
    lines = read_text(path, f"{record.title}: the list").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _load_hub_copy(
    record: Benchmark,
    hub: HubCopy,
    folder: Path,
    root: str | Path,
    class_names: ClassNames | None,
) -> Dataset:
    """What ``get --hub`` brought: the hub's splits, with CoOp's class names."""
    loaded = load_hub(f"hub:{folder / HUB_FOLDER}")
    labels = [record.rename(label) for label in loaded.class_names]
    if record.class_file is not None:
        # Both sort the classes by WordNet id.
        table = class_table(record, find_file(record, record.class_file, folder, root))
        labels = list(table.values())
    if len(labels) != len(loaded.class_names):
        raise DataError(
            f"The copy in {shown(folder / HUB_FOLDER)} has {len(loaded.class_names)} classes.",
            allowed=f"the {record.classes} of {record.title}",
            hint=f"Remove that folder; then {how_to_get(record, folder.parent)}",
        )
    splits = {ours: loaded.splits.get(theirs, []) for theirs, ours in hub.splits.items()}
    note = f"Read from a copy of {hub.repository}: its own splits, not CoOp's."
    return make_dataset(record.name, labels, splits, class_names, [note], hub.repository)
