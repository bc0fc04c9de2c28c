"""Predictions as plain records: of which pictures, by a classifier, and as a table or a file."""

from __future__ import annotations

import csv
import glob
import io
import os
import sys
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_adapter.cli.formats import Format
from clip_adapter.cli.output import SCHEMA, console, table, to_json
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.walk import LOCKED, Walk
from clip_adapter.errors import DataError, UsageError
from clip_adapter.paths import (
    ARCHIVES,
    DOWNLOAD,
    NOT_FETCHED,
    UNPACK,
    did_you_mean,
    is_remote,
)
from clip_adapter.reporting import log, tracking
from clip_adapter.wording import as_utf8, counted, printable, shortened, shown, some_of

if TYPE_CHECKING:
    from rich.table import Table

    from clip_adapter.classifier import Classifier
    from clip_adapter.datasets.open import DataSpec
    from clip_adapter.evaluation import Report
    from clip_adapter.features.feature_set import FeatureSet
    from clip_adapter.options import SourceOptions

Record = dict[str, Any]
"""``path``, and ``label, probability`` or ``error``; with several guesses also ``top``."""
NO_PICTURE = "the folder holds no picture"
_BINARY = {*range(1, 32)} - {*b"\t\n\r"}
AT_ONCE = 2**14  # pictures of which features are held
COLUMNS = ("path", "label", "probability", "error")
ANSWERED = ("path", "label", "answer", "probability")
"""Of pictures whose ``label`` is known, with what was answered."""


def collect(words: Sequence[str], recursive: bool) -> list[Record]:
    """The pictures that ``words`` mean, in that order, as ``path``, with ``error`` for none.

    Args:
        words: files, folders, globs (which a shell did not expand), or ``-`` for a list on
            standard input, separated by NUL where there is one, else by line ends, where each may
            stand in quotes.
        recursive: also what lies in folders of a folder.

    Raises:
        UsageError: nothing is meant at all, or standard input is no text.
    """
    listed = sys.stdin.buffer.read().removeprefix(BOM_UTF8) if "-" in words else b""
    # A name may hold such a byte, but not every hundredth is one.
    if b"\0\0" in listed or 100 * sum(map(listed.count, _BINARY)) > len(listed):
        raise UsageError(
            "Standard input is no list of paths: it is no text.",
            allowed="- takes a list of paths, one a line, or separated by NUL",
            hint="Name a picture by its path: clip-adapter predict CLASSIFIER PICTURE.",
        )
    lines = listed.split(b"\0") if b"\0" in listed else listed.replace(b"\r\n", b"\n").split(b"\n")
    paths = [_unquoted(os.fsdecode(line)) for line in lines if line.strip()]
    names = chain.from_iterable(paths if word == "-" else [word] for word in words)
    records = [record for name in names for record in _expand(name, recursive)]
    if not records:
        raise UsageError(
            "No pictures were named.", hint="Name files, folders or globs, or '-' and a list."
        )
    return records


def _unquoted(path: str) -> str:
    """``path`` without the quotes around it that Windows' "Copy as path" and others add."""
    quoted = len(path) > 2 and path[0] == path[-1] and path[0] in "\"'"
    return path[1:-1] if quoted and not os.path.lexists(path) else path


def _expand(word: str, recursive: bool) -> list[Record]:
    path = os.path.expanduser(word)
    if is_remote(word):
        return [{"path": word, "error": f"{NOT_FETCHED}. {DOWNLOAD}"}]
    try:
        matches = [path] if Path(path).exists() else sorted(glob.glob(path, recursive=True))
        records: list[list[Record]] = [
            pictures(one, recursive) if os.path.isdir(one) else [_file(one)] for one in matches
        ]
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        return [{"path": word, "error": getattr(error, "strerror", None) or str(error)}]
    nothing = f"no such file.{guess}" if (guess := did_you_mean(path)) else "no such file"
    nothing = "nothing matches this pattern" if glob.has_magic(word) else nothing
    fault = NO_PICTURE if matches else nothing
    # A pattern may match a folder, and what is in it as well.
    by_place = {os.path.abspath(one["path"]): one for one in chain(*records)}
    return [*by_place.values()] or [{"path": word, "error": fault}]


