"""Files: checked before the work, written whole or not at all, digested, and read."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from clip_adapter.errors import ClipAdapterError, DataError, UsageError
from clip_adapter.paths import did_you_mean
from clip_adapter.wording import first_line, shown

OUTPUT_MARK = ".clip-adapter-output"
"""Lies in folders that were made for figures: these are no pictures to learn from."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what it holds is written to ``path`` at the end of the block.

    A file appears whole or not at all, through links, with the mode that the umask gives. What is
    no place to rename to (a pipe, a device, a file that is mounted) is written into. After an error
    inside the block nothing is left of it, and ``path`` is as it was.

    Raises:
        OSError: it cannot be written.
    """
    target, number = Path(os.path.realpath(path)), _descriptor(path)
    beside = not is_stream(path) and not (
        os.path.isfile(target) and not os.access(target.parent, os.W_OK)
    )
    with contextlib.ExitStack() as stack:
        folder = target.parent
        if not beside:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # The token keeps two processes, or threads, that write one file apart.
        temporary = folder / f".{target.name[:32]}.{secrets.token_hex(8)}.tmp"
        stack.callback(_remove, temporary)
        yield temporary
        if beside:
            try:
                os.replace(temporary, target)
                return
            except OSError as error:  # a file may be mounted at that place
                if error.errno != errno.EBUSY or not target.is_file():
                    raise
        end = path if number is None else os.dup(number)
        with open(temporary, "rb") as source, open(end, "wb") as sink:
            shutil.copyfileobj(source, sink)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """The number of the open file that ``path`` names, as ``/dev/stdout`` and ``/dev/fd/5`` do."""
    name = re.fullmatch(
        r"/(?:dev|dev/fd|proc/self/fd)/(stdout|stderr|\d+)", os.path.abspath(os.fspath(path))
    )
    return None if name is None else int({"stdout": 1, "stderr": 2}.get(name[1], name[1]))


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is written into and not replaced: a pipe, a terminal, an open file."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_file(path: Path, inputs: Iterable[str | Path | int] = ()) -> None:
    """Check that a file may be written to ``path``: to be asked before the work.

    Args:
        path: where to.
        inputs: what the work reads, as paths or numbers of open files. None of them may be
            ``path``, by whatever name; those that are not there do not count.

    Raises:
        UsageError: something other than a file is there, or it is one of ``inputs``.
        DataError: it may not be written.
    """
    if os.path.isdir(path):
        raise UsageError(
            f"{shown(path)} is a folder, and a file is written.",
            hint=f"Name a file, such as {shown(path / 'NAME')}.",
        )
    if is_stream(path):
        return
    if os.path.exists(path):
        if not os.path.isfile(path):
            raise UsageError(
                f"{shown(path)} is neither a file nor a pipe.", hint="Name another file."
            )
        if any(os.path.exists(one) and os.path.samefile(path, one) for one in inputs):
            raise UsageError(
                f"{shown(path)} is what this command reads: it would be lost.",
                hint="Name another file.",
            )
    _check_place(path)


def check_folder(path: Path) -> None:
    """Check that files may be written into the folder ``path``: to be asked before the work.

    Raises:
        UsageError: something other than a folder is there.
        DataError: it may not be written.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise UsageError(f"{shown(path)} is no folder.", hint="Name a folder.")
    _check_place(path)


def _check_place(path: Path) -> None:
    """Try whether ``path`` can be made or changed, and leave nothing behind."""
    place = Path(os.path.realpath(path))
    with writing_errors(path):
        try:
            os.stat(place)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            while not os.path.exists(place):
                place = place.parent
            if not place.is_dir():
                raise UsageError(
                    f"{shown(path)} cannot be made: {shown(place)} is no folder.",
                    hint="Name another place.",
                ) from None
        if place.is_dir():
            tempfile.TemporaryFile(dir=place).close()
        else:
            open(place, "ab").close()


def write_file(path: Path, data: bytes) -> Path:
    """Write ``data`` to ``path``, see :func:`replacing`, and make its folder.

    Raises:
        DataError: it cannot be written.
    """
    with writing(path), replacing(path) as temporary:
        temporary.write_bytes(data)
    return path


def write_output(path: Path, data: bytes) -> Path:
    """As :func:`write_file`; a folder that must be made for it gets :data:`OUTPUT_MARK`.

    Raises:
        DataError: it cannot be written.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    write_file(path, data)
    if missing:
        write_file(missing[-1] / OUTPUT_MARK, b"")
    return path


@contextlib.contextmanager
def writing(path: Path, other: str = "name another file") -> Iterator[None]:
    """Make the folder of ``path``, and turn an OSError of the block into a message.

    Raises:
        DataError: it cannot be written; ``other`` says what else to do.
    """
    with writing_errors(path, other):
        if not is_stream(path):
            Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
        yield


@contextlib.contextmanager
def writing_errors(
    path: Path | str, other: str = "name another place", kind: type[ClipAdapterError] = DataError
) -> Iterator[None]:
    """Turn an OSError of the block into a message; that of a pipe that nobody reads stays.

    Raises:
        ClipAdapterError: of this ``kind``: it cannot be written, and why; ``other`` says what else
            to do.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise kind(
            f"{shown(path)} cannot be written: {error.strerror or error}.",
            hint=remedy(error, other),
        ) from error


