"""``load_table``: a CSV or Parquet table with the columns ``path,label[,split]``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from clip_adapter.datasets.class_names import ClassNames, nfc
from clip_adapter.datasets.dataset import UNSPLIT, Dataset, Sample, known_split, make_dataset
from clip_adapter.datasets.templates import known_dataset
from clip_adapter.errors import DataError
from clip_adapter.files import read_csv
from clip_adapter.wording import counted, listed, shown, some_of

COLUMNS = "the columns path,label and, if wanted, split (train, val or test)"


class _Row(NamedTuple):
    """A row of a table: its number to show, and its cells; ``split`` is "" where there is none."""

    number: int
    path: str
    label: str
    split: str


def load_table(
    path: str | Path, root: str | Path | None = None, class_names: ClassNames | None = None
) -> Dataset:
    """Read ``.csv`` or ``.tsv`` (UTF-8; comma, semicolon or tab) or ``.parquet``.

    Classes are the labels, sorted; by number where all are whole numbers. The order of the rows is
    kept. Relative paths start at ``root``, or at the table's folder. A picture that is missing
    stays in the data set, where it counts as broken; that all are missing is an error.

    Raises:
        DataError: the table cannot be read, lacks a column, has empty cells or unknown splits, or
            none of its pictures is there.
        UsageError: ``class_names`` does not fit the labels.
    """
    path = Path(path)
    rows = _read(path)
    labels = sorted({row.label for row in rows})
    numbers = all(label.isascii() and label.isdigit() and len(label) < 18 for label in labels)
    if numbers:
        labels.sort(key=int)
    index = {label: i for i, label in enumerate(labels)}
    base = Path(root) if root is not None else path.parent
    splits: dict[str, list[Sample]] = {}
    for row in rows:
        sample = Sample(shown(row.path), index[row.label], base / row.path)
        splits.setdefault(known_split(row.split) or UNSPLIT, []).append(sample)
    notes = _missing_notes(rows, base, path) + _repeat_notes(splits)
    if class_names is None and numbers:
        notes.append("The labels are numbers: give their names with --class-names.")
    name = known_dataset(path.stem, base.resolve().name) or shown(path.stem)
    return make_dataset(name, labels, splits, class_names, notes)


def _read(path: Path) -> list[_Row]:
    """The rows of a table, each with a path, a label and, if there are any, a known split."""
    if path.suffix.lower() == ".parquet":
        records = _parquet(path)
    else:
        records = read_csv(path, "The table", ("path", "label"), COLUMNS)
    (_, header), *records = records or [(0, [])]
    columns = [name.lower() for name in header]
    if missing := [name for name in ("path", "label") if name not in columns]:
        raise DataError(
            f"The table {shown(path)} has no column {listed(missing)}; its columns: "
            f"{listed(columns, 10)}.",
            allowed=COLUMNS,
            hint="Name the columns in the first row.",
        )
    rows = []
    for number, cells in records:
        values = dict(zip(columns, cells, strict=False))
        label = nfc(values.get("label", ""))
        rows.append(_Row(number, values.get("path", ""), label, values.get("split", "")))
    if not rows:
        raise DataError(f"The table {shown(path)} has no rows.", allowed=COLUMNS)
    _refuse("without a path", [row for row in rows if not row.path], path)
    _refuse("without a label", [row for row in rows if not row.label], path)
    _refuse("with a zero byte", [row for row in rows if "\0" in row.path + row.label], path)
    if "split" in columns:
        unknown = [row for row in rows if known_split(row.split) is None]
        words = listed(dict.fromkeys(row.split for row in unknown))
        _refuse(f"with an unknown split {words}", unknown, path)
    return rows


def _parquet(path: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of each row, as text, the names of the columns first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        # Others may hold the pictures themselves.
        chosen = [name for name in names if name.strip().lower() in ("path", "label", "split")]
        columns = [pq.read_table(path, columns=[name])[0].to_pylist() for name in chosen]
    except (OSError, pa.ArrowException) as error:
        what = f"The table {shown(path)} cannot be read as Parquet: {error}"
        raise DataError(what, allowed=COLUMNS) from error
    rows = zip(*columns, strict=True)
    cells = [["" if value is None else str(value).strip() for value in row] for row in rows]
    others = [name for name in names if name not in chosen]
    return list(enumerate([[name.strip() for name in chosen + others], *cells]))


def _refuse(what: str, bad: list[_Row], path: Path) -> None:
    if bad:
        numbers = some_of(str(row.number) for row in bad)
        raise DataError(
            f"{counted(len(bad), 'row')} of {shown(path)} {what}: row {numbers}.",
            allowed=COLUMNS,
            hint="Fill the cells, or remove the rows.",
        )


def _missing_notes(rows: list[_Row], base: Path, path: Path) -> list[str]:
    missing = [shown(row.path) for row in rows if not os.path.exists(base / row.path)]
    if not missing:
        return []
    files = listed(missing)
    if len(missing) == len(rows):
        raise DataError(
            f"None of the {len(rows)} pictures of {shown(path)} is in {shown(base)}: {files}.",
            hint="Paths are relative to the table's folder; --root names another one.",
        )
    return [f"{counted(len(missing), 'picture')} of {len(rows)} missing: {files}."]


def _repeat_notes(splits: dict[str, list[Sample]]) -> list[str]:
    """Pictures in training and test, and pictures with two labels, make any accuracy doubtful."""
    notes, test, others = [], set(), set()
    labels: dict[str, set[int]] = {}
    for split, samples in splits.items():
        (test if split == "test" else others).update(sample.name for sample in samples)
        for sample in samples:
            labels.setdefault(sample.name, set()).add(sample.label)
    if both := sorted(test & others):
        what = counted(len(both), "picture")
        notes.append(f"{what} both in test and in train or val: {listed(both)}.")
    if torn := [name for name, own in labels.items() if len(own) > 1]:
        notes.append(f"{counted(len(torn), 'picture')} with two labels: {listed(torn)}.")
    return notes