def _file(path: str) -> Record:
    if os.path.splitext(path)[1].lower() in ARCHIVES:
        return {"path": path, "error": f"an archive. {UNPACK}"}
    return {"path": path}


def pictures(folder: str, recursive: bool) -> list[Record]:
    """The pictures in ``folder``, sorted, and folders in it that cannot be opened.

    What else is left out is logged; docs/decisions/0009-folders.md has the rule.
    """
    walk = Walk(Path(folder))
    try:
        paths = walk.pictures() if recursive else walk.read(Path(folder)).pictures
    except DataError as error:
        return [{"path": folder, "error": error.found}]
    for note in walk.notes():
        log.warning(f"{shown(folder)}: {note}")
    locked = [path for path, why in walk.left_out.items() if why == LOCKED]
    return [{"path": str(path)} for path in paths] + [
        {"path": str(path), "error": LOCKED} for path in locked
    ]


def by_class(records: Sequence[Record]) -> str:
    """How many pictures were answered by each class, those of most first."""
    counts = Counter(record["label"] for record in records if "label" in record)
    return "Answers: " + some_of(f"{shortened(name)} {n:,}" for name, n in counts.most_common())


def check_any(records: Sequence[Record]) -> None:
    """Check that ``records`` are not of folders without pictures alone.

    Raises:
        DataError: they are.
    """
    if all(record.get("error") == NO_PICTURE for record in records):
        named = some_of(shown(record["path"]) for record in records)
        raise DataError(f"No picture in {named}.", hint="Name a folder that holds some.")


def check_readable(records: Sequence[Record]) -> None:
    """Check that none of ``records`` has an error.

    Raises:
        DataError: some have; they are named.
    """
    bad = [f"{shown(one['path'])}: {one['error']}" for one in records if "error" in one]
    if bad:
        raise DataError(
            f"{counted(len(bad), 'picture')} cannot be read ({len(bad)} of {len(records)}):\n  "
            + "\n  ".join(bad),
            hint="Replace or remove them, or leave --strict away.",
        )


def of_pictures(
    classifier: Classifier,
    records: list[Record],
    top: int,
    reading: SourceOptions,
    *,
    cache: Path | None,
) -> None:
    """Complete ``records`` of paths by ``label, probability`` or ``error``."""
    from clip_adapter.features.embed import embed
    from clip_adapter.features.store import FeatureStore

    readable = [record for record in records if "error" not in record]
    encoder = classifier.encoder(reading.device)
    store = None if cache is None else FeatureStore(cache)
    with tracking("Embedding", len(readable), "pictures") as tracker:
        for start in range(0, len(readable), AT_ONCE):
            some = readable[start : start + AT_ONCE]
            features, bad = embed(
                encoder,
                # Rows are found again by their place: the same path may be named twice.
                [Sample(str(i), -1, Path(record["path"])) for i, record in enumerate(some)],
                classifier.class_names,
                store=store,
                preprocess=classifier.info.get("preprocess", "clip"),
                batch_size=reading.batch_size,
                decode=reading.decode,
                unreadable="return",
                progress=lambda stage, start=start: tracker.at(start + stage.done),
            )
            reasons = {one.name: one.reason for one in bad}
            answers = _answers(classifier, features, top)
            for i, record in enumerate(some):
                record |= {"error": reasons[str(i)]} if str(i) in reasons else next(answers)


def of_features(classifier: Classifier, spec: DataSpec, top: int) -> list[Record]:
    """One record per row of a set of features.

    Raises:
        DataError: the features are not such as the classifier takes.
    """
    from clip_adapter.evaluation.evaluate import DEFAULT_SPLIT, open_for

    features, _ = open_for(classifier, spec, DEFAULT_SPLIT, {}).features(DEFAULT_SPLIT)
    answers = _answers(classifier, features, top)
    return [{"path": n, **answer} for n, answer in zip(features.names, answers, strict=True)]


