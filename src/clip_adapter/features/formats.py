"""Readers of feature files: each opens one format and hands out named sets of rows.

A reader has ``sets`` (names; "" is the only set of a file without names), ``meta`` (text values
by key), ``class_names``, ``text`` and ``rows(set_name, limit)``.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from clip_adapter.errors import DataError

FORMATS = (".safetensors", ".npz", ".parquet")


@dataclass
class Rows:
    """Rows as they are stored: features (N, D) or (V, N, D), labels as numbers or names."""

    features: Tensor
    labels: list[Any] | None = None
    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


class Reader(Protocol):
    """An opened feature file."""

    sets: list[str]
    meta: dict[str, str]
    class_names: list[str] | None
    text: Tensor | None

    def rows(self, set_name: str, limit: int | None = None) -> Rows:
        """The rows of a set, or only its first ``limit`` features."""
        ...


def _json_names(value: str | None, key: str) -> list[str] | None:
    if value is None:
        return None
    names = json.loads(value)
    if not isinstance(names, list):
        raise DataError(f"The entry {key!r} is not a JSON list.", allowed="a JSON list of names")
    return [str(name) for name in names]


def _set_names(keys: list[str]) -> list[str]:
    named = sorted(key.removesuffix(".features") for key in keys if key.endswith(".features"))
    return ([""] if "features" in keys else []) + named


def _key(set_name: str, part: str) -> str:
    return f"{set_name}.{part}" if set_name else part


class SafetensorsReader:
    """``SET.features``, ``SET.labels``, ``text``; metadata ``classes`` (JSON), ``logit_scale``.

    ``SET.names`` and ``SET.digests``, where present, are JSON lists as UTF-8 bytes.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._file = safe_open(path, framework="pt")
        self._keys = list(self._file.keys())
        self.meta: dict[str, str] = dict(self._file.metadata() or {})
        self.sets = _set_names(self._keys)
        self.class_names = _json_names(self.meta.get("classes"), "classes")
        self.text = self._file.get_tensor("text") if "text" in self._keys else None

    def _strings(self, key: str) -> list[str]:
        if key not in self._keys:
            return []
        raw = bytes(self._file.get_tensor(key).numpy())
        return _json_names(raw.decode("utf-8"), key) or []

    def rows(self, set_name: str, limit: int | None = None) -> Rows:
        """The rows of a set; only the rows asked for are read."""
        key = _key(set_name, "features")
        if limit is not None:
            part = self._file.get_slice(key)
            many = len(part.get_shape()) == 3
            return Rows(part[:, :limit] if many else part[:limit])
        labels = _key(set_name, "labels")
        return Rows(
            self._file.get_tensor(key),
            self._file.get_tensor(labels).tolist() if labels in self._keys else None,
            self._strings(_key(set_name, "names")),
            self._strings(_key(set_name, "digests")),
        )


class NpzReader:
    """Arrays ``features``, ``labels``, ``class_names``, ``text``, or ``SET.features`` and so on."""

    def __init__(self, path: Path) -> None:
        # from memory: numpy leaves the file open when it is damaged
        self._file = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if not hasattr(self._file, "files"):
            raise DataError("It is one plain array, not an archive of named arrays.")
        keys = list(self._file.files)
        self.sets = _set_names(keys)
        self.meta = {
            key: str(self._file[key])
            for key in ("logit_scale", "backbone", "feature_norm", "note")
            if key in keys
        }
        names = next((key for key in ("class_names", "classes") if key in keys), None)
        self.class_names = [str(n) for n in self._file[names].tolist()] if names else None
        self.text = torch.from_numpy(self._file["text"]) if "text" in keys else None

    def _list(self, key: str) -> list[Any] | None:
        return self._file[key].tolist() if key in self._file.files else None

    def rows(self, set_name: str, limit: int | None = None) -> Rows:
        """The rows of a set."""
        array = self._file[_key(set_name, "features")]
        if limit is not None:
            return Rows(torch.from_numpy(array[..., :limit, :]))
        return Rows(
            torch.from_numpy(array),
            self._list(_key(set_name, "labels")),
            [str(n) for n in self._list(_key(set_name, "names")) or []],
            [str(n) for n in self._list(_key(set_name, "digests")) or []],
        )


class ParquetReader:
    """Columns ``features`` or ``embedding``, ``label``, and ``path``, ``split``, ``digest``.

    The footer may hold ``classes``, ``logit_scale``, ``backbone``, ``feature_norm`` and ``text``
    (base64 of float32 rows, one per class).
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        columns = self._file.schema_arrow.names
        self._column = next((c for c in ("features", "embedding") if c in columns), None)
        self._columns = columns
        footer = self._file.schema_arrow.metadata or {}
        self.meta = {
            key.decode(): value.decode("utf-8", "replace")
            for key, value in footer.items()
            if key not in (b"ARROW:schema", b"pandas", b"huggingface")
        }
        self._splits = self._strings("split")
        self.sets = list(dict.fromkeys(self._splits)) or [""] if self._column else []
        self.class_names = _json_names(self.meta.get("classes"), "classes")
        if self.class_names is None and "label" in columns:
            # over every split, so that training and test rows agree on the numbers
            found = set(self._file.read(columns=["label"])["label"].to_pylist())
            if any(isinstance(label, str) for label in found):
                self.class_names = sorted(str(label) for label in found if label is not None)
        packed = self.meta.pop("text", None)
        self.text = None
        if packed is not None and self.class_names:
            flat = np.frombuffer(base64.b64decode(packed), np.float32).copy()
            self.text = torch.from_numpy(flat).reshape(len(self.class_names), -1)

    def _strings(self, column: str) -> list[str]:
        if column not in self._columns:
            return []
        return [str(v) for v in self._file.read(columns=[column])[column].to_pylist()]

    def rows(self, set_name: str, limit: int | None = None) -> Rows:
        """The rows whose split is ``set_name``; all rows of a file without splits."""
        assert self._column is not None  # noqa: S101  (no set exists without this column)
        column = self._file.read(columns=[self._column])[self._column].combine_chunks()
        keep = np.arange(len(column))
        if self._splits:
            keep = np.flatnonzero(np.array(self._splits) == set_name)
        wanted = column.take(keep[:limit])
        sizes = set(np.unique(wanted.value_lengths().to_numpy(zero_copy_only=False)).tolist())
        if len(sizes) > 1 or wanted.null_count:
            raise DataError(
                f"The rows of column {self._column!r} differ in length.",
                allowed="lists of numbers, all of one length",
            )
        flat = wanted.flatten().to_numpy(zero_copy_only=False)
        features = torch.from_numpy(np.array(flat)).reshape(len(wanted), -1)
        if limit is not None:
            return Rows(features)

        def pick(column: str) -> list[str]:
            values = self._strings(column)
            return [values[i] for i in keep] if values else []

        labels = None
        if "label" in self._columns:
            values = self._file.read(columns=["label"])["label"].to_pylist()
            labels = [-1 if values[i] is None else values[i] for i in keep]
        return Rows(features, labels, pick("path") or pick("name"), pick("digest"))


READERS: dict[str, type[Reader]] = {
    ".safetensors": SafetensorsReader,
    ".npz": NpzReader,
    ".parquet": ParquetReader,
}
