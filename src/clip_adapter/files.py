"""Files: written whole or not at all, digested, and read as text, JSON or rows of cells."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from clip_adapter.errors import DataError
from clip_adapter.paths import did_you_mean
from clip_adapter.wording import shown


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes ``path``'s place at the end of the block.

    After an error inside the block nothing is left of it, and ``path`` is as it was.

    Raises:
        OSError: it cannot be written.
    """
    # The numbers keep two processes, or threads, that write one file apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> Path:
    """Write ``data`` to ``path``, whole or not at all, and make its folder.

    Raises:
        DataError: it cannot be written.
    """
    with writing(path), replacing(path) as temporary:
        temporary.write_bytes(data)
    return path


@contextlib.contextmanager
def writing(path: Path, hint: str = "Free some space, or name another file.") -> Iterator[None]:
    """Make the folder of ``path``, and turn an OSError of the block into a message.

    Raises:
        DataError: it cannot be written; ``hint`` says what to do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            f"{shown(path)} cannot be written: {error.strerror or error}.", hint=hint
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
            hint="Save it again with the encoding UTF-8.",
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
    delimiters: str = ",;\t",
) -> list[tuple[int, list[str]]]:
    """Line number and trimmed cells of each row that is not blank; the first is the header.

    Args:
        path: the file, UTF-8.
        what: names it in errors.
        wanted: names of columns; the delimiter that finds most of them in the first line counts.
        allowed: the form of the file in words.
        delimiters: those that are tried, a letter each.

    Raises:
        DataError: it cannot be read, or is no CSV.
    """
    text = read_text(path, what)

    def hits(delimiter: str) -> int:
        header = text.split("\n", 1)[0].lower().split(delimiter)
        return len({*wanted} & {cell.strip().strip('"') for cell in header})

    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(delimiters, key=hits))
    try:
        trimmed = ([cell.strip() for cell in cells] for cells in reader)
        return [(reader.line_num, cells) for cells in trimmed if any(cells)]
    except csv.Error as error:
        raise DataError(f"{what} {shown(path)} is no CSV: {error}.", allowed=allowed) from error
