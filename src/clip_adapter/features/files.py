"""Features that somebody else made: ``.safetensors``, ``.npz`` or ``.parquet`` files.

A set inside a file is named after a ``#``: ``imagenet.safetensors#train_4shot``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.errors import ClipAdapterError, DataError, UsageError, unknown_name
from clip_adapter.features.feature_set import FeatureNorm, FeatureSet
from clip_adapter.features.formats import FORMATS, READERS, Reader, Rows

DEFAULT_LOGIT_SCALE = 100.0  # where training CLIP ends: it is clipped there (CLIP, section 2.5)
_UNIT_TOLERANCE = 1e-2  # half-precision rows of length 1 are off by about 1e-3
_NORM_SAMPLE = 1000  # rows looked at per set to tell "unit" from "raw"


@dataclass
class Precomputed:
    """One set of a feature file.

    Attributes:
        feature_set: features (V, N, D), labels, class names, names and digests. The digests are
            those the file gives, else of each row's stored bytes.
        text: (C, D) float32 text weights as stored, or None.
        logit_scale: 1/tau; 100 where the file does not tell.
        backbone: what made the features, as the file says it.
        set_name: the set inside the file; "" for a file with one nameless set.
        sets: all sets of the file.
        note: the file's own note.
        notes: what the user should know, one line each.
        meta: all entries of the file's header, as text.
    """

    feature_set: FeatureSet
    text: Tensor | None
    logit_scale: float
    backbone: str | None
    set_name: str
    sets: list[str]
    note: str = ""
    notes: list[str] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)


def split_spec(spec: str | Path) -> tuple[Path, str | None]:
    """``FILE#SET`` as (file, set); the set is None where none is named."""
    text = str(spec)
    if "#" in text and not Path(text).exists():
        file, _, name = text.rpartition("#")
        return Path(file), name
    return Path(text), None


def load_features(
    spec: str | Path, *, feature_norm: Literal["auto", "raw", "unit"] = "auto"
) -> Precomputed:
    """Read one set of a feature file.

    Args:
        spec: ``FILE`` or ``FILE#SET``; a file with one set needs no name. In a Parquet file the
            sets are the values of the column ``split``.
        feature_norm: "unit" scales every row to length 1, "raw" leaves the rows alone; "auto"
            asks the file (``feature_norm``, or a note ``image_features`` that begins with "unit
            length"), else looks whether the rows of all its sets have length 1.

    Raises:
        UsageError: no such set, several sets and none named, an unknown format.
        DataError: the file is missing or damaged, or what it holds does not fit together.
    """
    if feature_norm not in ("auto", "raw", "unit"):
        raise unknown_name("feature_norm", feature_norm, ["auto", "raw", "unit"])
    check_opening(str(spec))
    path, wanted = split_spec(spec)
    reader = _open(path)
    set_name = _choose(path, reader.sets, wanted)
    try:
        rows = reader.rows(set_name)
        norm = _norm(reader, rows) if feature_norm == "auto" else feature_norm
        return _assemble(path, reader, set_name, rows, norm)
    except ClipAdapterError as error:
        raise type(error)(
            f"{path}{'#' + set_name if set_name else ''}: {error.found}",
            allowed=error.allowed,
            hint=error.hint,
        ) from error
    except Exception as error:
        raise _damaged(path, error) from error


def sets_of(path: Path) -> tuple[list[str], bool]:
    """Names of the sets of a feature file, and whether it holds text weights.

    Raises:
        UsageError: an unknown format.
        DataError: the file is missing or damaged.
    """
    reader = _open(path)
    return list(reader.sets), reader.text is not None


def _open(path: Path) -> Reader:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UsageError(f"{path} is not a file of features.", allowed=", ".join(FORMATS))
    if not path.is_file():
        raise DataError(f"No feature file {path}.", hint="Check the path.")
    try:
        reader = READERS[suffix](path)  # type: ignore[call-arg]
    except ClipAdapterError as error:
        raise DataError(f"{path}: {error.found}", allowed=error.allowed) from error
    except Exception as error:
        raise _damaged(path, error) from error
    if not reader.sets:
        raise DataError(
            f"{path} holds no features.",
            allowed="tensors 'features' or 'SET.features'; in Parquet a column 'features' or "
            "'embedding'",
        )
    return reader


def _damaged(path: Path, error: Exception) -> DataError:
    # the format libraries raise errors of many kinds; the user needs one line of each
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(
        f"{path} cannot be read: {reason}",
        allowed=", ".join(FORMATS) + "; arrays of numbers or strings (no pickled objects)",
        hint="Copy or make the file again.",
    )


def _choose(path: Path, sets: list[str], wanted: str | None) -> str:
    if wanted is None:
        if len(sets) == 1:
            return sets[0]
        raise UsageError(
            f"{path} holds {len(sets)} sets and none is named.",
            allowed=", ".join(name or "(nameless)" for name in sets),
            hint=f"Name one: {path}#{next(name for name in sets if name)}",
        )
    if wanted not in sets:
        raise unknown_name(f"set of {path}", wanted, sets)
    return wanted


