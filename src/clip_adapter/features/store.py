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
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from clip_adapter.backbones.base import Backbone
from clip_adapter.errors import StoreError
from clip_adapter.files import remedy, replacing, writing_errors
from clip_adapter.paths import CACHE_VARIABLE, default_root
from clip_adapter.reporting import log

# Raised whenever the same key would give other numbers: decoding, transforms, pooling of features.
FEATURE_VERSION = 1
_LARGE = 2**28  # bytes of a table from which on it lies in a file


def content_digest(data: bytes) -> str:
    """The digest (hex, 128 bits) that stands for some bytes: a picture's file, or a text."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def versioned(key: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """``key`` (JSON types) with the version of the features, and its digest."""
    full = {**key, "feature_version": FEATURE_VERSION}
    return full, content_digest(json.dumps(full, sort_keys=True).encode())


class FeatureStore:
    """Shelves of features under ``root``; see the module's description.

    Args:
        root: the folder; default :func:`default_root`. It is made when first written to.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = (Path(root) if root is not None else default_root()) / "features"

    def shelf(self, key: dict[str, Any], made_by: str = "") -> Shelf:
        """The shelf of what ``key`` (JSON types) describes; ``made_by`` only tells readers."""
        full, digest = versioned(key)
        return Shelf(self.root / digest, {**full, "made_by": made_by})

    def info(self) -> list[dict[str, Any]]:
        """What is kept: ``key``, ``rows`` and ``bytes`` of every shelf; damaged parts left out."""
        shelves = []
        for path in sorted(self.root.glob("*/key.json")):
            rows = 0
            for record in path.parent.glob("[0-9]*.json"):
                with contextlib.suppress(OSError, ValueError):
                    rows += len(_read_record(record)[0])
            size = sum(f.stat().st_size for f in path.parent.iterdir() if f.is_file())
            with contextlib.suppress(OSError, ValueError):
                shelves.append({"key": json.loads(path.read_text()), "rows": rows, "bytes": size})
        return shelves


def open_shelf(store: FeatureStore | None, backbone: Backbone, key: dict[str, Any]) -> Rows:
    """Where features of ``backbone`` are kept, and those that are; in memory without a store.

    ``key`` (JSON types) is all that decides them, besides what they are of.
    """
    if store is None or not backbone.fingerprint:  # nothing tells them from those of another one
        return Rows()
    shelf = store.shelf(key, backbone.name)
    shelf.refresh()
    return shelf


@dataclass
class Rows:
    """Features by the digest of what they are of, in memory."""

    _rows: dict[str, tuple[Tensor, int]] = field(default_factory=dict, repr=False, kw_only=True)

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """What to hold while rows are put: nothing."""
        return contextlib.nullcontext()

    def put(self, digests: Sequence[str], features: Tensor) -> None:
        """Keep ``features`` (n, D), as float32."""
        rows = features.detach().to("cpu", torch.float32).contiguous()
        self._rows |= {digest: (rows, i) for i, digest in enumerate(digests)}

    def get(self, digests: Sequence[str]) -> tuple[Tensor | None, list[int]]:
        """The rows of ``digests`` (n), as far as they are here.

        Returns:
            (n, D) float32, zero where a row is missing, or None where all are; and the
            positions that are missing.
        """
        missing = [i for i, digest in enumerate(digests) if digest not in self._rows]
        if len(missing) == len(digests):
            return None, missing
        # Shard by shard: to copy single rows takes many times as long.
        places: dict[int, tuple[Tensor, list[int], list[int]]] = {}
        for i, digest in enumerate(digests):
            if digest in self._rows:
                shard, row = self._rows[digest]
                _, targets, rows = places.setdefault(id(shard), (shard, [], []))
                targets.append(i)
                rows.append(row)
        width = next(shard.shape[1] for shard, _, _ in places.values())
        out = table(len(digests), width)
        for shard, targets, rows in places.values():
            out[targets] = shard[rows]
        return out, missing


