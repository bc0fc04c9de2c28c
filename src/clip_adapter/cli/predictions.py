"""Answers of a classifier as plain records, and these as a table, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from clip_adapter.cli.inputs import Item
from clip_adapter.cli.output import console, short, to_json
from clip_adapter.datasets.dataset import Sample
from clip_adapter.errors import DataError
from clip_adapter.features.embed import extract
from clip_adapter.features.files import load_features
from clip_adapter.features.store import FeatureStore

if TYPE_CHECKING:
    from rich.table import Table

    from clip_adapter.classifier import Classifier

Record = dict[str, Any]


def of_pictures(
    classifier: Classifier,
    items: Sequence[Item],
    top: int,
    *,
    device: str,
    batch_size: int,
    cache: Path | None,
) -> list[Record]:
    """One record per item, in order: ``path, label, probability`` or ``path, error``."""
    records: list[Record] = [{"path": item.path, "error": item.error} for item in items]
    # Rows are found again by their place: the same path may be named twice.
    samples = [
        Sample(str(i), -1, Path(item.path)) for i, item in enumerate(items) if item.error is None
    ]
    if not samples:
        return records
    features, bad = extract(
        classifier.encoder(device),
        samples,
        classifier.class_names,
        store=None if cache is None else FeatureStore(cache),
        style=classifier.info.get("preprocess", "clip"),
        batch_size=batch_size,
        allow_none=True,
    )
    for one in bad:
        records[int(one.name)]["error"] = one.reason
    if len(features):
        answered = _answers(classifier, classifier.logits(features), top)
        for name, answer in zip(features.names, answered, strict=True):
            place = int(name)
            records[place] = {"path": items[place].path, **answer}
    return records


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
    answered = _answers(classifier, classifier.logits(features), top)
    return [{"path": n, **a} for n, a in zip(features.names, answered, strict=True)]


def _answers(classifier: Classifier, logits: Tensor, top: int) -> list[Record]:
    names = classifier.class_names
    best = logits.softmax(-1).topk(min(top, len(names)), dim=-1)
    answers: list[Record] = []
    for shares, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        guesses = [
            {"label": names[i], "probability": p} for i, p in zip(indices, shares, strict=True)
        ]
        answers.append(guesses[0] | ({"top": guesses} if top > 1 else {}))
    return answers


def as_bytes(records: list[Record], form: Literal["table", "json", "csv", "parquet"]) -> bytes:
    """A file's content."""
    if form == "parquet":
        return _as_parquet(records)
    if form == "json":
        text = to_json(records) + "\n"
    elif form == "csv":
        text = as_csv(records)
    else:
        screen = console(io.StringIO())
        screen.print(as_table(records))
        text = screen.file.getvalue()  # type: ignore[attr-defined]
    return text.encode("utf-8", "surrogateescape")


def as_table(records: list[Record]) -> Table:
    """For people."""
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
            table.add_row(picture if i == 0 else "", Text(short(guess["label"])), share)
    return table


def _rows(records: list[Record]) -> list[Record]:
    """Flat records: all have the same keys; further guesses are ``label_2``, ``probability_2``."""
    most = max((len(r.get("top", ())) for r in records), default=1)
    rows = []
    for record in records:
        row = {
            "path": record["path"],
            "label": record.get("label"),
            "probability": record.get("probability"),
            "error": record.get("error"),
        }
        guesses = record.get("top", [])
        for k in range(2, most + 1):
            guess = guesses[k - 1] if len(guesses) >= k else {}
            row |= {f"label_{k}": guess.get("label"), f"probability_{k}": guess.get("probability")}
        rows.append(row)
    return rows


def as_csv(records: list[Record]) -> str:
    """``path,label,probability,error`` and, with several guesses, ``label_2,probability_2``..."""
    rows = _rows(records)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _as_parquet(records: list[Record]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row | {"path": _printable(row["path"])} for row in _rows(records)]
    kinds = {"probability": pa.float32()}
    schema = pa.schema([(name, kinds.get(name.partition("_")[0], pa.string())) for name in rows[0]])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    return sink.getvalue()


def _printable(path: str) -> str:
    return path.encode("utf-8", "replace").decode()
