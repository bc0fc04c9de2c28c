"""``Shard``: a piece of the input that becomes one file of the output, and how it is read.

A shard is a WebDataset tar, a Parquet file of paths or of pictures, a text file of paths, or a run
of pictures that a folder, a table or a long list was cut into.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.walk import PICTURE_SUFFIXES
from clip_adapter.errors import DataError
from clip_adapter.features.store import content_digest
from clip_adapter.files import read_text, reading_errors
from clip_adapter.paths import is_remote
from clip_adapter.scale.storage import open_at
from clip_adapter.wording import listed, shown

TAR, PARQUET, LISTS = ".tar", ".parquet", (".txt", ".lst")
ENDINGS = (TAR, PARQUET, *LISTS)
FORMS = (
    "a WebDataset .tar; a .parquet file with a column of paths (path) or of pictures (bytes, "
    "image, jpg); a .txt list of paths; a folder or pattern of these; a folder of pictures"
)
# Columns of Parquet files that hold pictures: bytes, or as the Hugging Face hub has them.
_PICTURES = ("bytes", "image", "jpg", "jpeg", "png", "webp", "content")
_PATHS = ("path", "file", "filename", "filepath", "image_path")
_LABELS = ("label", "cls", "class")
_ROWS = 64  # of Parquet read at once
reading = functools.partial(reading_errors, kind=DataError)
"""Errors of the block name the input, and are of data: they cost one shard."""


class Row(NamedTuple):
    """A picture by its path: relative to the base of its shard, or whole, or an address."""

    path: str
    label: str | None = None
    split: str | None = None


class Item(NamedTuple):
    """A picture of a shard; ``size`` is what it holds in memory, in bytes."""

    sample: Sample
    label: str | None = None
    split: str | None = None
    size: int = 0


@dataclass(frozen=True)
class Shard:
    """A piece of the input.

    Attributes:
        name: of its file in the output, without ending; no two are alike.
        base: where relative paths start, a folder or an address.
        address: the file that it is, or "".
        rows: the pictures, where it is no file.
    """

    name: str
    base: str
    address: str = ""
    rows: tuple[Row, ...] = ()


def version_of(shard: Shard) -> str:
    """What tells a shard from what it was before: sizes and times of its files, and their order.

    Raises:
        DataError: it is not there.
    """
    if shard.address and not shard.address.endswith(LISTS):
        return _state(shard.address)
    places = ((row, _whole(row.path, shard.base)) for row in _rows(shard))
    # To ask a store of objects for each of them would take as long as to fetch them.
    rows = (f"{row}\t{'' if is_remote(place) else _state(place)}" for row, place in places)
    return content_digest("\n".join(rows).encode("utf-8", "surrogateescape"))


def _state(address: str) -> str:
    """Size and time of change of a file; "" for one that is not there."""
    if is_remote(address):
        files, path = open_at(address)
        with reading(address):
            info = files.get_file_info(path)
        return f"{info.size}-{info.mtime_ns}" if info.is_file else ""
    with contextlib.suppress(OSError, ValueError):
        state = os.stat(address)
        return f"{state.st_size}-{state.st_mtime_ns}"
    return ""


@contextlib.contextmanager
def open_shard(shard: Shard) -> Iterator[Iterable[Item]]:
    """The pictures of a shard, in order, inside the block: a file elsewhere is fetched for it.

    Raises:
        DataError: it cannot be read. Going through the pictures raises it too.
    """
    from pyarrow import fs

    with contextlib.ExitStack() as stack:
        path = Path(shard.address)
        if is_remote(shard.address):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = Path(folder, "shard").with_suffix(path.suffix)
            with reading(shard.address):
                files, source = open_at(shard.address)
                fs.copy_files(
                    source,
                    str(path),
                    source_filesystem=files,
                    destination_filesystem=fs.LocalFileSystem(),
                )
        if shard.address.endswith(TAR):
            items = _of_tar(path)
        elif shard.address.endswith(PARQUET):
            items = _of_parquet(path, shard.base)
        else:
            items = (_by_path(row, shard.base) for row in _rows(shard))
        yield _told(items, shard.address or shard.name)


def _told(items: Iterator[Item], name: str) -> Iterator[Item]:
    """``items``; an error names the shard."""
    number = 0
    with reading(name):
        for number, item in enumerate(items, 1):  # noqa: B007 - counted
            yield item
    if not number:
        raise DataError(f"{shown(name)} holds no pictures.", allowed=FORMS)


def _rows(shard: Shard) -> Sequence[Row]:
    return shard.rows or [Row(line) for line in lines_of(shard.address)]


def lines_of(address: str) -> list[str]:
    """The lines of a list that are not blank."""
    if is_remote(address):
        files, path = open_at(address)
        with reading(address), files.open_input_stream(path, compression=None) as stream:
            text = stream.read().decode("utf-8-sig")
    else:
        text = read_text(address, "The list")
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def _whole(path: str, base: str) -> str:
    if is_remote(path) or os.path.isabs(path):
        return path
    return f"{base.rstrip('/')}/{path}"


def _by_path(row: Row, base: str) -> Item:
    whole = _whole(row.path, base)
    source: Path | Callable[[], bytes] = Path(whole)
    if is_remote(whole):
        source = functools.partial(_bytes_at, whole)
    return Item(Sample(row.path, -1, source), row.label, row.split)


def _bytes_at(address: str) -> bytes:
    with reading(address):
        files, path = open_at(address)
        with files.open_input_stream(path, compression=None) as stream:
            return stream.read()


def _of_tar(path: Path) -> Iterator[Item]:
    """Members that are pictures; ``KEY.cls`` beside ``KEY.jpg`` is its class (WebDataset)."""
    labels: dict[str, str] = {}
    pictures: list[tuple[str, str, int, int]] = []
    with tarfile.open(path, "r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue] - it keeps them all
            folder, _, file = member.name.rpartition("/")
            key = f"{folder}/{file.partition('.')[0]}"
            if not member.isreg() or file.startswith("."):
                continue
            if os.path.splitext(file)[1].lower() in PICTURE_SUFFIXES:
                pictures.append((member.name, key, member.offset_data, member.size))
            elif file.endswith(".cls") and (content := tar.extractfile(member)):
                labels[key] = content.read().decode("utf-8").strip()
        # The module takes whatever cannot be a header for the end.
        tar.fileobj.seek(tar.offset)  # pyright: ignore[reportOptionalMemberAccess]
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # pyright: ignore
            raise DataError("The file has no end: it was cut off, or is damaged.")
    for name, key, offset, size in pictures:
        source = functools.partial(_part, path, offset, size)
        yield Item(Sample(name, -1, source), labels.get(key))


def _part(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def _of_parquet(path: Path, base: str) -> Iterator[Item]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        known = {name.lower(): name for name in names}
        pictures, paths, labels, split = (
            next((known[name] for name in few if name in known), None)
            for few in (_PICTURES, _PATHS, _LABELS, ("split",))
        )
        if pictures is None and paths is None:
            raise DataError(
                f"No column of pictures or paths; its columns: {listed(names, 10)}.",
                allowed=", ".join([*_PICTURES, *_PATHS]),
            )
        wanted = [name for name in (pictures, paths, labels, split) if name]
        batches = file.iter_batches(batch_size=_ROWS, columns=wanted)
        rows = chain.from_iterable(batch.to_pylist() for batch in batches)
        for number, row in enumerate(rows, 1):
            label, part = (
                None if one is None or row[one] is None else str(row[one])
                for one in (labels, split)
            )
            data, own = _picture(row[pictures]) if pictures else (None, None)
            name = (row[paths] if paths else None) or own
            if data is None and name:
                yield _by_path(Row(name, label, part), base)
            else:
                data = data or b""
                sample = Sample(name or f"row {number}", -1, functools.partial(bytes, data))
                yield Item(sample, label, part, len(data))


def _picture(cell: Any) -> tuple[bytes | None, str | None]:
    """The bytes of a cell, and the name in it: ``{"bytes": ..., "path": ...}``, or bytes."""
    if isinstance(cell, dict):
        return cell.get("bytes"), cell.get("path")
    if cell is None or isinstance(cell, bytes):
        return cell, None
    raise DataError(f"A cell of the column of pictures is {type(cell).__name__}.", allowed="bytes")
