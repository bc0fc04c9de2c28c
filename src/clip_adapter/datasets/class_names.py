"""Class names as they are put into prompts: read from labels, or given by the user."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clip_adapter.datasets.labels import counts_otherwise, whole_number
from clip_adapter.errors import ClipAdapterError, DataError, UsageError, unknown_name
from clip_adapter.files import read_csv, read_json, read_text
from clip_adapter.reporting import log
from clip_adapter.wording import listed, shown, some_of

ClassNames = str | Path | Mapping[str, str] | Sequence[str]
"""A file, {label: name}, or the names in label order (by number where labels are whole numbers)."""

_MAPPING = "a CSV with the columns label,name (or folder,name); a JSON object {label: name}"
_ALLOWED = f"{_MAPPING}; a JSON list or a text file, one name per line, in label order"
_KEYS = ("folder", "label", "class")  # what the first column of a CSV may be called
_SHOWN = 20  # names and their labels in a line


def nfc(label: str) -> str:
    """A label in Unicode form NFC: file systems differ in how they spell an accent."""
    return unicodedata.normalize("NFC", label)


def readable(label: str) -> str:
    """The class name of a folder or label: ``_`` is a space, spaces are trimmed to one.

    Case, hyphens and CamelCase stay as they are: only their owner knows what they mean.
    """
    return " ".join(nfc(label).replace("_", " ").split()) or label


def name_classes(
    labels: Sequence[str], given: ClassNames | None = None, *, own_order: bool = False
) -> list[str]:
    """C class names for C ``labels`` (folder names, or a table's labels), in that order.

    Without ``given`` they are made by :func:`readable`; labels that would then be called alike
    keep their own spelling. What a bare list calls each label is logged. ``own_order``: the source
    itself numbers its labels so; else they were sorted.

    Raises:
        UsageError: ``given`` names a label twice, one that does not exist, not all of them, or two
            labels alike; or is a bare list, and people would count the labels in another order.
        DataError: its file cannot be read.
    """
    if given is None:
        names = [readable(label) for label in labels]
        alike = _repeated(names)
        return [lb if name in alike else name for lb, name in zip(labels, names, strict=True)]
    source, by_place = "The class names", True
    if isinstance(given, str | Path):
        source, given = f"The class names in {shown(given)}", _read(Path(given))
    if isinstance(given, Mapping):
        known = [nfc(label) for label in labels]
        given = {_key(nfc(str(label)), known): name for label, name in given.items()}
        if unknown := [label for label in given if label not in known]:
            raise unknown_name(
                "class", unknown[0], known, hint=f"{source} name a class not in the data."
            )
        if missing := [label for label in known if label not in given]:
            raise UsageError(
                f"{source} leave out {listed(missing)}.",
                hint="Add a row for each class of the data.",
            )
        given, by_place = [given[label] for label in known], False
    if len(given) != len(labels):
        raise UsageError(
            f"{source} are {len(given)}, and there are {len(labels)} classes.",
            allowed=f"one name per class, in the order {listed(labels)}",
        )
    names = [nfc(str(name)).strip() for name in given]
    if "" in names:
        raise UsageError(f"{source} leave class {labels[names.index('')]!r} without a name.")
    if twice := _repeated(names):
        alike = [label for label, name in zip(labels, names, strict=True) if name in twice]
        raise UsageError(
            f"{source} call different classes alike: {listed(twice)} (classes {listed(alike)}).",
            hint="Give each class its own name, or put the pictures into one folder.",
        )
    if by_place:
        if not own_order and (pair := counts_otherwise(labels)):
            raise UsageError(
                f"{source} are a bare list, and the order of the classes is not beyond doubt: as "
                f"text, {pair[0]!r} comes before {pair[1]!r}.",
                allowed=_MAPPING,
                hint="Say which name is whose.",
            )
        pairs = (f"{lb!r} is {name!r}" for lb, name in zip(labels, names, strict=True))
        log.warning(f"{source}, in the order of the labels: {some_of(pairs, _SHOWN)}.")
    return names


def _key(label: str, known: Sequence[str]) -> str:
    """``label``, or what a table calls the whole number that it spells (``9`` for ``9.0``)."""
    number = whole_number(label)
    return str(number) if label not in known and str(number) in known else label


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _read(path: Path) -> Mapping[str, str] | list[str]:
    what, ending = "The class name file", path.suffix.lower()
    if ending in (".csv", ".tsv"):
        (_, header), *rows = read_csv(path, what, (*_KEYS, "name"), _ALLOWED) or [(1, [])]
        number, bad = next((row for row in rows if len(row[1]) != 2), (1, header))
        columns = [cell.lower() for cell in header]
        if bad is not header or columns not in [[key, "name"] for key in _KEYS]:
            raise DataError(
                f"{shown(path)} has the header {header}, and in line {number} the row {bad}.",
                allowed=_ALLOWED,
                hint="Begin the file with the line label,name; put names that hold a comma in "
                "quotes.",
            )
        return by_class([(label, name) for _, (label, name) in rows], path)
    if ending == ".json":
        pairs = partial(by_class, path=path)
        return read_json(path, what, dict[str, str] | list[str], _ALLOWED, pairs)
    return read_text(path, what).rstrip().splitlines()


def by_class(
    pairs: Sequence[tuple[str, Any]], path: Path, kind: type[ClipAdapterError] = UsageError
) -> dict[str, Any]:
    """Pairs of (class, anything) as a mapping, by :func:`nfc` class names.

    Raises:
        UsageError: the file ``path`` names a class twice; another ``kind`` of error on demand.
    """
    if twice := _repeated([nfc(name) for name, _ in pairs]):
        raise kind(f"The class names in {shown(path)} name {listed(twice)} more than once.")
    return {nfc(name): value for name, value in pairs}
