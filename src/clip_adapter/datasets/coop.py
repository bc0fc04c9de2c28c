"""CoOp's data: its split files, and the paper's sets in its layout or as a copy of the hub.

Source: CoOp (arXiv 2109.01134); the CLIP-Adapter paper uses the same files. A split file,
``split_zhou_*.json``, holds lists of [path, label, class name] under train, val and test, its paths
relative to an image folder that is written nowhere in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, StringConstraints

from clip_adapter.datasets.catalog import Benchmark, HubCopy, SideFile, get_benchmark
from clip_adapter.datasets.class_names import ClassNames
from clip_adapter.datasets.dataset import SPLITS, Dataset, Sample, make_dataset
from clip_adapter.datasets.hub import load_hub
from clip_adapter.datasets.walk import Walk
from clip_adapter.errors import DataError
from clip_adapter.files import of_form, read_json, read_text
from clip_adapter.paths import did_you_mean
from clip_adapter.wording import counted, listed, shown

HUB_FOLDER = "hub"
_VARIANTS = "variants.txt"
_FORM = '{"train": [["path/picture.jpg", 0, "class name"], ...], "val": [...], "test": [...]}'
# How many rows must agree on the image folder: a few may be missing.
_PROBES = 25

Row = tuple[
    Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")],
    Annotated[int, Field(strict=True, ge=0)],
    str,
]
"""Path, label and class name of a picture."""


class Listing(NamedTuple):
    """What a set consists of: C class labels, and (path in its folder, label index) by split.

    ``rows`` are those of CoOp's split file, where the set has one.
    """

    labels: list[str]
    files: dict[str, list[tuple[str, int]]]
    rows: dict[str, list[Row]] | None = None


def load_coop(
    path: str | Path, root: str | Path | None = None, class_names: ClassNames | None = None
) -> Dataset:
    """Read a split file; the order of its rows is kept, since the few-shot draws depend on it.

    The image folder is ``root``, the file's own folder, or a folder directly in one of these:
    where most of the pictures are.

    Args:
        path: the JSON file; its name may tell the data set, and so the prompt template.
        root: where the pictures are.
        class_names: other names for the classes, by CoOp's names.

    Raises:
        DataError: no such file, another form, or the pictures are not found.
        UsageError: ``class_names`` does not fit the classes.
    """
    path = Path(path)
    rows = read_rows(path)
    labels = row_labels(rows, path)
    base = Path(root) if root is not None else path.parent
    files = [file for file, _, _ in chain.from_iterable(rows.values())]
    probes = files[:: max(1, len(files) // _PROBES)]
    choices = [base, *Walk(base).look(base).folders]
    hits = [sum(os.path.exists(folder / file) for file in probes) for folder in choices]
    if not any(hits):
        raise DataError(
            f"The pictures of {shown(path)} are not in {shown(base)} nor in "
            f"{counted(len(choices) - 1, 'folder')} in it; looked for {listed(probes, 2)}.",
            hint="Unpack them beside the split file, or name their folder with --root.",
        )
    folder = choices[hits.index(max(hits))]
    prefix = "" if folder == base else f"{shown(folder.name)}/"
    splits = {
        split: [Sample(prefix + file, label, folder / file) for file, label, _ in own]
        for split, own in rows.items()
    }
    return make_dataset(path.stem, labels, splits, class_names, own_order=True)


def rows_digest(rows: dict[str, list[Row]]) -> str:
    """The sha256 of all rows in their order, however the file was written."""
    text = json.dumps([rows[split] for split in SPLITS], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_rows(path: Path) -> dict[str, list[Row]]:
    """The rows of a split file: (path, label, class name) by split.

    Raises:
        DataError: no such file, or another form.
    """
    content = read_json(path, "The split file", dict[str, Any], _FORM)
    if not any(content.get(split) for split in SPLITS):
        raise DataError(
            f"{shown(path)} is no split file; it holds {listed(content)}.", allowed=_FORM
        )
    return {
        split: of_form(content.get(split, []), list[Row], f"{shown(path)} has in {split}", _FORM)
        for split in SPLITS
    }


def row_labels(rows: dict[str, list[Row]], path: Path) -> list[str]:
    """The class names in label order.

    Raises:
        DataError: a label has two names, or is left out.
    """
    names: dict[int, str] = {}
    for _, label, name in chain.from_iterable(rows.values()):
        if names.setdefault(label, name) != name:
            raise DataError(
                f"{shown(path)} calls label {label} {names[label]!r} and {name!r}.",
                allowed="one name per label",
            )
    if gaps := set(range(len(names))).difference(names):
        raise DataError(
            f"{shown(path)} has labels up to {max(names)} and none is {min(gaps)}.",
            allowed="labels 0, 1, 2, ... without gaps",
        )
    return [names[label] for label in sorted(names)]


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
    return make_dataset(record.name, listing.labels, splits, class_names, own_order=True)


def _load_hub_copy(
    record: Benchmark, hub: HubCopy, folder: Path, root: str | Path, class_names: ClassNames | None
) -> Dataset:
    """What ``get --hub`` brought: the hub's splits, with CoOp's class names."""
    loaded = load_hub(f"hub:{folder / HUB_FOLDER}")
    labels = [hub.rename(label) for label in loaded.class_names]
    if record.split_folders and record.side_file:
        # Both sort the classes by WordNet id.
        path = find_file(record, record.side_file, folder, root)
        labels = list(_class_table(record, path).values())
    if len(labels) != len(loaded.class_names):
        raise DataError(
            f"The copy in {shown(folder / HUB_FOLDER)} has {len(loaded.class_names)} classes.",
            allowed=f"the {record.classes} of {record.title}",
            hint=f"Remove that folder; then {how_to_get(record, folder.parent)}",
        )
    splits = {ours: loaded.splits.get(theirs, []) for theirs, ours in hub.splits.items()}
    note = f"Read from a copy of {hub.repository}: its own splits, not CoOp's."
    return make_dataset(
        record.name, labels, splits, class_names, [note], hub.repository, own_order=True
    )


def find_folder(record: Benchmark, root: str | Path) -> Path:
    """The folder of the set: in ``root``, or ``root`` itself, or the one above it.

    Raises:
        DataError: ``root`` does not exist, or the set is not in it.
    """
    root = Path(os.path.expanduser(root))
    if not root.is_dir():
        raise DataError(
            f"The folder {shown(root)} does not exist.{did_you_mean(root)}",
            hint=how_to_get(record, root),
        )
    # The user may name the parent of all sets, the set, or the folder with its pictures.
    own = (root / record.folder, root / record.name, root)
    candidates = [folder for folder in own if has_pictures(record, folder)]
    if root.name in record.picture_folders:
        candidates.append(root.parent)
    candidates += [folder for folder in own if record.hub and (folder / HUB_FOLDER).is_dir()]
    if not candidates:
        inside = " or ".join(f"{folder}/" for folder in record.picture_folders)
        raise DataError(
            f"{record.title} is not in {shown(root)!r}.",
            allowed=f"the folder that holds {record.folder}/, or that folder itself; in it "
            f"{inside}",
            hint=how_to_get(record, root),
        )
    return candidates[0]


def find_file(record: Benchmark, file: SideFile, folder: Path, root: str | Path) -> Path:
    """The ``side_file`` that lies beside the pictures, or one folder up.

    The class names of ImageNet may also lie in ImageNet's own folder: its shifts share them.

    Raises:
        DataError: it is nowhere.
    """
    root = Path(os.path.expanduser(root))
    near = (folder, root, folder.parent, folder.parent / "imagenet", root / "imagenet")
    paths = [place / file.name for place in near if (place / file.name).is_file()]
    if not paths:
        split = "the split as CoOp writes it: which picture is of which class and split"
        fetching = (
            f"{how_to_get(record, root)} tries to fetch it; in a browser it is at {file.link}"
        )
        raise DataError(
            f"{record.title}: {file.name} is not in {shown(folder)!r}.",
            allowed=_class_line(record) if record.split_folders else split,
            hint=f"Put it into {shown(folder)}. "
            f"{fetching if file.link else f'Its owners may have it: {record.homepage}'}",
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
    path = find_file(record, record.side_file, folder, root) if record.side_file else None
    if record.split_folders:
        return _from_folders(record, folder, path)
    if path is None:
        return _from_variants(record, folder)
    rows = read_rows(path)
    files = {s: [(record.prefix + file, label) for file, label, _ in rows[s]] for s in SPLITS}
    return Listing(row_labels(rows, path), files, rows)


def _from_variants(record: Benchmark, folder: Path) -> Listing:
    labels = _lines(record, folder / _VARIANTS)
    index = {label: i for i, label in enumerate(labels)}
    files: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    for split, rows in files.items():
        path = folder / f"images_variant_{split}.txt"
        for line in _lines(record, path):
            picture, _, label = line.partition(" ")
            if label not in index:
                raise DataError(
                    f"{shown(path)} has the line {line!r}.",
                    allowed=f"a picture and one of the {len(index)} variants in {_VARIANTS}",
                )
            rows.append((f"{record.prefix}{picture}.jpg", index[label]))
    return Listing(labels, files)


def _from_folders(record: Benchmark, folder: Path, path: Path | None) -> Listing:
    walk = Walk(folder)
    there = {split: class_folders(folder / top) for split, top in record.split_folders.items()}
    own = {key: key for key in sorted(set().union(*there.values()))}
    names = own if path is None else _class_table(record, path)
    if record.numbered:
        names = own = {str(i): name for i, name in enumerate(names.values())}
    if unknown := [key for key in own if key not in names]:
        raise DataError(
            f"{record.title} in {shown(folder)} has folders that are no class of "
            f"{shown(path or folder)}: {listed(unknown)}.",
            hint="Move them away.",
        )
    files = {
        split: [
            (f"{record.split_folders[split]}/{key}/{file.name}", label)
            for label, key in enumerate(own)
            if key in there.get(split, ())
            for file in walk.look(folder / record.split_folders[split] / key).pictures
        ]
        for split in SPLITS
    }
    return Listing([names[key] for key in own], files)


def class_folders(path: Path) -> set[str]:
    """Names of the folders in ``path``; none where it does not exist."""
    return {folder.name for folder in Walk(path).look(path).folders} if path.is_dir() else set()


def _class_table(record: Benchmark, path: Path) -> dict[str, str]:
    """Class folder, or whatever else stands first → class name, in the file's order."""
    names: dict[str, str] = {}
    for line in _lines(record, path):
        key, _, name = line.partition(" ")
        if not name or key in names:
            raise DataError(f"{shown(path)} has the line {line!r}.", allowed=_class_line(record))
        names[key] = name
    return names


def _class_line(record: Benchmark) -> str:
    key = "an id" if record.numbered else "the name of its folder"
    return f"a line for each class: {key}, a space, the name of the class; each once"


def _lines(record: Benchmark, path: Path) -> list[str]:
    lines = read_text(path, f"{record.title}: the list").splitlines()
    return [line.strip() for line in lines if line.strip()]
