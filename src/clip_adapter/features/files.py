"""Files of features, read and written: ``.safetensors``, ``.npz`` or ``.parquet``.

A set inside a file is named after a ``#``: ``imagenet.safetensors#train_4shot``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from clip_adapter.datasets.labels import in_order
from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.datasets.open import DataSpec, conversion, file_and_set
from clip_adapter.errors import DataError, UsageError, near_names, unknown_name
from clip_adapter.features.feature_set import FeatureNorm, FeatureSet
from clip_adapter.features.formats import FORMATS, FeatureFile, names_of
from clip_adapter.features.store import content_digest
from clip_adapter.files import not_permitted, reading_errors, replacing, writing
from clip_adapter.nn.cosine import LEAST_SCALE, MOST_SCALE, scale_doubt
from clip_adapter.paths import SHARDED, WRITABLE, did_you_mean
from clip_adapter.wording import counted, listed, some_of

DEFAULT_LOGIT_SCALE = 100.0  # where training CLIP ends: it is clipped there (CLIP, section 2.5)
_SCALE, _LOGARITHM = "logit_scale", "log_logit_scale"
_LARGEST_LOGARITHM = math.log(1e6)  # no backbone has a larger one
_SAME_SCALE = 1e-2  # what a logarithm of two digits, 4.6, is off
_UNIT_TOLERANCE = 1e-2  # half-precision rows of length 1 are off by about 1e-3
_NORM_SAMPLE = 1000  # rows looked at per set to tell "unit" from "raw"
_SHOWN = 10  # names in a message
_READABLE = ", ".join(FORMATS) + "; arrays of numbers or strings (no pickled objects)"


@dataclass
class Precomputed:
    """One set of a feature file.

    Attributes:
        feature_set: features (V, N, D), labels, class names, names and digests. The digests are
            those the file gives, else of each row's stored bytes.
        text: (C, D) float32 text weights as stored, or None.
        logit_scale: 1/tau, as the entry ``logit_scale`` or, as its logarithm, ``log_logit_scale``
            states it; 100 where there is neither.
        backbone: the name of what made the features, as the file states it.
        set_name: the set inside the file; "" for a file with one nameless set.
        sets: all sets of the file.
        notes: what the user should know, one line each.
        meta: all entries of the file's header, as text.
    """

    feature_set: FeatureSet
    text: Tensor | None
    logit_scale: float
    backbone: str | None
    set_name: str
    sets: list[str]
    notes: list[str] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)


def load_features(
    spec: str | Path | DataSpec, *, feature_norm: FeatureNorm | Literal["auto"] = "auto"
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
    if feature_norm not in ("auto", *get_args(FeatureNorm)):
        raise unknown_name("feature_norm", feature_norm, ["auto", *get_args(FeatureNorm)])
    check_opening(str(spec))
    path, wanted = (spec.path, spec.name) if isinstance(spec, DataSpec) else file_and_set(spec)
    file = _open(path)
    if wanted not in file.sets and (wanted is not None or len(file.sets) > 1):
        unknown = f"Unknown set of {path} {wanted!r}.{near_names(wanted or '', file.sets)}"
        none = f"{path} holds {len(file.sets)} sets and none is named."
        named = sorted(filter(None, file.sets), key=lambda name: not name.startswith("train"))
        tests = [name for name in named[1:] if name.startswith("test")]
        to_test = f"; to test on, {path}#{tests[0]}" if tests else ""
        raise UsageError(
            none if wanted is None else unknown,
            allowed=", ".join(name or "(nameless)" for name in file.sets),
            hint=f"Name one: {path}#{named[0]}{to_test}"
            if named
            else f"Its one set has no name: {path}",
        )
    set_name = file.sets[0] if wanted is None else wanted
    whole = f"{path}{'#' + set_name if set_name else ''}"
    with reading_errors(whole, allowed=_READABLE):
        return _read(file, set_name, feature_norm, Path(whole).name)


def sets_of(path: Path) -> tuple[list[str], bool]:
    """Names of the sets of a feature file, and whether it holds text weights.

    Raises:
        UsageError: an unknown format.
        DataError: the file is missing or damaged.
    """
    file = _open(path)
    return file.sets, "text" in file.keys


def write_features(
    path: str | Path,
    feature_sets: Mapping[str, FeatureSet],
    text: Tensor | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write named sets of features to ``.safetensors`` or ``.parquet``, in one step.

    The file is what :func:`load_features` reads: ``SET.features`` (N, D), or (V, N, D) with several
    views, ``SET.labels``, ``SET.names``, ``SET.digests`` and ``text`` (C, D); in Parquet one row
    per picture with the columns ``split``, ``path``, ``label`` (the class name), ``digest`` and
    ``features``.

    Args:
        path: where to; an existing file is replaced once the new one is whole.
        feature_sets: by set name; all have the same classes and the same ``feature_norm``.
        text: classifier weights, one row per class.
        meta: further entries, such as ``backbone`` and ``logit_scale``.

    Raises:
        UsageError: another suffix, or several views for Parquet.
        DataError: the sets do not fit together, or the file cannot be written.
    """
    path = Path(path)
    _, write = FORMATS.get(path.suffix.lower(), (None, None))
    if write is None:
        raise UsageError(f"Features are not written as {path.name}.", allowed=", ".join(WRITABLE))
    if not feature_sets:
        raise DataError("There are no features to write.")
    first = next(iter(feature_sets.values()))
    for name, one in feature_sets.items():
        if (one.class_names, one.feature_norm) != (first.class_names, first.feature_norm):
            raise DataError(f"The set {name!r} has other classes or another feature_norm.")
    header = header_of(meta or {}, first.feature_norm)
    header["classes"] = json.dumps(first.class_names, ensure_ascii=False)
    with writing(path), replacing(path) as temporary:
        write(temporary, feature_sets, text, header)


