"""``load_table``: a CSV or Parquet table with the columns ``path,label[,split]``."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from clip_adapter.datasets.class_names import ClassNames, nfc
from clip_adapter.datasets.dataset import (
    SPLITS,
    UNSPLIT,
    Dataset,
    Sample,
    known_split,
    make_dataset,
)
from clip_adapter.datasets.labels import (
    GAPS,
    NUMBER,
    all_whole,
    in_order,
    same_numbers,
    whole_number,
)
from clip_adapter.errors import DataError
from clip_adapter.files import not_permitted, read_csv
from clip_adapter.wording import counted, listed, shown, some_of

_WANTED = ("path", "label", "split")
# So many cells of one row are numbers in a table of features, and in none of pictures.
_MANY_NUMBERS = 16
COLUMNS = "the columns path,label and, if wanted, split (train, val or test)"


class _Row(NamedTuple):
    """A row of a table: its number to show, and its cells; ``split`` may be ""."""

    number: int
    path: str
    label: str
    split: str


def load_table(
    path: str | Path, root: str | Path | None = None, class_names: ClassNames | None = None
) -> Dataset:
    """Read ``.csv`` or ``.tsv`` (UTF-8; comma, semicolon or tab) or ``.parquet``.

    Classes are the labels, sorted; by number where all are whole numbers, which are then spelled
    as such (``9`` for ``9.0``, as pandas writes a column with gaps). The order of the rows is
    kept. Relative paths start at ``root``, or at the table's folder; those with backslashes are
    understood. A picture that is missing stays in the data set, where it counts as broken; that
    all are missing is an error.

    Raises:
        DataError: the table cannot be read, lacks a column or has one twice, has empty cells,
            cells beyond its columns, one number spelled in two ways or unknown splits, or none of
            its pictures is there.
        UsageError: ``class_names`` does not fit the labels.
    """
    path = Path(path)
    base = Path(root) if root is not None else path.parent
    rows, notes = _spelled(_read(path), base)
    labels = in_order(row.label for row in rows)
    index = {label: i for i, label in enumerate(labels)}
    splits = {
        split: [
            Sample(shown(row.path), index[row.label], base / row.path)
            for row in rows
            if row.split == split
        ]
        for split in (*SPLITS, UNSPLIT)
    }
    notes += _notes(rows, base, path)
    inside = base.resolve().name
    return make_dataset(path.stem, labels, splits, class_names, notes, inside=inside)


def _spelled(rows: list[_Row], base: Path) -> tuple[list[_Row], list[str]]:
    """Rows with paths, labels and splits as they are meant, and what was changed.

    Windows writes paths with backslashes, pandas whole numbers in a column with gaps as 9.0.
    """
    notes = []
    turned = {
        row.path: forward
        for row in rows
        if "\\" in row.path
        and not os.path.exists(base / row.path)
        and os.path.isfile(base / (forward := row.path.replace("\\", "/")))
    }
    if turned:
        what = counted(len(turned), "path")
        notes.append(f"{what} with backslashes read as {listed(turned.values(), 1)}.")
    labels = {row.label for row in rows}
    plain = {label: str(whole_number(label)) for label in labels if "." in label}
    plain = plain if all_whole(labels) else {}
    if plain:
        first = min(plain)
        notes.append(f"Labels with a decimal point are whole numbers: {first} is {plain[first]}.")
    return [
        _Row(
            row.number,
            turned.get(row.path, row.path),
            plain.get(row.label, row.label),
            known_split(row.split) or UNSPLIT,
        )
        for row in rows
    ], notes


def _read(path: Path) -> list[_Row]:
    """The rows of a table, each with a path, a label and, if there are any, a known split.

    Nothing that a row holds is left out but cells under the names of other columns.
    """
    if path.suffix.lower() == ".parquet":
        header, *lines = _parquet(path)
    else:
        header, *lines = read_csv(path, "The table", _WANTED[:2], COLUMNS) or [(0, [])]
    columns = [name.lower() for name in header[1]]
    while columns and not columns[-1]:  # a blank column at the end names nothing
        columns.pop()
    missing = [name for name in ("path", "label") if name not in columns]
    if (
        "path" in missing
        and lines
        and sum(map(bool, map(NUMBER.fullmatch, lines[-1][1]))) >= _MANY_NUMBERS
    ):
        label = next((name for name in ("label", "y", "class", "target") if name in columns), None)
        rest = f"t.drop(columns={label!r})" if label else "t"
        raise DataError(
            f"The table {shown(path)} holds rows of {len(lines[-1][1])} cells, most of them "
            "numbers: features, it seems, and pictures are named in a table.",
            allowed=f"{COLUMNS}; features in a .npz, .safetensors or .parquet file",
            hint=f"If they are features, convert them once: import numpy as np, pandas as pd; "
            f"t = pd.read_csv({path.name!r}); np.savez({f'{path.stem}.npz'!r}, "
            f"X={rest}.to_numpy('float32'), y={f't[{label!r}]' if label else 'labels'}"
            f"{'.to_numpy(str)' * bool(label)}). docs/features.md tells more.",
        )
    if missing:
        raise DataError(
            f"The table {shown(path)} has no column {listed(missing)}; its columns: "
            f"{listed(header[1][: len(columns)], 10)}.",
            allowed=COLUMNS,
            hint=f"Name {listed(missing)} in the first row.",
        )
    if twice := [name for name in _WANTED if columns.count(name) > 1]:
        raise DataError(
            f"The table {shown(path)} has more than one column {listed(twice)}.",
            allowed=COLUMNS,
            hint="Keep one of each, or give the others other names.",
        )
    if beyond := [number for number, values in lines if any(values[len(columns) :])]:
        raise DataError(
            f"{counted(len(beyond), 'row')} of {shown(path)} with more cells than columns: row "
            f"{some_of(map(str, beyond))}.",
            allowed=COLUMNS,
            hint='Put a cell that holds a comma in quotes: "circle, red".',
        )
    rows = [
        _Row(number, own.get("path", ""), nfc(own.get("label", "")), own.get("split", ""))
        for number, values in lines
        for own in [dict(zip(columns, values, strict=False))]
    ]
    if not rows:
        raise DataError(f"The table {shown(path)} has no rows.", allowed=COLUMNS)
    alike = same_numbers({row.label for row in rows})
    unknown = [row for row in rows if "split" in columns and known_split(row.split) is None]
    faults = {
        "without a path": [row for row in rows if not row.path],
        "without a label": [row for row in rows if not row.label],
        "with a missing label, written nan,": [row for row in rows if row.label in GAPS],
        f"with a number spelled in two ways {listed(alike)}": [r for r in rows if r.label in alike],
        "with a zero byte": [row for row in rows if "\0" in row.path + row.label],
        f"with an unknown split {listed(dict.fromkeys(row.split for row in unknown))}": unknown,
    }
    for fault, bad in faults.items():
        if bad:
            raise DataError(
                f"{counted(len(bad), 'row')} of {shown(path)} {fault}: row "
                f"{some_of(str(row.number) for row in bad)}.",
                allowed=COLUMNS,
                hint="Mend the cells, or remove the rows.",
            )
    return rows


def _parquet(path: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of each row, as text, the names of the columns first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        # Others may hold the pictures themselves.
        chosen = [name for name in names if name.strip().lower() in _WANTED]
        twice = len(set(chosen)) < len(chosen)  # pyarrow cannot choose, and it is an error anyway
        rows = [] if twice else pq.read_table(path, columns=chosen).to_pylist()
    except PermissionError as error:
        raise not_permitted(shown(path)) from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"The table {shown(path)} cannot be read as Parquet: {error}", allowed=COLUMNS
        ) from error
    header = [name.strip() for name in sorted(names, key=lambda name: name not in chosen)]
    cells = [["" if row[n] is None else str(row[n]).strip() for n in chosen] for row in rows]
    return list(enumerate([header, *cells]))


def _is_absolute(path: str) -> bool:
    return PureWindowsPath(path).is_absolute() or path.startswith("/")


def _notes(rows: list[_Row], base: Path, path: Path) -> list[str]:
    """Pictures that are missing, and those in training and test, or with two labels."""
    notes = []
    if missing := [shown(row.path) for row in rows if not os.path.exists(base / row.path)]:
        files = listed(missing)
        if len(missing) == len(rows):
            where = "this folder" if base == Path() else shown(base)
            hint = "Paths are relative to the table's folder; --root names another one."
            if any(map(_is_absolute, missing)):
                hint = (
                    "The paths are of another computer, or moved: keep the part below the folder "
                    "that --root names, or only the names of the files."
                )
            raise DataError(
                f"None of the {len(rows)} pictures of {shown(path)} is in {where}: {files}.",
                hint=hint,
            )
        notes.append(f"{counted(len(missing), 'picture')} of {len(rows)} missing: {files}.")
    # These make any accuracy doubtful.
    test = {row.path for row in rows if row.split == "test"}
    others = {row.path for row in rows if row.split != "test"}
    if both := sorted(map(shown, test & others)):
        notes.append(
            f"{counted(len(both), 'picture')} both in test and in train or val: {listed(both)}."
        )
    labels = Counter(name for name, _ in dict.fromkeys((row.path, row.label) for row in rows))
    if torn := [shown(name) for name, count in labels.items() if count > 1]:
        notes.append(f"{counted(len(torn), 'picture')} with two labels: {listed(torn)}.")
    return notes
