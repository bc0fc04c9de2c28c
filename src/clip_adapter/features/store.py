"""``FeatureStore``: features computed once, kept on disk, used only for exactly what made them.

    ROOT/<key>/key.json              what made the rows: weights, preprocessing, view, version
    ROOT/<key>/000001.safetensors    features (n, D) float32
    ROOT/<key>/000001.json           digests of the n rows, SHA-256 of the file beside it

A shelf is the folder of one key. A shard is there once its JSON is: it is written last, and every
file comes into place by one rename, so a process killed at any moment leaves whole shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from clip_adapter.errors import StoreError
from clip_adapter.files import replacing
from clip_adapter.reporting import log

# Raised whenever the same key would give other numbers: decoding, transforms, pooling of features.
FEATURE_VERSION = 1
CACHE_VARIABLE = "CLIP_ADAPTER_CACHE"


def content_digest(data: bytes) -> str:
    """The digest (hex, 128 bits) that stands for some bytes: a picture's file, or a text."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def default_root() -> Path:
    """``$CLIP_ADAPTER_CACHE``, or the user's cache folder."""
    import platformdirs

    told = os.environ.get(CACHE_VARIABLE)
    return Path(told) if told else Path(platformdirs.user_cache_dir("clip-adapter"))


class FeatureStore:
    """Shelves of features under ``root``; see the module's description.

    Args:
        root: the folder; default :func:`default_root`. It is made when first written to.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = (Path(root) if root is not None else default_root()) / "features"

    def shelf(self, key: dict[str, Any], made_by: str = "") -> Shelf:
        """The shelf of what ``key`` (JSON types) describes; ``made_by`` only tells readers."""
        full = {**key, "feature_version": FEATURE_VERSION}
        text = json.dumps(full, sort_keys=True)
        told = {**full, "made_by": made_by}
        return Shelf(self.root / content_digest(text.encode()), told)

    def info(self) -> list[dict[str, Any]]:
        """What is kept: ``key``, ``rows`` and ``bytes`` of every shelf."""
        found = []
        for path in sorted(self.root.glob("*/key.json")):
            records = map(_read_record, path.parent.glob("[0-9]*.json"))
            rows = sum(len(record["digests"]) for record in records if record is not None)
            size = sum(f.stat().st_size for f in path.parent.iterdir() if f.is_file())
            with contextlib.suppress(ValueError, OSError):
                found.append({"key": json.loads(path.read_text()), "rows": rows, "bytes": size})
        return found


@dataclass
class Shelf:
    """The rows of one key; made by :meth:`FeatureStore.shelf`."""

    path: Path
    key: dict[str, Any]
    _rows: dict[str, tuple[Tensor, int]] = field(default_factory=dict, repr=False)
    _known: set[str] = field(default_factory=set, repr=False)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Alone on this shelf, other processes and threads wait; damaged shards are removed.

        Raises:
            StoreError: the folder cannot be written.
        """
        with self._errors():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("Another process embeds the same pictures: waiting for it.")
                lock.acquire()
        try:
            with self._errors():
                self._tidy()
                self.refresh(repair=True)
            yield
        finally:
            lock.release()

    def refresh(self, *, repair: bool = False) -> None:
        """Read the shards that were not read yet; with ``repair``, remove the damaged ones."""
        for record in sorted(self.path.glob("[0-9]*.json")):
            if record.stem in self._known:
                continue
            fault, digests, features = self._open(record)
            if features is not None:
                self._known.add(record.stem)
                self._rows |= {d: (features, i) for i, d in enumerate(digests)}
            elif repair:
                log.info(f"Damaged in the store: {record} ({fault}). Its rows are made again.")
                record.unlink(missing_ok=True)
                record.with_suffix(".safetensors").unlink(missing_ok=True)

    def get(self, digests: Sequence[str]) -> tuple[Tensor | None, list[int]]:
        """The rows of ``digests`` (n), as far as they are here.

        Returns:
            (n, D) float32, zero where a row is missing, or None where all are; and the
            positions that are missing.
        """
        missing = [i for i, digest in enumerate(digests) if digest not in self._rows]
        if len(missing) == len(digests):
            return None, missing
        dim = next(self._rows[d][0].shape[1] for d in digests if d in self._rows)
        out = torch.zeros(len(digests), dim)
        by_shard: dict[int, tuple[Tensor, list[int], list[int]]] = {}
        for i, digest in enumerate(digests):
            if digest in self._rows:
                shard, row = self._rows[digest]
                _, targets, rows = by_shard.setdefault(id(shard), (shard, [], []))
                targets.append(i)
                rows.append(row)
        for shard, targets, rows in by_shard.values():
            out[targets] = shard[rows]
        return out, missing

    def put(self, digests: Sequence[str], features: Tensor) -> None:
        """Keep ``features`` (n, D) as one shard. Call it inside :meth:`lock`.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        from safetensors.torch import save

        if not digests:
            return
        rows = features.detach().to("cpu", torch.float32).contiguous()
        data = save({"features": rows})
        with self._errors():
            numbers = [int(path.stem) for path in self.path.glob("[0-9]*.json")]
            stem = f"{max(numbers, default=0) + 1:06d}"
            if not (self.path / "key.json").exists():
                text = json.dumps(self.key, indent=1, sort_keys=True)
                _replace(self.path / "key.json", text.encode())
            _replace(self.path / f"{stem}.safetensors", data)
            record = {
                "sha256": hashlib.sha256(data).hexdigest(),
                "rows": len(rows),
                "dim": rows.shape[1],
                "digests": list(digests),
            }
            _replace(self.path / f"{stem}.json", json.dumps(record).encode())
        self._known.add(stem)
        self._rows |= {digest: (rows, i) for i, digest in enumerate(digests)}

    def _open(self, record: Path) -> tuple[str, list[str], Tensor | None]:
        """(fault, digests, memory-mapped features), the last None with a fault."""
        from safetensors import SafetensorError, safe_open

        told = _read_record(record)
        if told is None:
            return "its JSON cannot be read", [], None
        path = record.with_suffix(".safetensors")
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != told["sha256"]:
                    return "wrong checksum", [], None
            with safe_open(path, framework="pt") as shard:
                features = shard.get_tensor("features")
        except (OSError, SafetensorError) as error:
            return str(error) or type(error).__name__, [], None
        if features.ndim != 2 or len(features) != len(told["digests"]):
            return "the number of rows is not what its JSON says", [], None
        return "", told["digests"], features

    def _tidy(self) -> None:
        """Remove what a killed process left half done."""
        for path in self.path.glob("*.tmp"):
            path.unlink(missing_ok=True)
        for path in self.path.glob("[0-9]*.safetensors"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The feature store {self.path.parent} cannot be written: "
                f"{error.strerror or error}.",
                hint="Free some space, or name a folder that can be written: --cache DIR, or "
                f"the environment variable {CACHE_VARIABLE}.",
            ) from error


def _replace(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("digests"), list):
        return None
    return told if isinstance(told.get("sha256"), str) else None