def header_of(meta: Mapping[str, Any], feature_norm: FeatureNorm) -> dict[str, str]:
    """The header of a file with the entries ``meta``, as text; those that are None are left out."""
    header = {key: str(value) for key, value in meta.items() if value is not None}
    header["feature_norm"] = feature_norm
    if _SCALE in header and scale_doubt(float(header[_SCALE])):
        header[_LOGARITHM] = str(math.log(float(header[_SCALE])))
    return header


def row_digests(features: Tensor) -> list[str]:
    """One digest per row, over its stored bytes in every view."""
    rows = features if features.ndim == 2 else features.transpose(0, 1).flatten(1)
    raw = rows.contiguous().view(torch.uint8).numpy() if rows.numel() else rows.numpy()
    return [content_digest(row.tobytes()) for row in raw]


def _open(path: Path) -> FeatureFile:
    folder = (path / SHARDED).is_file()
    open_, _ = FORMATS.get(".parquet" if folder else path.suffix.lower(), (None, None))
    if open_ is None:
        raise UsageError(
            f"{path} is not a file of features.",
            allowed=", ".join(FORMATS),
            hint=conversion(path),
        )
    if not (folder or path.is_file()):
        raise DataError(f"No feature file {path}.{did_you_mean(path)}", hint="Check the path.")
    if not os.access(path, os.R_OK):
        raise not_permitted(str(path))
    with reading_errors(str(path), allowed=_READABLE):
        file = open_(path)
    if not file.sets:
        raise DataError(
            f"{path} holds no features.",
            allowed="arrays 'features' or 'SET.features' (or 'X', 'X_SET'); in Parquet a column "
            "'features' or 'embedding'",
            hint=f"It has {listed(file.keys)}: docs/features.md shows how to make one."
            if file.keys
            else "",
        )
    return file


