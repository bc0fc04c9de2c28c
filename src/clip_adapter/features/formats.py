"""Formats of feature files: how each is opened and written.

Arrays go by keys: ``SET.features``, ``SET.labels``, ``SET.names`` and ``SET.digests``, or without
``SET.`` in a file of one nameless set, and ``text``. ``X`` and ``y``, as scikit-learn calls them,
stand for ``features`` and ``labels``, also as ``SET.X`` or ``X_SET``; ``SET_features`` and
``SET_labels`` are read too, and what Tip-Adapter's code calls its arrays.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clip_adapter.datasets.labels import in_order
from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.files import of_form, read_json
from clip_adapter.paths import MANIFEST, SHARDED
from clip_adapter.reporting import note
from clip_adapter.wording import counted, shown

if TYPE_CHECKING:
    import pyarrow as pa

# As safetensors calls them.
_KINDS = {torch.int64: "I64", torch.float32: "F32", torch.uint8: "U8"}
_GROUP = 2**16  # rows that are written to Parquet at once
Sets = Mapping[str, FeatureSet]
# What others call the parts of a set.
OTHER_KEYS = {"X": "features", "x": "features", "embeddings": "features", "y": "labels"}
# What whole arrays are called elsewhere, the last three in Tip-Adapter: its cache holds the shots.
OTHER_NAMES = {
    "image_features": "features",
    "text_weights": "text",
    "clip_weights": "text",
    "cache_keys": "train.features",
    "cache_values": "train.labels",
}


def key_of(name: str) -> str:
    """The key that ``name``, as others may write it, stands for: ``X_train``, ``train.X``, ``y``.

    Two names of one key are two parts, of which the later one counts.
    """
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    part, mark, set_name = name.partition("_")
    if mark and part in ("X", "x", "y"):
        return f"{set_name}.{OTHER_KEYS[part]}"
    set_name, mark, part = name.rpartition("_")
    if mark and part in ("features", "labels") and "." not in name:
        return f"{set_name}.{part}"
    set_name, mark, part = name.rpartition(".")
    return f"{set_name}{mark}{OTHER_KEYS.get(part, part)}"


@dataclass
class FeatureFile:
    """An opened file of features.

    Attributes:
        keys: of the arrays that it holds.
        meta: the entries of its header, as text; ``classes`` is a JSON list of the C names.
        get: the array of a key: features and text weights as a tensor, labels of several numbers
            each as an array, all else as a list.
    """

    keys: Collection[str]
    meta: dict[str, str]
    get: Callable[[str], Any]

    @property
    def sets(self) -> list[str]:
        """Names of the sets; "" is the only set of a file without names."""
        named = [key.removesuffix(".features") for key in self.keys if key.endswith(".features")]
        return [""] * ("features" in self.keys) + sorted(named)

    def part(self, name: str, set_name: str = "") -> Any:
        """The array ``name`` of a set, or None where there is none."""
        key = f"{set_name}.{name}" if set_name else name
        return self.get(key) if key in self.keys else None


def names_of(value: str | bytes, key: str) -> list[str]:
    """The names in an entry of JSON.

    Raises:
        DataError: it is no list.
    """
    names = of_form(json.loads(value), list[Any], f"The entry {key!r}", "a JSON list of names")
    return [str(name) for name in names]


def _open_safetensors(path: Path) -> FeatureFile:
    """Metadata ``classes`` (JSON), ``logit_scale``; names and digests are JSON as UTF-8 bytes."""
    from safetensors import safe_open

    file = safe_open(path, framework="pt")
    names = {key_of(name): name for name in file.keys()}  # noqa: SIM118, it is no dict

    def get(key: str) -> Any:
        array, part = file.get_tensor(names[key]), key.rpartition(".")[2]
        if part in ("names", "digests"):
            return names_of(bytes(array.numpy()), key)
        return array.tolist() if part == "labels" and array.ndim < 2 else array

    return FeatureFile(list(names), dict(file.metadata() or {}), get)


_ENTRIES = (
    "logit_scale",
    "log_logit_scale",
    "backbone",
    "backbone_fingerprint",
    "feature_norm",
    "note",
)


def _open_npz(path: Path) -> FeatureFile:
    """Arrays ``class_names``, ``logit_scale`` and so on beside those of the sets."""
    # from memory: numpy leaves the file open when it is damaged
    file = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    if not hasattr(file, "files"):
        raise DataError("It is one plain array, not an archive of named arrays.")

    names = {key_of(name): name for name in file.keys()}  # noqa: SIM118, it is no dict

    def get(key: str) -> Any:
        is_matrix, array = key == "text" or key.endswith("features"), file[names[key]]
        is_matrix |= key.endswith("labels") and array.ndim > 1
        return torch.from_numpy(array) if is_matrix else array.tolist()

    meta = {key: str(file[key]) for key in _ENTRIES if key in file}
    for key in ("classes", "class_names"):  # where there are both, the second counts
        meta |= {"classes": json.dumps(file[key].tolist())} if key in file else {}
    return FeatureFile(list(names), meta, get)


# What the columns of a Parquet file hold; of several with one meaning, the last counts.
_COLUMNS = {
    "embedding": "features",
    "features": "features",
    "label": "labels",
    "name": "names",
    "path": "names",
    "digest": "digests",
}


def _open_parquet(path: Path) -> FeatureFile:
    """Columns ``features`` or ``embedding``, ``label``, and ``path``, ``split``, ``digest``.

    A folder is read as one file, of all its parts that are whole.

    The footer may hold ``classes``, ``logit_scale``, ``backbone``, ``feature_norm`` and ``text``
    (base64 of float32 rows, one per class).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = _parts(path) if path.is_dir() else [path]
    tables = [pq.ParquetFile(part).read(columns=["split", *_COLUMNS]) for part in parts]
    table = pa.concat_tables(tables, promote_options="default")
    columns = {part: table[name] for name, part in _COLUMNS.items() if name in table.column_names}
    splits = [""] * len(table)
    if "split" in table.column_names:
        splits = [str(split or "") for split in table["split"].to_pylist()]
    meta = {
        key.decode(): value.decode("utf-8", "replace")
        for key, value in (table.schema.metadata or {}).items()
        if key not in (b"ARROW:schema", b"pandas", b"huggingface")
    }
    packed = meta.pop("text", None)
    labels = set(columns["labels"].to_pylist()) if "labels" in columns else set()
    if "classes" not in meta and any(isinstance(label, str) for label in labels):
        # Over every split, so that training and test rows agree on the numbers.
        meta["classes"] = json.dumps(in_order(str(lb) for lb in labels if lb is not None))

    def get(key: str) -> Any:
        if key == "text":
            flat = np.frombuffer(base64.b64decode(packed or ""), np.float32)
            return torch.from_numpy(flat.copy()).reshape(len(json.loads(meta["classes"])), -1)
        set_name, _, part = key.rpartition(".")
        rows = columns[part].take(np.flatnonzero([split == set_name for split in splits]))
        if part != "features":
            empty = -1 if part == "labels" else "None"
            return [empty if value is None else value for value in rows.to_pylist()]
        lists = rows.combine_chunks()
        if len(lists.value_lengths().unique()) > 1 or lists.null_count:
            raise DataError(
                "The rows in the column of features differ in length.",
                allowed="lists of numbers, all of one length",
            )
        flat = lists.flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(flat.copy()).reshape(len(lists), len(flat) // max(len(lists), 1))

    names = dict.fromkeys(splits or [""])
    keys = [f"{name}.{part}" if name else part for name in names for part in columns]
    has_text = packed is not None and "classes" in meta
    return FeatureFile([*keys, "text"] if has_text else keys, meta, get)


def _parts(folder: Path) -> list[Path]:
    """The files of a folder of features, each of which has a line in the manifest."""
    entry = read_json(
        folder / SHARDED,
        "The entry of features",
        dict[str, Any],
        "an entry as 'clip-adapter scale embed' writes it",
    )
    lines = sorted((folder / MANIFEST).glob("*.json"))
    if not lines:
        raise DataError("No part of it is whole.", hint="Run 'clip-adapter scale embed' again.")
    if (missing := entry.get("shards", 0) - len(lines)) > 0:
        what = counted(missing, "part is", "parts are")
        note(f"{shown(folder)}: {what} missing; 'clip-adapter scale embed' makes them.")
    return [folder / f"{line.stem}.parquet" for line in lines]


def _write_safetensors(path: Path, sets: Sets, text: Tensor | None, header: dict[str, str]) -> None:
    tensors = {} if text is None else {"text": text.float().cpu()}
    for name, one in sets.items():
        tensors[f"{name}.features"] = one.features if one.views > 1 else one.plain_view
        tensors[f"{name}.labels"] = one.labels
        for part, words in (("names", one.names), ("digests", one.digests)):
            if words:
                raw = bytearray(json.dumps(words).encode())
                tensors[f"{name}.{part}"] = torch.frombuffer(raw, dtype=torch.uint8)
    # By hand, since the features may be larger than memory: safetensors would make all of the file
    # in memory, or write beside ``path`` and move a file of its own there.
    entries: dict[str, Any] = {"__metadata__": header}
    arrays, end = [], 0
    # The longest numbers first, so that all are aligned.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        arrays.append(tensor.contiguous().numpy())
        start, end = end, end + arrays[-1].nbytes
        entries[name] = {
            "dtype": _KINDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for array in arrays:
            file.write(array.reshape(-1).data)


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
    if text is not None:
        header["text"] = base64.b64encode(text.float().cpu().numpy().tobytes()).decode()
    table = {key: words_of(v) for key, v in columns.items() if any(v)}
    table["features"] = pa.chunked_array(column_of(one.plain_view) for one in sets.values())
    whole = pa.table(table).replace_schema_metadata(header)
    pq.write_table(whole, path, row_group_size=_GROUP)


def words_of(words: Iterable[str | None]) -> pa.StringArray:
    """Words as a column of Parquet, also where all are None."""
    import pyarrow as pa

    return pa.array(words, pa.string())


def column_of(rows: Tensor) -> pa.FixedSizeListArray:
    """Features (N, D) as a column of Parquet."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1).numpy()), rows.shape[1])


Writer = Callable[[Path, Sets, Tensor | None, dict[str, str]], None]
FORMATS: dict[str, tuple[Callable[[Path], FeatureFile], Writer | None]] = {
    ".safetensors": (_open_safetensors, _write_safetensors),
    ".npz": (_open_npz, None),
    ".parquet": (_open_parquet, _write_parquet),
}
"""By the ending of the file: what opens it, and what writes it, if anything does."""
