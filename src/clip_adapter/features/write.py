"""``write_features``: features into one file that this and other programs read."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.files import replacing, writing

WRITABLE = (".safetensors", ".parquet")


def write_features(
    path: str | Path,
    feature_sets: Mapping[str, FeatureSet],
    text: Tensor | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write named sets of features to ``.safetensors`` or ``.parquet``, in one step.

    The file is what :func:`~clip_adapter.features.files.load_features` reads:
    ``SET.features`` (N, D), or (V, N, D) with several views, ``SET.labels``, ``SET.names``,
    ``SET.digests`` and ``text`` (C, D); in Parquet one row per picture with the columns ``split``,
    ``path``, ``label`` (the class name), ``digest`` and ``features``.

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
    sets = dict(feature_sets)
    if path.suffix.lower() not in WRITABLE:
        raise UsageError(f"Features are not written as {path.name}.", allowed=", ".join(WRITABLE))
    if not sets:
        raise DataError("There are no features to write.")
    first = next(iter(sets.values()))
    for name, one in sets.items():
        if (one.class_names, one.feature_norm) != (first.class_names, first.feature_norm):
            raise DataError(f"The set {name!r} has other classes or another feature_norm.")
    header = {key: str(value) for key, value in (meta or {}).items() if value is not None}
    header["classes"] = json.dumps(first.class_names, ensure_ascii=False)
    header["feature_norm"] = first.feature_norm
    write = _safetensors if path.suffix.lower() == ".safetensors" else _parquet
    with writing(path), replacing(path) as temporary:
        write(temporary, sets, text, header)


def _bytes(names: list[str]) -> Tensor:
    raw = json.dumps(names, ensure_ascii=True).encode()
    return torch.from_numpy(np.frombuffer(raw, np.uint8).copy())


def _safetensors(
    path: Path, sets: dict[str, FeatureSet], text: Tensor | None, header: dict[str, str]
) -> None:
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for name, one in sets.items():
        features = one.features if one.views > 1 else one.plain_view
        # copies: safetensors refuses tensors that share memory, as subsets of one set do
        tensors[f"{name}.features"] = features.contiguous().clone()
        tensors[f"{name}.labels"] = one.labels.contiguous().clone()
        if one.names:
            tensors[f"{name}.names"] = _bytes(one.names)
        if one.digests:
            tensors[f"{name}.digests"] = _bytes(one.digests)
    if text is not None:
        tensors["text"] = text.float().cpu().contiguous()
    path.write_bytes(save(tensors, header))


def _parquet(
    path: Path, sets: dict[str, FeatureSet], text: Tensor | None, header: dict[str, str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if several := [name for name, one in sets.items() if one.views > 1]:
        raise UsageError(
            f"Parquet holds one view per picture, and {several[0]!r} has more.",
            hint="Write .safetensors, or one view.",
        )
    columns: dict[str, list[Any]] = {"split": [], "path": [], "label": [], "digest": []}
    for name, one in sets.items():
        names = one.class_names
        columns["split"] += [name] * len(one)
        columns["path"] += one.names or [None] * len(one)
        columns["label"] += [names[i] if i >= 0 else None for i in one.labels.tolist()]
        columns["digest"] += one.digests or [None] * len(one)
    joined = torch.cat([one.plain_view for one in sets.values()])
    flat = pa.array(joined.reshape(-1).numpy())
    if text is not None:
        header["text"] = base64.b64encode(text.float().cpu().numpy().tobytes()).decode()
    kept = {key: pa.array(v, pa.string()) for key, v in columns.items() if any(v)}
    features = pa.FixedSizeListArray.from_arrays(flat, joined.shape[1])
    table = pa.table({**kept, "features": features})
    pq.write_table(table.replace_schema_metadata(header), path)