def _read(
    file: FeatureFile, set_name: str, norm: FeatureNorm | Literal["auto"], name: str
) -> Precomputed:
    """The set of an opened file; ``name`` is what its rows are called where they have no names."""
    features, labels, width, notes = _rows(file, set_name)
    if features.ndim not in (2, 3) or not (features.is_floating_point() or features.numel() == 0):
        raise DataError(
            f"The features are {features.dtype} of shape {tuple(features.shape)}.",
            allowed="floating point numbers of shape (N, D) or (V, N, D)",
        )
    n = features.shape[-2]
    names, digests = (file.part(part, set_name) for part in ("names", "digests"))
    for what, values in {"labels": labels, "names": names, "digests": digests}.items():
        if values is not None and len(values) != n:
            raise DataError(
                f"{len(values)} {what} for {n} rows of features.",
                allowed=f"a row for each picture, (N, D); theirs is {tuple(features.shape)}",
                hint="Of an array (D, N) write array.T.",
            )
    if empty := (~features.any(-1)).nonzero()[:, -1].unique().tolist():
        raise DataError(
            f"{counted(len(empty), 'row')} of the features are all 0: {some_of(map(str, empty))}.",
            hint="Make them again, and remove the rows that cannot be embedded.",
        )
    if labels is None:
        notes.append("The file has no labels: they are unknown.")
    text = file.part("text")
    if text is not None and _lies_across(text, features.shape[-1], axis=1):
        text = text.T.contiguous()
        notes.append(f"The text weights are stored as (D, C) and read as (C, D) {_shape(text)}.")
    stated = names_of(file.meta["classes"], "classes") if "classes" in file.meta else None
    numbers, class_names = _numbered([-1] * n if labels is None else labels, stated)
    if class_names is None:
        count = max(numbers, default=-1) + 1 if text is None else len(text)
        count = max(count, width)
        class_names = [str(i) for i in range(count)]
        notes.append("The file has no class names: the classes are called by their numbers.")
    if text is not None and text.shape != (len(class_names), features.shape[-1]):
        raise DataError(
            f"Text weights of shape {tuple(text.shape)} for {len(class_names)} classes and "
            f"features of size {features.shape[-1]}.",
            allowed="one row of text weights per class, as long as a feature",
            hint="Of an array (D, C) write array.T.",
        )
    if text is not None and not torch.isfinite(text).all():
        raise DataError("The text weights hold NaN or infinite values.")
    scale = _scale(file.meta)
    if scale is None:
        scale = DEFAULT_LOGIT_SCALE
        notes.append(f"The file tells no logit_scale: {scale:g} is taken, as in CLIP.")
    return Precomputed(
        FeatureSet(
            features,
            torch.tensor(numbers, dtype=torch.long),
            class_names,
            [str(one) for one in names] if names else [f"{name}[{i}]" for i in range(n)],
            [str(one) for one in digests] if digests else row_digests(features),
            _norm(file, features) if norm == "auto" else norm,
        ),
        None if text is None else text.float(),
        scale,
        file.meta.get("backbone"),
        set_name,
        file.sets,
        notes,
        file.meta,
    )


def _rows(file: FeatureFile, set_name: str) -> tuple[Tensor, Sequence[Any] | None, int, list[str]]:
    """Features, labels (N,), C where the labels tell it (else 0), and notes on how they were read.

    Tip-Adapter keeps its shots as (D, N) and their labels one-hot, as (N, C).

    Raises:
        DataError: labels of several numbers each that are not one-hot.
    """
    features, labels = file.part("features", set_name), file.part("labels", set_name)
    width, notes = 0, list[str]()
    if isinstance(labels, Tensor) and labels.shape[1:] == (1,):
        labels = labels[:, 0].tolist()
    elif isinstance(labels, Tensor):
        ways = (way for way in (labels, labels.mT) if labels.ndim == 2 and _is_one_hot(way))
        if (one_hot := next(ways, None)) is None:
            raise DataError(
                f"Labels of shape {tuple(labels.shape)} that are not one-hot, in "
                f"{set_name or 'the file'}.",
                allowed="class numbers or names (N,), or (N, C) with a single 1 in each row",
                hint="Write the numbers of the classes: array.argmax(1).",
            )
        width, labels = one_hot.shape[1], one_hot.argmax(1).tolist()
        notes.append(f"The labels are one-hot, of {width} classes.")
    if labels is not None and _lies_across(features, len(labels), axis=0):
        features = features.T.contiguous()
        notes.append(f"The features are stored as (D, N) and read as (N, D) {_shape(features)}.")
    return features, labels, width, notes


def _shape(array: Tensor) -> str:
    return " x ".join(map(str, array.shape))


