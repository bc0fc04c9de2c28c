"""``Published``: the figures of the paper and of its peers, as they were printed.

Two files, one row for each number. ``tables.csv`` holds the tables of CLIP-Adapter (arXiv
2110.04544), with a note where a number contradicts the text or another table.
``fewshot_numbers.csv`` holds accuracies by shots from figures and released logs, under two kinds
of preprocessing that are never mixed.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clip_adapter.bench.shipped import shipped
from clip_adapter.datasets.templates import TEMPLATES
from clip_adapter.errors import DataError

TABLES, FEW_SHOT = "tables.csv", "fewshot_numbers.csv"
TABLE_COLUMNS = (
    "table", "row", "column", "dataset", "backbone", "style", "shots", "metric", "value", "unit",
    "source", "note",
)  # fmt: skip
FEW_SHOT_COLUMNS = ("source", "backbone", "preprocess", "dataset", "method", "shots", "acc")
UNITS = {
    "top1": ("%",),
    "train_time": ("min",),
    "inference": ("ms",),
    "parameters": ("M",),
    "memory": ("MiB", "GiB"),
}
AVERAGE = "avg"
# Other spellings in the file.
_DATASETS = {"fgvc": "fgvc_aircraft"}
_STYLES = {"clip-style": "clip", "coop-style": "coop"}
DIGITISED = "digitised"


@dataclass(frozen=True)
class TableFigure:
    """A number of a table of the paper.

    Attributes:
        table: its number.
        row: as a system's label says it.
        column: as the table says it.
        dataset: what it was measured on.
        backbone: as the paper writes it, such as "ViT-B/16".
        style: preprocessing, "coop" or "clip".
        shots: K.
        metric: "top1", "train_time", "inference", "parameters" or "memory".
        value: in ``unit``.
        unit: "%", "min", "ms", "M", "MiB" or "GiB".
        source: where it is printed.
        note: what is odd about it.
    """

    table: int
    row: str
    column: str
    dataset: str
    backbone: str
    style: str
    shots: int
    metric: str
    value: float
    unit: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class FewShotFigure:
    """An accuracy of a figure or log. ``shots`` is 0 for zero-shot; ``dataset`` may be "avg"."""

    source: str
    backbone: str
    style: str
    dataset: str
    method: str
    shots: int
    accuracy: float

    @property
    def digitised(self) -> bool:
        """Read off a plot, to 0.2 points."""
        return DIGITISED in self.source


@dataclass(frozen=True)
class Published:
    """Every published number that is known here."""

    tables: tuple[TableFigure, ...] = ()
    few_shot: tuple[FewShotFigure, ...] = ()

    def table(self, number: int) -> list[TableFigure]:
        """The numbers of one table."""
        return [f for f in self.tables if f.table == number]

    def accuracy(
        self, method: str, dataset: str, backbone: str, style: str, shots: int
    ) -> FewShotFigure | None:
        """The accuracy of ``method``, from the first source that has it.

        Args:
            method: as the file calls it.
            dataset: name, or "avg".
            backbone: as ``--backbone`` has it, or as the paper does.
            style: "clip" or "coop".
            shots: K; zero-shot has the same at every K.
        """
        wanted = (method, dataset, paper_backbone(backbone), style)
        for f in self.few_shot:
            if (f.method, f.dataset, f.backbone, f.style) == wanted and f.shots in (0, shots):
                return f
        return None


def paper_backbone(name: str) -> str:
    """``ViT-B-16/openai`` -> ``ViT-B/16``, ``RN50/openai`` -> ``RN50``; others as they are."""
    if not name.endswith("/openai"):
        return name
    return re.sub(r"^ViT-([BLH])-", r"ViT-\1/", name.removesuffix("/openai"))


@cache
def load_published(folder: Path | None = None) -> Published:
    """Both files of ``folder``; those of the package by default.

    Raises:
        DataError: one is missing or damaged; says the line.
    """
    folder = folder or shipped("published")
    tables = tuple(_table_figure(*row) for row in _rows(folder / TABLES, TABLE_COLUMNS))
    few_shot = tuple(_few_shot(*row) for row in _rows(folder / FEW_SHOT, FEW_SHOT_COLUMNS))
    return Published(tables, few_shot)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(place in words, row) of every row."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", hint=_AGAIN) from error
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        head = tuple(next(reader, ()))
        if head != columns:
            raise DataError(
                f"{path} has the columns {', '.join(head) or 'none'}.",
                allowed=", ".join(columns),
                hint=_AGAIN,
            )
        for row in reader:
            place = f"{path.name}, line {reader.line_num}"
            if len(row) != len(columns):
                raise _damaged(place, f"{len(row)} values", str(len(columns)))
            yield place, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path} is damaged: {error}.", hint=_AGAIN) from error


_AGAIN = "Install clip-adapter again, or take the file from its repository."


def _damaged(place: str, found: str, allowed: str) -> DataError:
    return DataError(f"{place}: {found}.", allowed=allowed, hint=_AGAIN)


def _table_figure(place: str, row: Mapping[str, str]) -> TableFigure:
    metric, unit = row["metric"], row["unit"]
    if unit not in UNITS.get(metric, ()):
        known = ", ".join(f"{m} in {' or '.join(u)}" for m, u in UNITS.items())
        raise _damaged(place, f"{metric!r} in {unit!r}", known)
    if row["style"] not in _STYLES.values():
        raise _damaged(place, f"the style {row['style']!r}", "coop, clip")
    numbers = {
        "table": int(_number(place, "table", row["table"], whole=True)),
        "shots": int(_number(place, "shots", row["shots"], whole=True)),
        "value": _number(place, "value", row["value"], 100 if unit == "%" else math.inf),
    }
    return TableFigure(**{**row, **numbers})


def _few_shot(place: str, row: Mapping[str, str]) -> FewShotFigure:
    style = _STYLES.get(row["preprocess"])
    if style is None:
        raise _damaged(place, f"the preprocessing {row['preprocess']!r}", ", ".join(_STYLES))
    dataset = _DATASETS.get(row["dataset"], row["dataset"])
    if dataset != AVERAGE and dataset not in TEMPLATES:
        raise _damaged(place, f"the data set {row['dataset']!r}", ", ".join(TEMPLATES))
    return FewShotFigure(
        row["source"],
        row["backbone"],
        style,
        dataset,
        row["method"],
        int(_number(place, "shots", row["shots"], whole=True)),
        _number(place, "acc", row["acc"], 100),
    )


def _number(place: str, what: str, text: str, most: float = math.inf, whole: bool = False) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError as error:
        raise _damaged(place, f"{what} = {text!r}", "a number") from error
    if not 0 <= value <= most or math.isinf(value):
        raise _damaged(place, f"{what} = {text}", f"0 to {most:g}")
    return value