@dataclass
class Shelf(Rows):
    """The rows of one key; made by :meth:`FeatureStore.shelf`."""

    path: Path
    key: dict[str, Any]
    _known: set[str] = field(default_factory=set, repr=False)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this shelf alone while others wait; remove its damaged shards first.

        Raises:
            StoreError: the folder cannot be written.
        """
        lock = FileLock(self.path / ".lock")
        with contextlib.ExitStack() as held:
            with self._errors():
                self.path.mkdir(parents=True, exist_ok=True)
                try:
                    held.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    log.info("Another process embeds with this backbone: waiting until it is done.")
                    held.enter_context(lock.acquire())
                self._tidy()
                self.refresh(repair=True)
            yield

    def refresh(self, *, repair: bool = False) -> None:
        """Read the shards that were not read yet; with ``repair``, remove the damaged ones."""
        from safetensors import SafetensorError

        for path in sorted(self.path.glob("[0-9]*.json")):
            if path.stem in self._known:
                continue
            try:
                super().put(*_read_shard(path))
                self._known.add(path.stem)
            except PermissionError:
                if repair:
                    log.warning(f"{path} may not be read (permission). Its rows are made again.")
            except (OSError, ValueError, SafetensorError) as fault:
                if repair:
                    log.warning(f"Damaged in the store: {path} ({fault}). Its rows are made again.")
                    path.unlink(missing_ok=True)
                    path.with_suffix(".safetensors").unlink(missing_ok=True)

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
        record = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "rows": len(rows),
            "dim": rows.shape[1],
            "digests": list(digests),
        }
        with self._errors():
            numbers = [int(path.stem) for path in self.path.glob("[0-9]*.json")]
            stem = f"{max(numbers, default=0) + 1:06d}"
            if not (self.path / "key.json").exists():
                text = json.dumps(self.key, indent=1, sort_keys=True)
                _replace(self.path / "key.json", text.encode())
            _replace(self.path / f"{stem}.safetensors", data)
            _replace(self.path / f"{stem}.json", json.dumps(record).encode())
        self._known.add(stem)
        # From the file: what was written need not stay in memory.
        super().put(digests, _mapped(self.path / f"{stem}.safetensors"))

    def _tidy(self) -> None:
        """Remove what a killed process left half done."""
        shards = self.path.glob("[0-9]*.safetensors")
        alone = [shard for shard in shards if not shard.with_suffix(".json").exists()]
        for path in [*self.path.glob("*.tmp"), *alone]:
            path.unlink(missing_ok=True)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return writing_errors(
            f"The feature store {self.path.parent}",
            "name a folder that can be written: --cache DIR, or the environment variable "
            f"{CACHE_VARIABLE}",
            StoreError,
        )


def _read_record(path: Path) -> tuple[list[str], str]:
    """Digests of the rows and checksum of a shard, from the JSON beside it.

    Raises OSError or ValueError if it cannot be read, or holds none.
    """
    match json.loads(path.read_text(encoding="utf-8")):
        case {"digests": list(digests), "sha256": str(checksum)}:
            return digests, checksum
    raise ValueError("its JSON cannot be read")


def _read_shard(record: Path) -> tuple[list[str], Tensor]:
    """Digests and rows (n, D), memory-mapped, of the shard of a JSON.

    Raises OSError, ValueError or SafetensorError if it is damaged.
    """
    digests, checksum = _read_record(record)
    path = record.with_suffix(".safetensors")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
            raise ValueError("wrong checksum")
    features = _mapped(path)
    if features.ndim != 2 or len(features) != len(digests):
        raise ValueError("the number of rows is not what its JSON says")
    return digests, features


def _mapped(shard: Path) -> Tensor:
    """The rows (n, D) of a shard, memory-mapped."""
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as file:
        return file.get_tensor("features")


def table(rows: int, width: int) -> Tensor:
    """Zeros (rows, width) float32; large ones lie in a temporary file that goes with them.

    The system takes their memory back where it is short of it.

    Raises:
        StoreError: there is no room for the file.
    """
    size = rows * width * 4
    if size < _LARGE:
        return torch.zeros(rows, width)
    with tempfile.TemporaryFile(prefix="clip-adapter-") as file:
        try:
            if hasattr(os, "posix_fallocate"):  # a map of what is not there kills the process
                os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=(rows, width)))
        except OSError as error:
            raise StoreError(
                f"{rows} features take {size / 1e9:.1f} GB in {tempfile.gettempdir()}: "
                f"{error.strerror or error}.",
                hint=remedy(error, "name a folder with more room: TMPDIR=DIR"),
            ) from error


def _replace(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
