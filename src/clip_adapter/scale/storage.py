"""``Storage``: the folder that results go to, here or in a store of objects, and how inputs open.

Paths are local; addresses such as ``s3://bucket/folder`` are opened by ``pyarrow.fs``, and those it
does not know by fsspec.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from clip_adapter.errors import StoreError, UsageError
from clip_adapter.files import digest_of, writing_errors
from clip_adapter.paths import is_remote
from clip_adapter.wording import first_line

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

WORK = ".work"
"""The folder of locks and of files that are not whole yet, in that of the results."""


def absolute(path: str) -> str:
    """A path without what depends on where one is; an address as it is."""
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def open_at(address: str) -> tuple[FileSystem, str]:
    """The file system of a path or an address, and the path in it.

    Raises:
        UsageError: nothing that is installed opens such an address.
    """
    import pyarrow as pa
    from pyarrow import fs

    if not is_remote(address):
        return fs.LocalFileSystem(), absolute(address)
    try:
        return fs.FileSystem.from_uri(address)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = error
    import fsspec

    try:
        handler, path = fsspec.core.url_to_fs(address)
    except Exception as error:  # each file system has kinds of its own
        raise UsageError(
            f"{address} cannot be opened: {first_line(first)}; by fsspec: {first_line(error)}.",
            allowed="a path, s3://, gs://, abfs://, hdfs://, or what an installed fsspec opens",
            hint="Check the address and the rights, or install the fsspec of it (such as adlfs).",
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(handler)), path


class Storage:
    """A folder that is written file by file, each of them whole or not at all.

    In a local one, which may be shared by machines, a lock keeps two processes off one name. A
    store of objects has none: what two write there is the same, and the last one stays.

    Args:
        address: of the folder; it is made when first written to.

    Raises:
        UsageError: nothing opens such an address.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, self._path = open_at(address)
        self._local = None if is_remote(address) else Path(self._path)

    def names(self) -> set[str]:
        """Names of the files and folders that lie directly in it, without the hidden ones."""
        from pyarrow.fs import FileSelector

        with self._errors():
            entries = self._files.get_file_info(FileSelector(self._path, allow_not_found=True))
        return {entry.base_name for entry in entries if not entry.base_name.startswith(".")}

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None where there is none."""
        with self._errors(), contextlib.suppress(FileNotFoundError), self._open(name) as file:
            return file.read()
        return None

    def digest(self, name: str) -> str | None:
        """The digest of a file, as of ``files.file_digest``, or None where there is none."""
        with self._errors(), contextlib.suppress(FileNotFoundError), self._open(name) as file:
            return digest_of(file)
        return None

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Have ``name`` alone inside; False, or waiting, where another process has it.

        Raises:
            StoreError: the folder cannot be written.
        """
        if self._local is None:
            yield True
            return
        with self._errors():
            (self._local / WORK).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._local / WORK / f"{name}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=-1 if wait else 0)
        try:
            yield lock.is_locked
        finally:
            lock.release()

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write to; its content is ``name`` once the block has ended well.

        It is synced to the disk before it is renamed. Call it inside :meth:`hold`.

        Raises:
            StoreError: it cannot be written.
        """
        from pyarrow import fs

        with contextlib.ExitStack() as stack:
            stack.enter_context(self._errors())
            if self._local is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            else:
                folder = self._local / WORK
            # Nobody else has the name: what a killed process left there is written over.
            temporary = folder / name.replace("/", "+")
            stack.callback(temporary.unlink, missing_ok=True)
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            if self._local is not None:
                (self._local / name).parent.mkdir(exist_ok=True)
                os.replace(temporary, self._local / name)
                return
            self._files.create_dir(os.path.dirname(self._at(name)), recursive=True)
            fs.copy_files(
                str(temporary),
                self._at(name),
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=self._files,
            )

    def write(self, name: str, data: bytes) -> None:
        """Write a file; as :meth:`writing`."""
        with self.writing(name) as temporary:
            temporary.write_bytes(data)

    def _open(self, name: str) -> NativeFile:
        return self._files.open_input_stream(self._at(name), compression=None)

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return writing_errors(self.address, "name another folder with --out", StoreError)
