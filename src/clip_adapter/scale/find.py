"""``find_shards``: the shards that an input consists of, or is cut into."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from clip_adapter.datasets.dataset import UNSPLIT
from clip_adapter.datasets.open import DataSpec, load_dataset
from clip_adapter.datasets.walk import ENDING, LOCKED, PICTURE_SUFFIXES, Walk
from clip_adapter.errors import DataError, UsageError
from clip_adapter.paths import did_you_mean, is_remote
from clip_adapter.reporting import log
from clip_adapter.scale.shards import (
    ENDINGS,
    FORMS,
    LISTS,
    PARQUET,
    TAR,
    Row,
    Shard,
    lines_of,
    reading,
)
from clip_adapter.scale.storage import absolute, open_at
from clip_adapter.wording import counted, listed, shown

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def find_shards(
    source: str | Path | DataSpec,
    *,
    size: int,
    labelled: bool = False,
    root: str | Path | None = None,
) -> list[Shard]:
    """The shards of an input, always the same ones in the same order.

    Args:
        source: see :data:`FORMS`; with ``labelled``, what ``load_dataset`` reads.
        size: pictures per shard, of what is cut.
        labelled: it is a data set with classes, which go into the output.
        root: where relative paths start.

    Raises:
        UsageError: it is nothing of this kind.
        DataError: there is nothing, or it cannot be read.
    """
    if labelled:
        return _cut(*_labelled(source, root), size)
    address = str(source)
    base = None if root is None else absolute(str(root))
    files, path = open_at(address)
    if not is_remote(address) and glob.has_magic(path) and not os.path.exists(path):
        found = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
        return _of_files(address, found, os.path.dirname(re.split(r"[*?\[]", path)[0]), base)
    with reading(address):
        info = files.get_file_info(path)
    at = address.rstrip("/") if is_remote(address) else path
    if info.type.name == "NotFound":
        guess = "" if is_remote(address) else did_you_mean(path)
        raise DataError(f"{shown(address)} does not exist.{guess}", hint="Check the path.")
    if info.is_file:
        if at.endswith(LISTS):
            return _cut([Row(line) for line in lines_of(at)], base or os.path.dirname(at), size)
        return _of_files(address, [at], os.path.dirname(at), base)
    if is_remote(address):
        pictures, others = _listed(files, path, at)
    else:
        walk = Walk(Path(path))
        pictures = [str(picture) for picture in walk.pictures()]
        others = [str(p) for p, why in walk.left_out.items() if why == ENDING]
        if locked := [shown(p) for p, why in walk.left_out.items() if why == LOCKED]:
            raise DataError(
                f"{counted(len(locked), 'folder')} cannot be listed: {listed(locked)}.",
                hint="What is in there would be missing. Make it readable, or move it away.",
            )
        for note in walk.notes() if pictures else ():
            log.warning(f"{shown(address)}: {note}")
    found = sorted(file for file in others if file.endswith(ENDINGS))
    if pictures and any(file.endswith((TAR, PARQUET)) for file in found):
        raise UsageError(
            f"{shown(address)} holds pictures, and {listed(map(os.path.basename, found), 3)}.",
            allowed=FORMS,
            hint="Name a pattern of the shards, or move them away from the pictures.",
        )
    if not pictures and len(found) < len(others):
        what = counted(len(others) - len(found), "file")
        log.warning(f"{shown(address)}: {what} left out, no shards by their ending.")
    if pictures:
        return _cut([Row(os.path.relpath(p, at)) for p in pictures], at, size)
    return _of_files(address, found, at, base)


def _of_files(address: str, found: Sequence[str], start: str, base: str | None) -> list[Shard]:
    """A shard for each of the files ``found``, named by their paths from ``start`` on."""
    if not found:
        raise UsageError(f"{shown(address)} holds neither shards nor pictures.", allowed=FORMS)
    if strange := [file for file in found if not file.endswith(ENDINGS)]:
        raise UsageError(f"{shown(strange[0])} is no shard.", allowed=FORMS)
    return [
        Shard(quote(file[len(start) :].lstrip("/"), safe=" "), base or os.path.dirname(file), file)
        for file in found
    ]


def _listed(files: FileSystem, path: str, at: str) -> tuple[list[str], list[str]]:
    """Addresses of the pictures below ``path``, and of all other files, sorted."""
    from pyarrow.fs import FileSelector

    with reading(at):
        entries = files.get_file_info(FileSelector(path, recursive=True))
    names = sorted(e.path[len(path) :].lstrip("/") for e in entries if e.is_file)
    kinds: tuple[list[str], list[str]] = [], []
    for name in names:
        if not any(part.startswith(".") for part in name.split("/")):
            other = os.path.splitext(name)[1].lower() not in PICTURE_SUFFIXES
            kinds[other].append(f"{at}/{name}")
    return kinds


def _labelled(address: str | Path | DataSpec, root: str | Path | None) -> tuple[list[Row], str]:
    dataset = load_dataset(address, root=root)
    rows = []
    base = absolute(str(root or address))
    base = base if os.path.isdir(base) else os.path.dirname(base)
    for split in dataset.splits:
        for sample in dataset.pool(split):
            if not isinstance(sample.source, Path):
                raise UsageError(
                    f"{address} holds its pictures in memory.",
                    allowed="pictures in files",
                    hint="'clip-adapter embed' takes it whole.",
                )
            path = os.path.relpath(os.path.abspath(sample.source), base)
            known = None if split == UNSPLIT else split
            rows.append(Row(path, dataset.class_names[sample.label], known))
    for note in dataset.notes:
        log.warning(f"{shown(str(address))}: {note}")
    return rows, base


def _cut(rows: Sequence[Row], base: str, size: int) -> list[Shard]:
    """Runs of ``size`` pictures."""
    if not rows:
        raise DataError("There are no pictures to embed.", hint="Check the path.")
    return [
        Shard(f"{number:06d}", base, rows=tuple(rows[start : start + size]))
        for number, start in enumerate(range(0, len(rows), size))
    ]
