"""Class names as they are put into prompts: read from labels, or given by the user."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_adapter.errors import DataError, UsageError, unknown_name
from clip_adapter.files import read_text
from clip_adapter.wording import listed, shown

ClassNames = str | Path | Mapping[str, str] | Sequence[str]
"""A file, {label: name}, or the names in label order."""

_ALLOWED = (
    "a CSV with the columns folder,name; a JSON object {folder: name} or list of names; "
    "a text file with one name per line, in label order"
)


def normal(label: str) -> str:
    """A label in Unicode form NFC: file systems differ in how they spell an accent."""
    return unicodedata.normalize("NFC", label)


def readable(label: str) -> str:
    """The class name of a folder or label: ``_`` is a space, spaces are trimmed to one.

    Case, hyphens and CamelCase stay as they are: only their owner knows what they mean.
    """
    return " ".join(normal(label).replace("_", " ").split()) or label


def name_classes(labels: Sequence[str], given: ClassNames | None = None) -> list[str]:
    """C class names for C ``labels`` (folder names, or a table's labels), in that order.

    Without ``given`` they are made by :func:`readable`; labels that would then be called alike
    keep their own spelling.

    Raises:
        UsageError: ``given`` names a label twice, one that does not exist, not all of them, or two
            labels alike.
        DataError: its file cannot be read.
    """
    if given is None:
        names = [readable(label) for label in labels]
        twice = {name for name, count in Counter(names).items() if count > 1}
        return [label if name in twice else name for label, name in zip(labels, names, strict=True)]
    if isinstance(given, str | Path):
        source, given = f"The class names in {shown(given)}", _read(Path(given))
    else:
        source = "The class names"
    names = _by_label(labels, given, source) if isinstance(given, Mapping) else list(given)
    if len(names) != len(labels):
        raise UsageError(
            f"{source} are {len(names)}, and there are {len(labels)} classes.",
            allowed=f"one name per class, in the order {listed(labels)}",
        )
    names = [normal(str(name)).strip() for name in names]
    if "" in names:
        raise UsageError(f"{source} leave class {labels[names.index('')]!r} without a name.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        alike = [label for label, name in zip(labels, names, strict=True) if name in twice]
        raise UsageError(
            f"{source} call different classes alike: {listed(twice)} (classes {listed(alike)}).",
            hint="Give each class its own name, or put the pictures into one folder.",
        )
    return names


def _by_label(labels: Sequence[str], given: Mapping[str, str], source: str) -> list[str]:
    table = {normal(str(label)): name for label, name in given.items()}
    known = [normal(label) for label in labels]
    for label in table:
        if label not in known:
            raise unknown_name(
                "class", label, known, hint=f"{source} name a class not in the data."
            )
    missing = [label for label in known if label not in table]
    if missing:
        raise UsageError(
            f"{source} leave out {listed(missing)}.", hint="Add a row for each class of the data."
        )
    return [table[label] for label in known]


def _read(path: Path) -> Mapping[str, str] | list[str]:
    text = read_text(path, "The class name file")
    if path.suffix.lower() in (".csv", ".tsv"):
        return _read_csv(text, path)
    if path.suffix.lower() == ".json":
        return _read_json(text, path)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _read_csv(text: str, path: Path) -> Mapping[str, str]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except csv.Error as error:
        raise DataError(f"{shown(path)} is not a CSV: {error}.", allowed=_ALLOWED) from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if header != ["folder", "name"] or any(len(row) != 2 for row in rows):
        bad = next((row for row in rows if len(row) != 2), header)
        raise DataError(
            f"{shown(path)} has the header {header}"
            + (f" and the row {bad}." if bad != header else "."),
            allowed=_ALLOWED,
            hint="Begin the file with the line folder,name; put names that hold a comma in quotes.",
        )
    return _unique([(row[0].strip(), row[1]) for row in rows[1:]], path)


def _read_json(text: str, path: Path) -> Mapping[str, str] | list[str]:
    try:
        found: Any = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(path)} is no JSON: {error}.", allowed=_ALLOWED) from error
    values = found.values() if isinstance(found, dict) else found
    if not isinstance(found, dict | list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{shown(path)} does not hold names.", allowed=_ALLOWED)
    return found


def _unique(pairs: Sequence[tuple[str, str]], path: Path) -> dict[str, str]:
    twice = [key for key, count in Counter(normal(key) for key, _ in pairs).items() if count > 1]
    if twice:
        raise UsageError(f"The class names in {shown(path)} name {listed(twice)} more than once.")
    return dict(pairs)