def remedy(error: OSError, other: str) -> str:
    """What to do where something cannot be written: what its reason asks for, or ``other``."""
    space, rights = "free some space, or ", "ask for the right to write there, or "
    first = {
        errno.ENOSPC: space,
        errno.EDQUOT: space,
        errno.EACCES: rights,
        errno.EPERM: rights,
    }.get(error.errno or 0, "")
    words = f"{first}{other}."
    return words[0].upper() + words[1:]


def not_permitted(what: str, kind: type[ClipAdapterError] = DataError) -> ClipAdapterError:
    """The error of what is there and may not be read."""
    return kind(
        f"{what} may not be read (permission).",
        hint="Ask its owner for the right to read it.",
    )


@contextlib.contextmanager
def reading_errors(
    name: str, kind: type[ClipAdapterError] | None = None, allowed: str = ""
) -> Iterator[None]:
    """Errors of the block name the file; those of libraries, of many kinds, become one line.

    Raises:
        ClipAdapterError: as in the block, or of this ``kind``.
        DataError: a library cannot read it; ``allowed`` says what it may hold.
    """
    try:
        yield
    except ClipAdapterError as error:
        raise (kind or type(error))(
            f"{shown(name)}: {error.found}", allowed=error.allowed, hint=error.hint
        ) from error
    except Exception as error:
        raise DataError(
            f"{shown(name)} cannot be read: {first_line(error)}",
            allowed=allowed,
            hint="Copy or make it again.",
        ) from error


def file_digest(path: Path) -> str:
    """Digest of the content of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return digest_of(file)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def digest_of(file: Any) -> str:
    """The digest of what is left to read of an opened file."""
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The UTF-8 text of a file, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is not UTF-8; ``what`` names it.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        guess = did_you_mean(path)
        raise DataError(f"{what} {shown(path)} cannot be read: {error.strerror}.{guess}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {shown(path)} is not UTF-8 text (byte {error.start}).",
            hint="Save it again with the encoding UTF-8; in Excel: Save As, 'CSV UTF-8'.",
        ) from error


def read_json(
    path: str | os.PathLike[str],
    what: str,
    form: Any,
    allowed: str,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        what: names it in errors.
        form: its type, as :func:`of_form` takes it.
        allowed: that form in words.
        pairs: makes something of every JSON object, given as (key, value) pairs in order.

    Raises:
        DataError: it cannot be read, is no JSON, or has another form.
    """
    try:
        value = json.loads(read_text(path, what), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} {shown(path)} is no JSON: {error}.", allowed=allowed) from error
    return of_form(value, form, f"{what} {shown(path)}", allowed)


def of_form(value: Any, form: Any, what: str, allowed: str) -> Any:
    """``value``, from JSON, as an instance of the type ``form``; JSON objects become dataclasses.

    Raises:
        DataError: it is none; says where, and what stands there.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(form).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DataError(
            f"{', '.join([what, *map(str, first['loc'])])}: {first['msg']}; there is "
            f"{str(first['input'])[:80]!r}.",
            allowed=allowed,
        ) from error


def read_csv(
    path: str | os.PathLike[str],
    what: str,
    wanted: Sequence[str],
    allowed: str,
) -> list[tuple[int, list[str]]]:
    """Line number and trimmed cells of each row that is not blank; the first is the header.

    Args:
        path: the file, UTF-8.
        what: names it in errors.
        wanted: names of columns; the delimiter (comma, semicolon, tab) that finds most of them in
            the first line counts, or the one that is there most often.
        allowed: the form of the file in words.

    Raises:
        DataError: it cannot be read, or is no CSV.
    """
    text = read_text(path, what)

    def hits(delimiter: str) -> tuple[int, int]:
        header = text.split("\n", 1)[0].lower().split(delimiter)
        return len({*wanted} & {cell.strip().strip('"') for cell in header}), len(header)

    lines = io.StringIO(text, newline="")
    # Strict: else a quote that is never closed takes all rows after it into one cell.
    reader = csv.reader(lines, delimiter=max(",;\t", key=hits), skipinitialspace=True, strict=True)
    start = 1
    try:
        trimmed = ([cell.strip() for cell in cells] for cells in reader)
        rows = []
        for cells in trimmed:
            start = reader.line_num + 1
            if any(cells):
                rows.append((reader.line_num, cells))
        return rows
    except csv.Error as error:
        raise DataError(
            f"{what} {shown(path)} is no CSV from line {start} on: {error}.",
            allowed=allowed,
            hint='Close every quote; double those inside a quoted cell ("").',
        ) from error
