"""``load_table``: a CSV or Parquet table with the columns ``path,label[,split]``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

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
from clip_adapter.errors import DataError
from clip_adapter.files import read_text
from clip_adapter.wording import counted, listed, shown

COLUMNS = "the columns path,label and, if wanted, split (train, val or test)"
_DELIMITERS = (",", ";", "\t")

Row = tuple[int, str, str, str]
"""Number to show, path, label, split ("" without such a column)."""


def load_table(
    path: str | Path, root: str | Path | None = None, class_names: ClassNames | None = None
) -> Dataset:
    """Reads ``.csv`` or ``.tsv`` (UTF-8; comma, semicolon or tab) or ``.parquet``.

    Classes are the labels, sorted; by number where all are whole numbers. The order of the rows is
    kept. Relative paths start at ``root``, or at the table's folder. A picture that is missing
    stays in the data set, where it counts as broken; that all are missing is an error.

    Raises:
        DataError: the table cannot be read, lacks a column, has empty cells or unknown splits, or
            none of its pictures is there.
        UsageError: ``class_names`` does not fit the labels.
    """
    path = Path(path)
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    if not rows:
        raise DataError(f"The table {shown(path)} has no rows.", allowed=COLUMNS)
    _check(rows, path)
    labels = sorted({normal(label) for _, _, label, _ in rows})
    numbers = all(map(_is_number, labels))
    if numbers:
        labels.sort(key=int)
    index = {label: i for i, label in enumerate(labels)}
    names = name_classes(labels, class_names)
    base = Path(root) if root is not None else path.parent
    splits: dict[str, list[Sample]] = {}
    for _, file, label, split in rows:
        key = SPLIT_ALIASES[split.lower()] if split else UNSPLIT
        splits.setdefault(key, []).append(Sample(shown(file), index[normal(label)], base / file))
    notes = _missing_notes(rows, base, path) + _repeat_notes(splits)
    splits = present(splits)
    if class_names is None and numbers:
        notes.append("The labels are numbers: give their names with --class-names.")
    name = known_dataset(path.stem, base.resolve().name) or shown(path.stem)
    notes = class_notes(names, splits) + notes
    return Dataset(name, names, splits, resolve_templates(None, name), notes)


def _csv_rows(path: Path) -> list[Row]:
    text = read_text(path, "The table")
    first = text.split("\n", 1)[0]
    try:
        headers = [(d, _columns(next(csv.reader([first], delimiter=d), []))) for d in _DELIMITERS]
        delimiter, columns = max(headers, key=lambda pair: len({"path", "label"} & set(pair[1])))
        place = _places(columns, path)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        next(reader)
        rows: list[Row] = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            row = [cells[i] if i is not None and i < len(cells) else "" for i in place]
            rows.append((reader.line_num, row[0].strip(), row[1].strip(), row[2].strip()))
    except (csv.Error, StopIteration) as error:
        raise DataError(f"The table {shown(path)} is no CSV: {error}.", allowed=COLUMNS) from error
    return _with_split(rows, place[2] is not None, path)


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        place = _places(_columns(names), path)
        table = pq.read_table(path, columns=[names[i] for i in place if i is not None])
        cells = [
            [_cell(value) for value in table.column(names[i]).to_pylist()]
            if i is not None
            else [""] * len(table)
            for i in place
        ]
    except (OSError, pa.ArrowException) as error:
        what = f"The table {shown(path)} cannot be read as Parquet: {error}"
        raise DataError(what, allowed=COLUMNS) from error
    rows = [(i + 1, *row) for i, row in enumerate(zip(*cells, strict=True))]
    return _with_split(rows, place[2] is not None, path)


def _cell(value: object) -> str:
    return "" if value is None else str(value).strip()


def _columns(header: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in header]


def _places(columns: list[str], path: Path) -> list[int | None]:
    """Where path, label and split stand among ``columns``."""
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(
            f"The table {shown(path)} has no column {listed(missing)}; its columns: "
            f"{listed(columns, 10)}.",
            allowed=COLUMNS,
            hint="Name the columns in the first row.",
        )
    return [columns.index(name) if name in columns else None for name in ("path", "label", "split")]


def _with_split(rows: list[Row], has_split: bool, path: Path) -> list[Row]:
    known = set(SPLIT_ALIASES)
    bad = [row for row in rows if has_split and row[3].lower() not in known]
    if bad:
        values = listed(dict.fromkeys(row[3] for row in bad))
        raise DataError(
            f"{counted(len(bad), 'row')} of {shown(path)} with an unknown split {values}: "
            f"{_numbers(bad)}.",
            allowed="train, val, test",
        )
    return rows


def _check(rows: list[Row], path: Path) -> None:
    for place, column in ((1, "path"), (2, "label")):
        bad = [row for row in rows if not row[place]]
        if bad:
            raise DataError(
                f"{counted(len(bad), 'row')} of {shown(path)} without a {column}: {_numbers(bad)}.",
                hint="Fill the cells, or remove the rows.",
            )
        bad = [row for row in rows if "\0" in str(row[place])]
        if bad:
            raise DataError(f"Zero bytes in the {column} of {shown(path)}: {_numbers(bad)}.")


def _numbers(rows: list[Row]) -> str:
    numbers = ", ".join(str(row[0]) for row in rows[:5])
    return f"row {numbers}" + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def _missing_notes(rows: list[Row], base: Path, path: Path) -> list[str]:
    missing = [row for row in rows if not os.path.exists(base / row[1])]
    if not missing:
        return []
    files = listed(shown(row[1]) for row in missing)
    if len(missing) == len(rows):
        raise DataError(
            f"None of the {len(rows)} pictures of {shown(path)} is in {shown(base)}: {files}.",
            hint="Paths are relative to the table's folder; --root names another one.",
        )
    return [f"{counted(len(missing), 'picture')} of {len(rows)} missing: {files}."]


def _repeat_notes(splits: dict[str, list[Sample]]) -> list[str]:
    """Pictures in training and test, and pictures with two labels, make any accuracy doubtful."""
    notes: list[str] = []
    names = {split: {sample.name for sample in samples} for split, samples in splits.items()}
    both = sorted(names.get("test", set()) & (names.get("train", set()) | names.get("val", set())))
    if both:
        what = counted(len(both), "picture")
        notes.append(f"{what} both in test and in train or val: {listed(both)}.")
    labels: dict[str, set[int]] = {}
    for samples in splits.values():
        for sample in samples:
            labels.setdefault(sample.name, set()).add(sample.label)
    torn = [name for name, found in labels.items() if len(found) > 1]
    if torn:
        notes.append(f"{counted(len(torn), 'picture')} with two labels: {listed(torn)}.")
    return notes


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit() and len(label) < 18
