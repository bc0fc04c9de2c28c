"""Formats of feature files: how each is opened and written.

Arrays go by keys: ``SET.features``, ``SET.labels``, ``SET.names`` and ``SET.digests``, or without
``SET.`` in a file of one nameless set, and ``text``.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet

Sets = Mapping[str, FeatureSet]


@dataclass
class FeatureFile:
    """An opened file of features.

    Attributes:
        sets: names of the sets; "" is the only set of a file without names.
        meta: the entries of its header, as text.
        class_names: C names, or None where the file has none.
        text: (C, D) as stored, or None.
        keys: of the arrays that it holds.
        get: the array of a key as a tensor or a list; of features, at most ``limit`` rows.
    """

    sets: list[str]
    meta: dict[str, str]
    class_names: list[str] | None
    text: Tensor | None
    keys: Collection[str]
    get: Callable[[str, int | None], Any]

    def part(self, set_name: str, name: str, limit: int | None = None) -> Any:
        """The array ``name`` of a set, or None where there is none; see ``get``."""
        key = f"{set_name}.{name}" if set_name else name
        return self.get(key, limit) if key in self.keys else None


def _named_sets(keys: Collection[str]) -> list[str]:
    named = sorted(key.removesuffix(".features") for key in keys if key.endswith(".features"))
    return ([""] if "features" in keys else []) + named


def _names(value: str | bytes, key: str) -> list[str]:
    names = json.loads(value)
    if not isinstance(names, list):
        raise DataError(f"The entry {key!r} is not a JSON list.", allowed="a JSON list of names")
    return [str(name) for name in names]


def _class_names(meta: Mapping[str, str]) -> list[str] | None:
    return _names(meta["classes"], "classes") if "classes" in meta else None


def _open_safetensors(path: Path) -> FeatureFile:
    """Metadata ``classes`` (JSON), ``logit_scale``; names and digests are JSON as UTF-8 bytes."""
    from safetensors import safe_open

    file = safe_open(path, framework="pt")
    keys, meta = list(file.keys()), dict(file.metadata() or {})

    def get(key: str, limit: int | None) -> Any:
        if limit is not None:
            part = file.get_slice(key)
            return part[:, :limit] if len(part.get_shape()) == 3 else part[:limit]
        array = file.get_tensor(key)
        is_text = key.rpartition(".")[2] in ("names", "digests")
        return _names(bytes(array.numpy()), key) if is_text else array

    text = file.get_tensor("text") if "text" in keys else None
    return FeatureFile(_named_sets(keys), meta, _class_names(meta), text, keys, get)


def _open_npz(path: Path) -> FeatureFile:
    """Arrays ``class_names``, ``logit_scale`` and so on beside those of the sets."""
    # from memory: numpy leaves the file open when it is damaged
    file = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    if not hasattr(file, "files"):
        raise DataError("It is one plain array, not an archive of named arrays.")
    keys = list(file.files)

    def get(key: str, limit: int | None) -> Any:
        array = file[key]
        if not key.endswith("features"):
            return array.tolist()
        return torch.from_numpy(array if limit is None else array[..., :limit, :])

    entries = ("logit_scale", "backbone", "feature_norm", "note")
    meta = {key: str(file[key]) for key in entries if key in keys}
    named = next((key for key in ("class_names", "classes") if key in keys), None)
    class_names = [str(name) for name in file[named].tolist()] if named else None
    text = torch.from_numpy(file["text"]) if "text" in keys else None
    return FeatureFile(_named_sets(keys), meta, class_names, text, keys, get)


# What the columns of a Parquet file hold; of several, the first that is there.
_COLUMNS = {
    "features": ("features", "embedding"),
    "labels": ("label",),
    "names": ("path", "name"),
    "digests": ("digest",),
}


def _open_parquet(path: Path) -> FeatureFile:
    """Columns ``features`` or ``embedding``, ``label``, and ``path``, ``split``, ``digest``.

    The footer may hold ``classes``, ``logit_scale``, ``backbone``, ``feature_norm`` and ``text``
    (base64 of float32 rows, one per class).
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    there = file.schema_arrow.names
    columns = {part: next((c for c in some if c in there), "") for part, some in _COLUMNS.items()}

    def column(name: str) -> list[Any]:
        return file.read(columns=[name])[name].to_pylist() if name in there else []

    splits = np.array([str(split) for split in column("split")])

    def get(key: str, limit: int | None) -> Any:
        set_name, _, part = key.rpartition(".")
        every = np.arange(file.metadata.num_rows)
        rows = (every[splits == set_name] if len(splits) else every)[:limit]
        if part == "features":
            return _lists(file, columns[part], rows)
        values = column(columns[part])
        empty = -1 if part == "labels" else "None"
        return [empty if values[i] is None else values[i] for i in rows]

    meta = {
        key.decode(): value.decode("utf-8", "replace")
        for key, value in (file.schema_arrow.metadata or {}).items()
        if key not in (b"ARROW:schema", b"pandas", b"huggingface")
    }
    packed, class_names = meta.pop("text", None), _class_names(meta)
    # Over every split, so that training and test rows agree on the numbers.
    labels = set(column("label")) if class_names is None else set()
    if any(isinstance(label, str) for label in labels):
        class_names = sorted(str(label) for label in labels if label is not None)
    text = None
    if packed is not None and class_names:
        flat = np.frombuffer(base64.b64decode(packed), np.float32).copy()
        text = torch.from_numpy(flat).reshape(len(class_names), -1)
    sets = list(dict.fromkeys(splits.tolist())) or [""] if columns["features"] else []
    keys = [f"{s}.{part}" if s else part for s in sets for part, name in columns.items() if name]
    return FeatureFile(sets, meta, class_names, text, keys, get)


