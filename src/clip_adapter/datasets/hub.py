"""``load_hub``: a data set of the Hugging Face hub, or one saved by ``datasets`` on disk."""

from __future__ import annotations

import os
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clip_adapter.datasets.class_names import ClassNames, nfc
from clip_adapter.datasets.dataset import UNSPLIT, Dataset, Sample, known_split, make_dataset
from clip_adapter.datasets.labels import in_order
from clip_adapter.errors import DataError, MissingExtraError, UsageError
from clip_adapter.wording import counted, first_line, listed, shown

FORM = "hub:OWNER/NAME, hub:OWNER/NAME@REVISION, hub:OWNER/NAME@REVISION:CONFIG, hub:/FOLDER"
_SPEC = re.compile(
    r"(?P<name>[\w.\-]+(?:/[\w.\-]+)?)(?:@(?P<revision>[^:@]+))?(?::(?P<config>.+))?"
)
# Of several columns of a kind, the first of these names is the one.
_NAMES = {
    "image": ("image", "img", "picture"),
    "label": ("label", "labels", "class", "fine_label", "target"),
}
_LABEL_TYPES = ("string", "large_string", "int64", "int32", "int16", "int8", "uint8", "bool")


def check_extra() -> None:
    """Check that the package ``datasets`` is there, without importing it.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("datasets") is None:
        raise MissingExtraError("datasets", "hub", "Reading data sets of the hub")


def load_hub(spec: str, class_names: ClassNames | None = None) -> Dataset:
    """Read ``hub:name[@revision][:config]``, or ``hub:/folder`` as ``save_to_disk`` wrote it.

    Pictures stay encoded until they are read. The image and label columns are found by their
    types. ``validation`` is "val"; a set with one split only has no splits (the hub calls such a
    set "train"); rows without a label are left out and counted in the notes.

    Raises:
        MissingExtraError: the package ``datasets`` is not installed.
        UsageError: ``spec`` has another form, or ``class_names`` does not fit.
        DataError: the set cannot be had, or has no image or label column.
    """
    check_extra()
    import datasets

    name = spec.removeprefix("hub:")
    notes: list[str] = []
    chosen = _splits(_load(name), notes)
    features = next(iter(chosen.values())).features
    images, named, plain = (
        [column for column, kind in features.items() if isinstance(kind, wanted)]
        for wanted in (datasets.Image, datasets.ClassLabel, datasets.Value)
    )
    plain = [c for c in plain if c.lower() in _NAMES["label"] and features[c].dtype in _LABEL_TYPES]
    image = _column(features, "image", images, name)
    label = _column(features, "label", named or plain, name)
    if any(rows.features.get(label) != features[label] for rows in chosen.values()):
        raise DataError(f"The splits of 'hub:{name}' disagree on the column {label!r}.")
    if named:
        labels = list(features[label].names)
        index = {number: number for number in range(len(labels))}
    else:
        # A column without names: its values, sorted.
        values = {v for rows in chosen.values() for v in rows[label] if v is not None}
        labels = in_order(nfc(str(value)) for value in values)
        place = {name: number for number, name in enumerate(labels)}
        index = {value: place[nfc(str(value))] for value in values}
    samples: dict[str, list[Sample]] = {}
    for split, rows in chosen.items():
        pictures = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        samples[split] = [
            Sample(shown(f"{split}/{row}"), index[value], partial(_encoded, pictures, image, row))
            for row, value in enumerate(rows[label])
            if value in index
        ]
        if without := len(rows) - len(samples[split]):
            notes.append(f"{counted(without, 'row')} of {split} without a label: left out.")
    if not any(samples.values()):
        raise DataError(f"{spec} has no labelled pictures.", hint="Name another configuration.")
    short = re.split("[@:]", name)[0].rstrip("/").split("/")[-1]
    return make_dataset(short, labels, samples, class_names, notes, own_order=bool(named))


def _encoded(rows: Any, column: str, row: int) -> bytes:
    """The bytes of a picture as they were uploaded, or of the file that the row names."""
    value = rows[row][column] or {}
    if value.get("bytes") is not None:
        return value["bytes"]
    return Path(value["path"]).read_bytes() if value.get("path") else b""


def _load(name: str) -> Any:
    import datasets

    local = Path(os.path.expanduser(name))
    spec = None if name.startswith((".", "/", "~")) else _SPEC.fullmatch(name)
    if name and local.is_dir():
        saved = any((local / f).exists() for f in ("dataset_dict.json", "state.json"))
        load = partial(datasets.load_from_disk if saved else datasets.load_dataset, str(local))
    elif spec is not None:
        options = {"name": spec["config"], "revision": spec["revision"]}
        load = partial(datasets.load_dataset, spec["name"], **options)
    else:
        raise UsageError(f"'hub:{name}' names no data set and no folder.", allowed=FORM)
    try:
        return load()
    # datasets raises its own errors, those of requests, fsspec, pyarrow and plain ValueErrors.
    except Exception as error:
        raise DataError(
            f"The data set 'hub:{name}' cannot be loaded: {first_line(error)}",
            allowed=FORM,
            hint="Check the name and the connection. Without one: on a machine that has it, run "
            "datasets.load_dataset(...).save_to_disk('FOLDER'), copy FOLDER here and name it "
            "hub:FOLDER.",
        ) from error


def _splits(loaded: Any, notes: list[str]) -> dict[str, Any]:
    """The hub's splits by our names; what is left out goes to ``notes``."""
    splits = dict(loaded.items()) if isinstance(loaded, dict) else {UNSPLIT: loaded}
    if len(splits) == 1:
        ((only, rows),) = splits.items()
        if only != UNSPLIT:
            notes.append(f"The data set has one split, {only!r}: it is read as a whole.")
        return {UNSPLIT: rows}
    # Of two words for the same split, the first counts.
    names = {known_split(split): split for split in reversed(splits) if known_split(split)}
    if not names:
        raise DataError(
            f"The data set has the splits {listed(splits)}.", allowed="train, validation, test"
        )
    if others := [split for split in splits if split not in names.values()]:
        notes.append(f"Splits left out: {listed(others)}.")
    return {ours: splits[theirs] for ours, theirs in names.items() if ours}


def _column(features: Any, kind: str, chosen: list[str], name: str) -> str:
    """The one column of a kind, or that of several whose name comes first in ``_NAMES``."""
    by_name = {column.lower(): column for column in reversed(chosen)}
    known = chosen if len(chosen) == 1 else [by_name[n] for n in _NAMES[kind] if n in by_name]
    if not known:
        what = f"{len(chosen)} {kind} columns ({listed(chosen)})" if chosen else f"no {kind} column"
        raise DataError(
            f"The data set 'hub:{name}' has {what}; its columns: {listed(features, 10)}.",
            allowed=f"one {kind} column, or one of several called {' or '.join(_NAMES[kind])}",
            hint="Rename the column with datasets, save_to_disk, and name that folder.",
        )
    return known[0]