def _norm(reader: Reader, rows: Rows) -> FeatureNorm:
    told = reader.meta.get("feature_norm")
    if told is not None:
        if told not in ("raw", "unit"):
            raise DataError(f"The file says feature_norm={told!r}.", allowed="raw, unit")
        return "unit" if told == "unit" else "raw"
    if reader.meta.get("image_features", "").startswith("unit length"):
        return "unit"
    for name in reader.sets:
        lengths = reader.rows(name, _NORM_SAMPLE).features.float().norm(dim=-1)
        if (lengths - 1).abs().gt(_UNIT_TOLERANCE).any():
            return "raw"
    return "unit" if rows.features.numel() else "raw"


def _assemble(
    path: Path, reader: Reader, set_name: str, rows: Rows, norm: FeatureNorm
) -> Precomputed:
    notes: list[str] = []
    features = rows.features
    if features.ndim not in (2, 3) or not (features.is_floating_point() or features.numel() == 0):
        raise DataError(
            f"The features are {features.dtype} of shape {tuple(features.shape)}.",
            allowed="floating point numbers of shape (N, D) or (V, N, D)",
        )
    n = features.shape[-2]
    text = reader.text
    labels, class_names = _labels(rows.labels, reader.class_names, text, n, notes)
    if text is not None:
        text = text.float()
        if text.shape != (len(class_names), features.shape[-1]):
            raise DataError(
                f"Text weights of shape {tuple(text.shape)} for {len(class_names)} classes and "
                f"features of size {features.shape[-1]}.",
                allowed="one row of text weights per class, as long as a feature",
            )
        if not torch.isfinite(text).all():
            raise DataError("The text weights hold NaN or infinite values.")
    scale = DEFAULT_LOGIT_SCALE
    if "logit_scale" in reader.meta:
        scale = float(reader.meta["logit_scale"])
        if not 0 < scale < float("inf"):
            raise DataError(f"logit_scale is {scale}.", allowed="a positive number, about 100")
    else:
        notes.append(f"The file tells no logit_scale: {scale:g} is taken, as in CLIP.")
    names = rows.names or [
        f"{path.name}{'#' + set_name if set_name else ''}[{i}]" for i in range(n)
    ]
    digests = rows.digests or row_digests(features)
    for what, found in (("names", names), ("digests", digests)):
        if len(found) != n:
            raise DataError(f"{len(found)} {what} for {n} rows of features.")
    return Precomputed(
        FeatureSet(features, labels, class_names, names, digests, norm),
        text,
        scale,
        reader.meta.get("backbone"),
        set_name,
        reader.sets,
        reader.meta.get("note", ""),
        notes,
        dict(reader.meta),
    )


def _labels(
    found: list[Any] | None,
    class_names: list[str] | None,
    text: Tensor | None,
    n: int,
    notes: list[str],
) -> tuple[Tensor, list[str]]:
    """Labels (N,) as numbers, with the names of the classes."""
    if found is None:
        notes.append("The file has no labels: they are unknown.")
        found = [-1] * n
    if len(found) != n:
        raise DataError(f"{len(found)} labels for {n} rows of features.")
    if any(isinstance(label, str) for label in found):
        known = {label for label in found if isinstance(label, str)}
        class_names = class_names if class_names is not None else sorted(known)
        if strange := sorted(known - set(class_names)):
            raise DataError(
                f"Labels that are not among the class names: {_some(strange)}.",
                allowed=_some(class_names),
            )
        index = {name: i for i, name in enumerate(class_names)}
        found = [index[label] if isinstance(label, str) else -1 for label in found]
    if any(isinstance(label, float) and not label.is_integer() for label in found) or any(
        isinstance(label, (list, dict, bytes)) for label in found
    ):
        raise DataError("The labels are no whole numbers.", allowed="class numbers or class names")
    labels = torch.tensor([int(label) for label in found], dtype=torch.long)
    if len(labels) and int(labels.min()) < -1:
        raise DataError(
            f"Label {int(labels.min())}.", allowed="0 to C - 1, and -1 where it is unknown"
        )
    if class_names is None:
        count = len(text) if text is not None else int(labels.max()) + 1 if len(labels) else 0
        class_names = [str(i) for i in range(count)]
        notes.append("The file has no class names: the classes are called by their numbers.")
    return labels, class_names


def _some(names: Iterable[str], most: int = 10) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(json.dumps(name, ensure_ascii=False) for name in listed[:most]) + more


def row_digests(features: Tensor) -> list[str]:
    """One digest per row, over its stored bytes in every view."""
    rows = features if features.ndim == 2 else features.transpose(0, 1).flatten(1)
    raw = rows.contiguous().view(torch.uint8).numpy() if rows.numel() else rows.numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in raw]