def _is_one_hot(labels: Tensor) -> bool:
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def _lies_across(matrix: Tensor, size: int, axis: int) -> bool:
    """Whether ``matrix``, meant to have ``size`` on ``axis``, has it on the other one.

    A square one does if its columns are of length 1 and its rows are not.
    """
    if matrix.ndim != 2 or size not in matrix.shape:
        return False
    if matrix.shape[0] != matrix.shape[1]:
        return matrix.shape[axis] != size
    rows, columns = ((matrix.float().norm(dim=d) - 1).abs() < _UNIT_TOLERANCE for d in (1, 0))
    return bool(columns.all() and not rows.all())


def _scale(meta: Mapping[str, str]) -> float | None:
    """1/tau of the entry ``log_logit_scale`` or ``logit_scale``, or None where there is neither.

    Raises:
        DataError: it is no positive number, or is hardly 1/tau, or the two differ.
    """
    stated = {key: float(meta[key]) for key in (_SCALE, _LOGARITHM) if key in meta}
    if not stated:
        return None
    key, scale = stated.popitem()  # the logarithm, where it is there
    if key == _LOGARITHM:
        logarithm, scale = scale, math.exp(min(scale, _LARGEST_LOGARITHM))
        if not logarithm < _LARGEST_LOGARITHM:
            raise DataError(
                f"{_LOGARITHM} is {logarithm:g}.",
                allowed=f"the logarithm of 1/tau, below {_LARGEST_LOGARITHM:.3g}; about 4.6, which "
                "is 1/tau = 100",
                hint=f"If that is 1/tau, write it as {_SCALE}.",
            )
    if not 0 < scale < math.inf:
        raise DataError(f"logit_scale is {scale}.", allowed="a positive number, about 100")
    if not math.isclose(stated.get(_SCALE, scale), scale, rel_tol=_SAME_SCALE):
        raise DataError(
            f"{_SCALE} is {stated[_SCALE]:g}, and by {_LOGARITHM} it is {scale:g}.",
            allowed=f"{_SCALE}, 1/tau, or {_LOGARITHM}, its logarithm",
            hint="Write one of them.",
        )
    if key == _SCALE and (doubt := scale_doubt(scale)):
        raise DataError(
            f"logit_scale is {scale:g}: {doubt}.",
            allowed=f"logit_scale, 1/tau, {LEAST_SCALE:g} to {MOST_SCALE:g}; or {_LOGARITHM}, its "
            "logarithm",
            hint=f"Write the one that it is, for instance {_SCALE}=100; if 1/tau is {scale:g}, "
            f"write {_LOGARITHM}={math.log(scale):.6g}.",
        )
    return scale


def _norm(file: FeatureFile, features: Tensor) -> FeatureNorm:
    stated = file.meta.get("feature_norm")
    if stated not in (None, "raw", "unit"):
        raise DataError(f"The file says feature_norm={stated!r}.", allowed="raw, unit")
    if stated is None and not file.meta.get("image_features", "").startswith("unit length"):
        samples = (_rows(file, name)[0][..., :_NORM_SAMPLE, :].float() for name in file.sets)
        off = ((rows.norm(dim=-1) - 1).abs().gt(_UNIT_TOLERANCE).any() for rows in samples)
        return "raw" if any(off) or not features.numel() else "unit"
    return "raw" if stated == "raw" else "unit"


def _numbered(
    labels: Sequence[Any], class_names: list[str] | None
) -> tuple[list[int], list[str] | None]:
    """Labels (N,) as numbers, and the names of the classes as far as they are known."""
    if known := {label for label in labels if isinstance(label, str)}:
        class_names = in_order(known) if class_names is None else class_names
        if strange := sorted(known - set(class_names)):
            raise DataError(
                f"Labels that are not among the class names: {listed(strange, _SHOWN)}.",
                allowed=listed(class_names, _SHOWN),
            )
        index = {name: i for i, name in enumerate(class_names)}
        labels = [index.get(label, -1) for label in labels]
    if any(one != int(one) for one in labels):
        raise DataError("The labels are no whole numbers.", allowed="class numbers or class names")
    return [int(one) for one in labels], class_names
