"""``load_coop``: the split files of CoOp, ``split_zhou_*.json``.

Source: CoOp (arXiv 2109.01134); the CLIP-Adapter paper uses the same files. They hold lists of
[path, label, class name] under train, val and test, their paths relative to an image folder that
is written nowhere in them.
"""

from __future__ import annotations

import hashlib
import json
import os
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from clip_adapter.datasets.class_names import ClassNames
from clip_adapter.datasets.dataset import SPLITS, Dataset, Sample, make_dataset
from clip_adapter.datasets.walk import folders
from clip_adapter.errors import DataError
from clip_adapter.files import of_form, read_json
from clip_adapter.wording import counted, listed, shown

_FORM = '{"train": [["path/picture.jpg", 0, "class name"], ...], "val": [...], "test": [...]}'
# How many rows must agree on the image folder: a few may be missing.
_PROBES = 25

Row = tuple[
    Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")],
    Annotated[int, Field(strict=True, ge=0)],
    str,
]
"""Path, label and class name of a picture."""


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
    folder = _image_folder(rows, base, path)
    prefix = "" if folder == base else f"{shown(folder.name)}/"
    splits = {
        split: [Sample(prefix + file, label, folder / file) for file, label, _ in own]
        for split, own in rows.items()
    }
    return make_dataset(path.stem, labels, splits, class_names)


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


def _image_folder(rows: dict[str, list[Row]], base: Path, path: Path) -> Path:
    files = [file for file, _, _ in chain.from_iterable(rows.values())]
    probes = files[:: max(1, len(files) // _PROBES)]
    choices = [base, *folders(base)]
    hits = [sum(os.path.exists(folder / file) for file in probes) for folder in choices]
    if not max(hits):
        raise DataError(
            f"The pictures of {shown(path)} are not in {shown(base)} nor in "
            f"{counted(len(choices) - 1, 'folder')} in it; looked for {listed(probes, 2)}.",
            hint="Unpack them beside the split file, or name their folder with --root.",
        )
    return choices[hits.index(max(hits))]