def _answers(classifier: Classifier, features: FeatureSet, top: int) -> Iterator[Record]:
    names = classifier.class_names
    for part in features.parts():
        best = classifier.logits(part).softmax(-1).topk(min(top, len(names)), dim=-1)
        for row in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            few = [{"label": names[i], "probability": p} for i, p in zip(*row, strict=True)]
            yield few[0] | ({"top": few} if top > 1 else {})


def of_report(report: Report) -> list[Record]:
    """The answers of a report: wrong ones first, and of each kind the surest first."""
    ranked = sorted(report.answers, key=lambda a: (a.answer == a.label, -a.probability))
    return [dict(zip(ANSWERED, answer, strict=True)) for answer in ranked]


def as_text(records: Sequence[Record], form: Format, columns: Sequence[str] = COLUMNS) -> str:
    """``records`` as a table, or for a program: JSON, whole or a line each, or CSV.

    CSV is ``path,label,probability,error``; with several guesses a row goes on with
    ``label_2,probability_2``... It is for the eye as well: control characters are written out, as
    JSON does it.
    """
    text = io.StringIO(newline="")
    if form == "json":
        text.write(to_json([{"schema": SCHEMA, **record} for record in records]) + "\n")
    elif form == "jsonl":
        text.writelines(to_json({"schema": SCHEMA, **r}, indent=None) + "\n" for r in records)
    elif form == "csv":
        columns, rows = _flat(records, columns)
        rows = [{k: printable(v) if isinstance(v, str) else v for k, v in r.items()} for r in rows]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        console(text).print(answer_table(records) if columns == ANSWERED else as_table(records))
    return text.getvalue()


def as_table(records: Sequence[Record]) -> Table:
    """``records`` as a table to read."""
    from rich.text import Text

    rows: list[tuple[Any, ...]] = []
    for record in records:
        if "error" in record:
            fault = Text(printable(f"error: {record['error']}"), style="red")
            rows.append((shown(record["path"]), fault, ""))
        for i, guess in enumerate(record.get("top") or [record] * ("label" in record)):
            path = "" if i else shown(record["path"])
            rows.append((path, shortened(guess["label"]), f"{guess['probability']:.3f}"))
    return table(("picture", "class", "probability"), rows, right=("probability",))


def answer_table(records: Sequence[Record]) -> Table:
    """Records of :func:`of_report` as a table to read."""
    rows = [
        (
            one["path"],
            shortened(one["label"]),
            shortened(one["answer"]),
            f"{one['probability']:.3f}",
        )
        for one in records
    ]
    return table(("picture", "label", "answer", "probability"), rows, right=("probability",))


def _flat(records: Sequence[Record], columns: Sequence[str]) -> tuple[list[str], list[Record]]:
    """Columns, and rows that lack some of them; guesses go on as ``label_2``, ``label_3``..."""
    rows = [{key: value for key, value in record.items() if key != "top"} for record in records]
    for row, record in zip(rows, records, strict=True):
        for k, guess in enumerate(record.get("top", [])[1:], 2):
            row |= {f"{key}_{k}": value for key, value in guess.items()}
    return list(dict.fromkeys(chain(columns, *rows))), rows


def as_bytes(records: Sequence[Record], form: Format, columns: Sequence[str] = COLUMNS) -> bytes:
    """The content of a file that holds ``records`` in this form."""
    if form != "parquet":
        return as_text(records, form, columns).encode("utf-8", "surrogateescape")
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = [record | {"path": as_utf8(record["path"])} for record in records]
    columns, rows = _flat(flat, columns)
    kinds = [(n, pa.float32() if n.startswith("probability") else pa.string()) for n in columns]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), sink)
    return sink.getvalue()
