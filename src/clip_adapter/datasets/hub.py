"""``load_hub``: a data set of the Hugging Face hub, or one saved by ``datasets`` on disk."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from clip_adapter.errors import DataError, MissingExtraError, UsageError
from clip_adapter.wording import counted, listed, shown

FORM = "hub:OWNER/NAME, hub:OWNER/NAME@REVISION, hub:OWNER/NAME@REVISION:CONFIG, hub:/FOLDER"
_SPEC = re.compile(
    r"(?P<name>[\w.\-]+(?:/[\w.\-]+)?)(?:@(?P<revision>[^:@]+))?(?::(?P<config>.+))?"
)
# Of several columns of a kind, the first of these names is the one.
_IMAGE_COLUMNS = ("image", "img", "picture")
_LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "target")


@dataclass(frozen=True)
class HubPicture:
    """Reads the encoded bytes of one row when called; ``rows`` holds the image column alone."""

    rows: Any
    column: str
    index: int

    def __call__(self) -> bytes:
        """The bytes as they were uploaded.

        Raises:
            OSError: the row holds only a path, and the file cannot be read.
        """
        value = self.rows[self.index][self.column]
        if value and value.get("bytes") is not None:
            return value["bytes"]
        if not value or not value.get("path"):
            return b""
        return Path(value["path"]).read_bytes()


def load_hub(spec: str, class_names: ClassNames | None = None) -> Dataset:
    """Reads ``hub:name[@revision][:config]``, or ``hub:/folder`` as ``save_to_disk`` wrote it.

    Pictures stay encoded until they are read. The image and label columns are found by their
    types. ``validation`` is "val"; a set with one split only has no splits (the hub calls such a
    set "train"); rows without a label are left out and counted in the notes.

    Raises:
        MissingExtraError: the package ``datasets`` is not installed.
        UsageError: ``spec`` has another form, or ``class_names`` does not fit.
        DataError: the set cannot be had, or has no image or label column.
    """
    name = spec.removeprefix("hub:")
    loaded = _load(name)
    splits = dict(loaded.items()) if isinstance(loaded, dict) else {UNSPLIT: loaded}
    notes: list[str] = []
    chosen = _map_splits(splits, notes)
    first = next(iter(chosen.values()))
    image = _image_column(first.features, name)
    label = _label_column(first.features, name)
    labels = _labels(chosen, label, name)
    names = name_classes(labels, class_names)
    samples = {split: _samples(rows, image, label, labels, split) for split, rows in chosen.items()}
    for split, rows in chosen.items():
        without = len(rows) - len(samples[split])
        if without:
            notes.append(f"{counted(without, 'row')} of {split} without a label: left out.")
    found = present(samples)
    if not found:
        raise DataError(f"{spec} has no labelled pictures.", hint="Name another configuration.")
    short = name.split("@")[0].split(":")[0].rstrip("/").split("/")[-1]
    title = known_dataset(short) or short
    notes = class_notes(names, found) + notes
    return Dataset(title, names, found, resolve_templates(None, title), notes)


def _load(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hub", "Reading data sets of the hub") from error
    local = Path(os.path.expanduser(name))
    is_local = bool(name) and local.is_dir()
    match = _SPEC.fullmatch(name)
    if not is_local and (match is None or name.startswith((".", "/", "~"))):
        raise UsageError(f"'hub:{name}' names no data set and no folder.", allowed=FORM)
    repository, revision, config = match.groups() if match else (name, None, None)
    try:
        if is_local:
            saved = any((local / f).exists() for f in ("dataset_dict.json", "state.json"))
            read = datasets.load_from_disk if saved else datasets.load_dataset
            return read(str(local))
        return datasets.load_dataset(repository, name=config, revision=revision)
    # datasets raises its own errors, those of requests, fsspec, pyarrow and plain ValueErrors.
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"The data set 'hub:{name}' cannot be loaded: {reason}",
            allowed=FORM,
            hint="Check the name and the connection. Without one: on a machine that has it, run "
            "datasets.load_dataset(...).save_to_disk('FOLDER'), copy FOLDER here and name it "
            "hub:FOLDER.",
        ) from error


def _map_splits(splits: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The hub's splits by our names."""
    if len(splits) == 1:
        (only, rows), *_ = splits.items()
        if only != UNSPLIT:
            notes.append(f"The data set has one split, {only!r}: it is read as a whole.")
        return {UNSPLIT: rows}
    chosen: dict[str, Any] = {}
    others: list[str] = []
    for split, rows in splits.items():
        key = SPLIT_ALIASES.get(split.lower())
        if key is None or key in chosen:
            others.append(split)
        else:
            chosen[key] = rows
    if not chosen:
        raise DataError(
            f"The data set has the splits {listed(splits)}.", allowed="train, validation, test"
        )
    if others:
        notes.append(f"Splits left out: {listed(others)}.")
    return chosen


def _image_column(features: Any, name: str) -> str:
    import datasets

    columns = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    return _pick(columns, _IMAGE_COLUMNS, "image", features, name)


def _label_column(features: Any, name: str) -> str:
    import datasets

    columns = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not columns:
        plain = ("string", "large_string", "int64", "int32", "int16", "int8", "uint8", "bool")
        kinds = [k for k, kind in features.items() if getattr(kind, "dtype", "") in plain]
        columns = [key for key in kinds if key.lower() in _LABEL_COLUMNS]
    return _pick(columns, _LABEL_COLUMNS, "label", features, name)


def _pick(
    columns: list[str], preferred: tuple[str, ...], kind: str, features: Any, name: str
) -> str:
    if len(columns) == 1:
        return columns[0]
    by_name = {column.lower(): column for column in reversed(columns)}
    for wanted in preferred:
        if wanted in by_name:
            return by_name[wanted]
    found = f"{len(columns)} {kind} columns ({listed(columns)})" if columns else f"no {kind} column"
    raise DataError(
        f"The data set 'hub:{name}' has {found}; its columns: {listed(features, 10)}.",
        allowed=f"one {kind} column, or one of several called {' or '.join(preferred)}",
        hint="Rename the column with datasets, save_to_disk, and name that folder.",
    )


def _labels(chosen: dict[str, Any], label: str, name: str) -> list[str]:
    import datasets

    kinds = [rows.features.get(label) for rows in chosen.values()]
    if any(kind != kinds[0] for kind in kinds):
        raise DataError(f"The splits of 'hub:{name}' disagree on the column {label!r}.")
    if isinstance(kinds[0], datasets.ClassLabel):
        return list(kinds[0].names)
    values = {value for rows in chosen.values() for value in rows[label] if value is not None}
    return list(dict.fromkeys(normal(str(value)) for value in sorted(values)))


def _samples(rows: Any, image: str, label: str, labels: list[str], split: str) -> list[Sample]:
    import datasets

    values = rows[label]
    pictures = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    by_name = isinstance(rows.features[label], datasets.Value)
    index = {name: i for i, name in enumerate(labels)}
    samples: list[Sample] = []
    for row, value in enumerate(values):
        if by_name and value is not None:
            value = index[normal(str(value))]
        if value is not None and 0 <= value < len(labels):
            name = shown(f"{split}/{row}")
            samples.append(Sample(name, int(value), HubPicture(pictures, image, row)))
    return samples
