"""Predictions of a classifier as plain records, and these as a table, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clip_adapter.cli.inputs import Item
from clip_adapter.cli.output import SCHEMA, console, to_json
from clip_adapter.datasets.dataset import Sample
from clip_adapter.errors import DataError
from clip_adapter.features.embed import embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features
from clip_adapter.features.store import FeatureStore
from clip_adapter.options import SourceOptions
from clip_adapter.wording import shortened

if TYPE_CHECKING:
    from rich.table import Table

    from clip_adapter.classifier import Classifier

Record = dict[str, Any]
COLUMNS = ("path", "label", "probability", "error")


def of_pictures(
    classifier: Classifier,
    items: Sequence[Item],
    top: int,
    reading: SourceOptions,
    *,
    cache: Path | None,
) -> list[Record]:
    """One record per item, in order: ``path, label, probability`` or ``path, error``."""
    errors = {i: item.error for i, item in enumerate(items) if item.error is not None}
    answers: list[Record] = []
    if len(errors) < len(items):
        features, bad = embed(
            classifier.encoder(reading.device),
            # Rows are found again by their place: the same path may be named twice.
            [Sample(str(i), -1, Path(x.path)) for i, x in enumerate(items) if i not in errors],
            classifier.class_names,
            store=None if cache is None else FeatureStore(cache),
            preprocess=classifier.info.get("preprocess", "clip"),
            batch_size=reading.batch_size,
            decode=reading.decode,
            unreadable="return",
        )
        errors |= {int(one.name): one.reason for one in bad}
        answers = _answers(classifier, features, top)
    following = iter(answers)
    return [
        {"path": item.path, **({"error": errors[i]} if i in errors else next(following))}
        for i, item in enumerate(items)
    ]


def of_features(classifier: Classifier, spec: str, top: int) -> list[Record]:
    """One record per row of a set of features.

    Raises:
        DataError: the classifier trained inside its backbone.
    """
    if classifier.tower_adapter is not None:
        raise DataError(
            f"{spec} holds features of a backbone as it was; this classifier trained inside it.",
            hint="Give the pictures.",
        )
    features = load_features(spec, feature_norm=classifier.feature_norm).feature_set
    answers = _answers(classifier, features, top)
    return [{"path": n, **answer} for n, answer in zip(features.names, answers, strict=True)]


def _answers(classifier: Classifier, features: FeatureSet, top: int) -> list[Record]:
    names = classifier.class_names
    best = classifier.logits(features).softmax(-1).topk(min(top, len(names)), dim=-1)
    answers: list[Record] = []
    for shares, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        guesses = [
            {"label": names[i], "probability": p} for i, p in zip(indices, shares, strict=True)
        ]
        answers.append(guesses[0] | ({"top": guesses} if top > 1 else {}))
    return answers


def as_bytes(records: list[Record], form: Literal["table", "json", "csv", "parquet"]) -> bytes:
    """The content of a file that holds ``records`` in this form."""
    if form == "parquet":
        return _as_parquet(records)
    if form == "table":
        screen = console(io.StringIO())
        screen.print(as_table(records))
        text = screen.file.getvalue()  # type: ignore[attr-defined]
    else:
        text = as_csv(records) if form == "csv" else to_json(as_json(records)) + "\n"
    return text.encode("utf-8", "surrogateescape")


def as_json(records: list[Record]) -> list[Record]:
    """``records``, each with the version of its fields."""
    return [{"schema": SCHEMA, **record} for record in records]


def as_table(records: list[Record]) -> Table:
    """``records`` as a table to read."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for record in records:
        picture = Text(_printable(record["path"]))
        if "error" in record:
            table.add_row(picture, Text(f"error: {record['error']}", style="red"), "")
            continue
        for i, guess in enumerate(record.get("top") or [record]):
            share = f"{guess['probability']:.3f}"
            table.add_row(picture if i == 0 else "", Text(shortened(guess["label"])), share)
    return table


def as_csv(records: list[Record]) -> str:
    """``path,label,probability,error`` and, with several guesses, ``label_2,probability_2``..."""
    columns, rows = _flat(records)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(records: list[Record]) -> tuple[list[str], list[Record]]:
    """Columns, and rows that lack some of them; guesses go on as ``label_2``, ``label_3``..."""
    rows = [{key: value for key, value in record.items() if key != "top"} for record in records]
    for row, record in zip(rows, records, strict=True):
        for k, guess in enumerate(record.get("top", [])[1:], 2):
            row |= {f"{key}_{k}": value for key, value in guess.items()}
    return list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])), rows


def _as_parquet(records: list[Record]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, rows = _flat(records)
    numbers = [name.startswith("probability") for name in columns]
    kinds = [pa.float32() if number else pa.string() for number in numbers]
    printable = [row | {"path": _printable(row["path"])} for row in rows]
    sink = io.BytesIO()
    schema = pa.schema(list(zip(columns, kinds, strict=True)))
    pq.write_table(pa.Table.from_pylist(printable, schema), sink)
    return sink.getvalue()


def _printable(path: str) -> str:
    return path.encode("utf-8", "replace").decode()
