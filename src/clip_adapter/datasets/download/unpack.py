"""``unpack``: pictures out of a tar or zip file, without trusting what its paths say."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

from clip_adapter.errors import DataError
from clip_adapter.files import remedy, replacing
from clip_adapter.reporting import log, tracking
from clip_adapter.wording import counted, shown

# Far above every set of the paper (SUN397 has 108,754 files), and below what fills a disk's index.
MAX_FILES = 3_000_000
# Pictures do not shrink in an archive; what grows so much is made to fill the disk.
MAX_GROWTH = 20
_FREE_GROWTH = 1 << 26
# What the three modules raise on damaged bytes; RuntimeError is that of a password.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    RuntimeError,
)
_AGAIN = "It is not what it should be: fetch it again."


def unpack(archive: Path, root: Path, layout: Mapping[str, str]) -> int:
    """Write the files of ``archive`` below ``root``, as ``layout`` says.

    Each file appears whole or not at all, and one that is there is left alone: after a break the
    same call goes on. Those of another size are told, and so are paths that lead outside, which
    stay in the archive. Modes and owners are not taken over.

    Args:
        archive: tar (plain or compressed in any way) or zip; its content decides.
        root: the folder that no file may leave.
        layout: path prefix in the archive → prefix below ``root``; files without such a prefix
            stay in the archive.

    Returns:
        How many files ``layout`` chose.

    Raises:
        DataError: no such archive, damaged, with a link, a device or a path that leads outside
            among the chosen files, too large once unpacked, or the disk is full.
    """
    count = written = other = strange = 0
    try:
        total = archive.stat().st_size
        most = max(_FREE_GROWTH, MAX_GROWTH * total)
        progress = tracking(f"Unpacking {archive.name}", total, "bytes")
        with open(archive, "rb") as raw, progress as tracker:
            for name, size, regular, read in _members(raw):
                tracker.at(raw.tell())
                target = _target(name, regular, layout, root, archive)
                if target is None:
                    strange += _leads_outside(name.removeprefix("./"))
                    continue
                count, written = count + 1, written + size
                if count > MAX_FILES or written > most:
                    raise DataError(
                        f"{shown(archive)} unpacks to more than {most:,} bytes or {MAX_FILES:,} "
                        "files.",
                        hint=_AGAIN,
                    )
                if target.is_file():
                    other += target.stat().st_size != size
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with read() as source, replacing(target) as new, open(new, "wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
    except (*_DAMAGE, OSError) as error:
        # gzip and lzma tell of damage by an OSError without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(
                f"{shown(archive)} cannot be unpacked to {shown(root)}: {error.strerror}.",
                hint=remedy(
                    error, "name another --root. The same command goes on where it stopped"
                ),
            ) from error
        raise DataError(
            f"{shown(archive)} is damaged, or no tar or zip file: {error}.",
            hint="Remove it and run the same command again. What is unpacked so far is kept.",
        ) from error
    if not count:
        raise DataError(
            f"{shown(archive)} holds none of {', '.join(layout)}.",
            hint="It is another archive, or its layout has changed: unpack it by hand.",
        )
    if other:
        log.warning(
            f"{counted(other, 'file')} in {shown(root)} had another size than in {archive.name} "
            "and stayed: to have what is in there, remove them and run the same command again."
        )
    if strange:
        what = counted(strange, "file")
        log.warning(f"{archive.name}: {what} whose path may lead outside stayed in there.")
    return count


def _members(raw: BinaryIO) -> Iterator[tuple[str, int, bool, Callable[[], IO[bytes]]]]:
    """The files of an archive, one after the other, each to be read before the next.

    That is: path, bytes once unpacked, whether it is a plain file, and what opens it.
    """
    if zipfile.is_zipfile(raw):
        with zipfile.ZipFile(raw) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                    yield info.filename, info.file_size, plain, partial(packed.open, info)
        return
    raw.seek(0)
    with tarfile.open(fileobj=raw, mode="r:*") as packed:
        untyped: Any = packed
        for info in packed:
            # Keeps a list of all members otherwise; SUN397 has a hundred thousand.
            untyped.members = []
            if not info.isdir():
                yield info.name, info.size, info.isreg(), partial(untyped.extractfile, info)


def _target(
    name: str, regular: bool, layout: Mapping[str, str], root: Path, archive: Path
) -> Path | None:
    """Where a file goes, or None where ``layout`` leaves it out."""
    plain = name.removeprefix("./")
    prefix = next((prefix for prefix in layout if plain.startswith(prefix)), None)
    if prefix is None:
        return None
    path = layout[prefix] + plain[len(prefix) :]
    outside = _leads_outside(path)
    if outside or not regular:
        problem = "a path that may lead outside" if outside else "which is a link or a device"
        raise DataError(
            f"{shown(archive)} holds {name!r}, {problem}.",
            allowed="files and folders below its own",
            hint=_AGAIN,
        )
    return root.joinpath(*path.split("/"))


def _leads_outside(path: str) -> bool:
    """Whether it may, on any system."""
    parts = path.split("/")
    return any(part in ("", ".", "..") or set(part) & {"\\", "\0", ":"} for part in parts)