def _lists(file: Any, name: str, rows: np.ndarray) -> Tensor:
    """The rows of a column of lists, all of one length, as (n, D)."""
    wanted = file.read(columns=[name])[name].combine_chunks().take(rows)
    sizes = np.unique(wanted.value_lengths().to_numpy(zero_copy_only=False))
    if len(sizes) > 1 or wanted.null_count:
        raise DataError(
            f"The rows of column {name!r} differ in length.",
            allowed="lists of numbers, all of one length",
        )
    flat = wanted.flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.array(flat)).reshape(len(wanted), -1)


def _write_safetensors(path: Path, sets: Sets, text: Tensor | None, header: dict[str, str]) -> None:
    from safetensors.torch import save

    tensors = {} if text is None else {"text": text.float().cpu().contiguous()}
    for name, one in sets.items():
        features = one.features if one.views > 1 else one.plain_view
        # copies: safetensors refuses tensors that share memory, as subsets of one set do
        tensors[f"{name}.features"] = features.contiguous().clone()
        tensors[f"{name}.labels"] = one.labels.contiguous().clone()
        for part, words in (("names", one.names), ("digests", one.digests)):
            if words:
                raw = np.frombuffer(json.dumps(words).encode(), np.uint8)
                tensors[f"{name}.{part}"] = torch.from_numpy(raw.copy())
    path.write_bytes(save(tensors, header))


def _write_parquet(path: Path, sets: Sets, text: Tensor | None, header: dict[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if several := [name for name, one in sets.items() if one.views > 1]:
        raise UsageError(
            f"Parquet holds one view per picture, and {several[0]!r} has more.",
            hint="Write .safetensors, or one view.",
        )
    columns: dict[str, list[Any]] = {"split": [], "path": [], "label": [], "digest": []}
    for name, one in sets.items():
        columns["split"] += [name] * len(one)
        columns["path"] += one.names or [None] * len(one)
        columns["label"] += [one.class_names[i] if i >= 0 else None for i in one.labels.tolist()]
        columns["digest"] += one.digests or [None] * len(one)
    joined = torch.cat([one.plain_view for one in sets.values()])
    if text is not None:
        header["text"] = base64.b64encode(text.float().cpu().numpy().tobytes()).decode()
    kept = {key: pa.array(v, pa.string()) for key, v in columns.items() if any(v)}
    flat = pa.array(joined.reshape(-1).numpy())
    table = pa.table({**kept, "features": pa.FixedSizeListArray.from_arrays(flat, joined.shape[1])})
    pq.write_table(table.replace_schema_metadata(header), path)


Writer = Callable[[Path, Sets, Tensor | None, dict[str, str]], None]
FORMATS: dict[str, tuple[Callable[[Path], FeatureFile], Writer | None]] = {
    ".safetensors": (_open_safetensors, _write_safetensors),
    ".npz": (_open_npz, None),
    ".parquet": (_open_parquet, _write_parquet),
}
"""By the ending of the file: what opens it, and what writes it, if anything does."""
