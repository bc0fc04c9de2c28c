"""``unpack``: pictures out of a tar or zip file, without trusting what its paths say."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from clip_adapter.errors import DataError
from clip_adapter.files import replacing
from clip_adapter.wording import shown

Progress = Callable[[int, int], None]
_BLOCK = 1 << 20
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


class _Member(NamedTuple):
    """One file of an archive: its path, its bytes in all, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path, root: Path, layout: Mapping[str, str], progress: Progress | None = None
) -> int:
    """Writes the files of ``archive`` below ``root``, as ``layout`` says.

    Each file appears whole or not at all, and one that is there with the same size is left alone:
    after a break the same call goes on. Modes and owners are not taken over.

    Args:
        archive: tar (plain or compressed in any way) or zip, told by its content.
        root: the folder that no file may leave.
        layout: path prefix in the archive → prefix below ``root``; files without such a prefix
            stay in the archive.
        progress: told (bytes of the archive read, all bytes of it).

    Returns:
        How many files ``layout`` chose.

    Raises:
        DataError: no such archive, damaged, with a link, a device or a path that leads outside
            among the chosen files, too large once unpacked, or the disk is full.
    """
    try:
        total = archive.stat().st_size
        most = max(_FREE_GROWTH, MAX_GROWTH * total)
        written = count = 0
        with _members(archive, progress, total) as members:
            for member in members:
                target = _target(member.name, layout, root, archive)
                if target is None:
                    continue
                count += 1
                written += member.size
                if count > MAX_FILES or written > most:
                    raise DataError(
                        f"{shown(archive)} unpacks to more than {most:,} bytes or {MAX_FILES:,} "
                        "files.",
                        hint="It is not what it should be: fetch it again.",
                    )
                _write(member, target, archive)
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is None:  # how gzip and lzma tell of damage
            raise _damaged(archive, error) from error
        raise DataError(
            f"{shown(archive)} cannot be unpacked to {shown(root)}: {error.strerror}.",
            hint="Free some space, and run the same command again: it goes on where it stopped.",
        ) from error
    if not count:
        raise DataError(
            f"{shown(archive)} holds none of {', '.join(layout)}.",
            hint="It is another archive, or its layout has changed: unpack it by hand.",
        )
    return count


@contextmanager
def _members(archive: Path, progress: Progress | None, total: int) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _zip_members(packed, archive, progress)
        return
    with open(archive, "rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as packed:
        yield _tar_members(packed, raw, archive, progress, total)


def _tar_members(
    packed: tarfile.TarFile,
    raw: IO[bytes],
    archive: Path,
    progress: Progress | None,
    total: int,
) -> Iterator[_Member]:
    untyped: Any = packed
    for info in packed:
        if progress is not None:
            progress(min(raw.tell(), total), total)
        # Keeps a list of all members otherwise; SUN397 has a hundred thousand.
        untyped.members = []
        if not info.isdir():
            yield _Member(info.name, info.size, partial(_open_tar, packed, info, archive))


def _zip_members(
    packed: zipfile.ZipFile, archive: Path, progress: Progress | None
) -> Iterator[_Member]:
    infos = packed.infolist()
    total, done = sum(info.compress_size for info in infos), 0
    for info in infos:
        done += info.compress_size
        if progress is not None:
            progress(done, total)
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, partial(_open_zip, packed, info, archive))


def _open_tar(packed: tarfile.TarFile, info: tarfile.TarInfo, archive: Path) -> IO[bytes] | None:
    """The content of a member that the tar module's own rules for data let pass."""
    if not info.isreg():
        raise _no_file(info.name, archive)
    try:
        # Against a folder that does not exist: links that the user made in his own are his.
        tarfile.data_filter(info, f"{archive}.unpacked")
    except tarfile.FilterError as error:
        raise _unsafe(info.name, archive) from error
    return packed.extractfile(info)


def _open_zip(packed: zipfile.ZipFile, info: zipfile.ZipInfo, archive: Path) -> IO[bytes]:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise _no_file(info.filename, archive)
    return packed.open(info)


def _no_file(name: str, archive: Path) -> DataError:
    return DataError(
        f"{shown(archive)} holds {name!r}, which is a link or a device.",
        allowed="files and folders",
        hint="It is not what it should be: fetch it again.",
    )


def _unsafe(name: str, archive: Path) -> DataError:
    return DataError(
        f"{shown(archive)} holds {name!r}, a path that may lead outside.",
        hint="It is not what it should be: fetch it again.",
    )


def _target(name: str, layout: Mapping[str, str], root: Path, archive: Path) -> Path | None:
    """Where a file goes, or None where ``layout`` leaves it out."""
    plain = name.removeprefix("./")
    for prefix, place in layout.items():
        if plain.startswith(prefix):
            relative = place + plain[len(prefix) :]
            break
    else:
        return None
    parts = relative.split("/")
    if any(part in ("", ".", "..") or set(part) & {"\\", "\0", ":"} for part in parts):
        raise _unsafe(name, archive)
    return root.joinpath(*parts)


def _write(member: _Member, target: Path, archive: Path) -> None:
    source = member.open()
    if source is None:
        raise _damaged(archive, ValueError(f"{member.name} has no content"))
    with source:
        if target.is_file() and target.stat().st_size == member.size:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            size = 0
            with open(temporary, "wb") as file:
                while block := source.read(_BLOCK):
                    size += len(block)
                    if size > member.size:
                        break
                    file.write(block)
            if size != member.size:
                raise _damaged(archive, ValueError(f"{member.name} is not as long as told"))


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(
        f"{shown(archive)} is damaged, or no tar or zip file: {error}.",
        hint="Remove it and run the same command again. What is unpacked so far is kept.",
    )
