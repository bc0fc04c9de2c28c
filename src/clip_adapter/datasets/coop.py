"""``load_coop``: the split files of CoOp, ``split_zhou_*.json``.

Source: CoOp (arXiv 2109.01134); the CLIP-Adapter paper uses the same files. They hold lists of
[path, label, class name] under train, val and test, their paths relative to an image folder that
is written nowhere in them.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from clip_adapter.datasets.class_names import ClassNames, name_classes
from clip_adapter.datasets.dataset import SPLITS, Dataset, Sample, class_notes, present
from clip_adapter.datasets.templates import known_dataset, resolve_templates
from clip_adapter.errors import DataError
from clip_adapter.files import read_text
from clip_adapter.wording import counted, listed, shown

_FORM = '{"train": [["path/picture.jpg", 0, "class name"], ...], "val": [...], "test": [...]}'
# How many rows must agree on the image folder: a few may be missing.
_PROBES = 25

Row = tuple[str, int, str]


def load_coop(
    path: str | Path, root: str | Path | None = None, class_names: ClassNames | None = None
) -> Dataset:
    """Reads a split file; the order of its rows is kept, since the few-shot draws depend on it.

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
    names = name_classes(labels, class_names)
    base = Path(root) if root is not None else path.parent
    folder = _image_folder(rows, base, path)
    prefix = folder.relative_to(base).as_posix()
    prefix = "" if prefix == "." else f"{shown(prefix)}/"
    splits = present(
        {
            split: [Sample(prefix + file, label, folder / file) for file, label, _ in rows[split]]
            for split in rows
        }
    )
    name = known_dataset(path.stem) or shown(path.stem)
    notes = class_notes(names, splits)
    return Dataset(name, names, splits, resolve_templates(None, name), notes)


def rows_digest(rows: dict[str, list[Row]]) -> str:
    """The sha256 of all rows in their order, however the file was written."""
    text = json.dumps([rows[split] for split in SPLITS], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_rows(path: Path) -> dict[str, list[Row]]:
    """The rows of a split file: (path, label, class name) by split.

    Raises:
        DataError: no such file, or another form.
    """
    try:
        found: Any = json.loads(read_text(path, "The split file"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(path)} is no JSON: {error}.", allowed=_FORM) from error
    if not isinstance(found, dict) or not any(found.get(split) for split in SPLITS):
        keys = listed(found) if isinstance(found, dict) else type(found).__name__
        raise DataError(f"{shown(path)} is no split file; it holds {keys}.", allowed=_FORM)
    for split in SPLITS:
        rows = found.get(split, [])
        bad = None if isinstance(rows, list) else rows
        bad = next((row for row in rows if not _is_row(row)), None) if bad is None else bad
        if bad is not None:
            raise DataError(f"{shown(path)} has in {split}: {str(bad)[:200]}", allowed=_FORM)
    return {split: [tuple(row) for row in found.get(split, [])] for split in SPLITS}


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and isinstance(row[0], str)
        and "\0" not in row[0]
        and type(row[1]) is int
        and row[1] >= 0
        and isinstance(row[2], str)
    )


def row_labels(rows: dict[str, list[Row]], path: Path) -> list[str]:
    """The class names in label order.

    Raises:
        DataError: a label has two names, or is left out.
    """
    names: dict[int, str] = {}
    for split in rows.values():
        for _, label, name in split:
            if names.setdefault(label, name) != name:
                raise DataError(
                    f"{shown(path)} calls label {label} {names[label]!r} and {name!r}.",
                    allowed="one name per label",
                )
    if len(names) <= max(names):
        gap = next(label for label in range(len(names)) if label not in names)
        raise DataError(
            f"{shown(path)} has labels up to {max(names)} and none is {gap}.",
            allowed="labels 0, 1, 2, ... without gaps",
        )
    return [names[label] for label in sorted(names)]


def _image_folder(rows: dict[str, list[Row]], base: Path, path: Path) -> Path:
    files = [file for split in rows.values() for file, _, _ in split]
    probes = files[:: max(1, len(files) // _PROBES)]
    try:
        folders = [base, *sorted(entry for entry in base.iterdir() if entry.is_dir())]
    except OSError as error:
        raise DataError(f"The folder {shown(base)} cannot be listed: {error.strerror}.") from error
    hits = [sum(os.path.exists(folder / file) for file in probes) for folder in folders]
    if not max(hits):
        raise DataError(
            f"The pictures of {shown(path)} are not in {shown(base)} nor in "
            f"{counted(len(folders) - 1, 'folder')} in it; looked for {listed(probes, 2)}.",
            hint="Unpack them beside the split file, or name their folder with --root.",
        )
    return folders[hits.index(max(hits))]
