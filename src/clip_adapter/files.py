"""Files: written whole or not at all, digested, and read as text."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from clip_adapter.errors import DataError
from clip_adapter.wording import shown


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes ``path``'s place at the end of the block.

    After an error inside the block nothing is left of it, and ``path`` is as it was.

    Raises:
        OSError: it cannot be written.
    """
    # The number keeps two processes that write one file apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> Path:
    """Writes ``data`` to ``path``, whole or not at all, and makes its folder.

    Raises:
        DataError: it cannot be written.
    """
    with writing(path), replacing(path) as temporary:
        temporary.write_bytes(data)
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes the folder of ``path``, and turns an OSError of the block into a message.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}.",
            hint="Free some space, or name another file.",
        ) from error


def file_digest(path: Path) -> str:
    """Digest of the content of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The UTF-8 text of a file, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{what} {shown(path)} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {shown(path)} is not UTF-8 text (byte {error.start}).",
            hint="Save it again with the encoding UTF-8.",
        ) from error
