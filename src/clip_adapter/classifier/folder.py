"""Classifiers on disk: folders that are written whole or not at all, beside whatever lies there."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from clip_adapter.classifier.saving import (
    CARD,
    CONFIG,
    FILES,
    FORMAT,
    PARTS,
    SEEN,
    Files,
    Record,
    Version,
    digest,
    pack,
    reason_of,
    unpack,
)
from clip_adapter.errors import ClassifierError, UnknownTowerAdapterError
from clip_adapter.files import check_folder, not_permitted, replacing, writing_errors
from clip_adapter.paths import OF_A_VOLUME, no_classifier
from clip_adapter.reporting import log
from clip_adapter.wording import shown

_NEW = ".{}.{:.16}.new"
# Of a part that has not taken its place yet, or of a file that was being written, after a kill.
_UNDER_WAY = re.compile(rf"\.({'|'.join(map(re.escape, FILES))})\.[0-9a-f]{{16}}\.(new|tmp)")
_LOCK = f".{CONFIG}.lock"
_HEX = re.compile("[0-9a-f]{64}")


def write_folder(folder: Path, **parts: Any) -> Path:
    """Write a classifier into ``folder``, in the place of an older one; other files there stay.

    A process killed at any moment leaves the whole old classifier or the whole new one: new parts
    are written beside the old ones, ``classifier.json`` then names them by their digests, and only
    then do they take their places. Of several processes one writes after the other. A model card
    that was changed by hand stays.

    Args:
        folder: to be made, empty, or an older classifier's; or a link to one of these.
        **parts: as :func:`~clip_adapter.classifier.saving.pack` takes them.

    Raises:
        ClassifierError: the folder holds other things, or cannot be written; or the classifier
            is one that could not be loaded again.
    """
    check_target(folder)
    files = pack(**parts)
    try:
        # An adapter of a package that does not register it here may be known where it is loaded.
        with contextlib.suppress(UnknownTowerAdapterError):
            unpack(files)
    except Exception as error:
        raise ClassifierError(
            f"This classifier cannot be saved: {reason_of(error)}.",
            hint="Make it of parts that fit.",
        ) from error
    with writing_errors(folder, "choose another folder", ClassifierError):
        place = Path(os.path.realpath(folder))
        made = [one for one in (place, *place.parents) if not one.exists()]
        try:
            place.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                _replace(folder, files)
        except BaseException:
            for one in made:  # those that are empty, from within
                with contextlib.suppress(OSError):
                    one.rmdir()
            raise
    return folder


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold ``folder`` while other processes that write a classifier into it wait."""
    with FileLock(folder / _LOCK):
        try:
            yield
        finally:
            # Before it is let go: whoever waits finds the file gone, and makes another.
            with contextlib.suppress(OSError):
                (folder / _LOCK).unlink()


def _replace(folder: Path, files: Files) -> None:
    """Write ``files``, and remove what is left of the older classifier."""
    if not _is_own_card(folder):
        files = {name: data for name, data in files.items() if name != CARD}
        log.warning(f"{folder / CARD} was written by hand and stays as it is.")
    with contextlib.ExitStack() as undo:
        for name in files.keys() - {CONFIG}:
            new = folder / _NEW.format(name, digest(files[name]))
            undo.callback(new.unlink, missing_ok=True)
            new.write_bytes(files[name])
        _write(folder / CONFIG, files[CONFIG])
        undo.pop_all()
    for name in files.keys() - {CONFIG}:
        _write(folder / name, files[name])
    for name in {*PARTS} - files.keys():
        (folder / name).unlink(missing_ok=True)
    for path in list(folder.iterdir()):
        if _UNDER_WAY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _is_own_card(folder: Path) -> bool:
    """Whether the model card is as it was written, or was to be replaced; there may be none."""
    try:
        data = (folder / CARD).read_bytes()
        record = Record.model_validate_json((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return not os.path.lexists(folder / CARD)
    recorded = record.side_files.get(CARD)
    if recorded is None:  # as in classifiers of before
        return b"library_name: clip-adapter" in data
    return digest(data) == recorded or (folder / _NEW.format(CARD, recorded)).is_file()


def check_target(folder: Path) -> None:
    """Check that a classifier may be saved as ``folder``: to be asked before a long training.

    Raises:
        ClassifierError: it holds other things, or may not be written.
        DataError: as :func:`~clip_adapter.files.check_folder`.
    """
    try:
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        others = {n for n in names - OF_A_VOLUME - {_LOCK} if not _UNDER_WAY.fullmatch(n)}
        if folder.is_file() or (others and not _is_record(folder / CONFIG)):
            raise ClassifierError(
                f"{shown(folder)} exists and is not a saved classifier: other things are in it.",
                hint="Choose a new folder.",
            )
    except PermissionError as error:
        raise not_permitted(str(folder), ClassifierError) from error
    check_folder(folder)


def saved_record(folder: Path) -> Record | None:
    """The record of the classifier in ``folder``; None where there is none that is whole."""
    with contextlib.suppress(OSError, ValueError):
        return Record.model_validate_json((folder / CONFIG).read_bytes())
    return None


def _is_record(path: Path) -> bool:
    """Whether ``path`` is a classifier's record, of any format; other programs have such files."""
    with contextlib.suppress(ValueError, RecursionError, FileNotFoundError, IsADirectoryError):
        record = json.loads(path.read_bytes())
        return isinstance(record, dict) and {"format", "class_names"} <= record.keys()
    return False


def read_folder(folder: Path) -> dict[str, Any]:
    """The arguments of the :class:`~clip_adapter.Classifier` that ``folder`` holds.

    The folder may come from anyone, see :func:`~clip_adapter.classifier.saving.unpack`.

    Raises:
        ClassifierError: missing, damaged, of a newer format, or it may not be read.
    """
    try:
        config = (folder / CONFIG).read_bytes()
        saved_as = Version.model_validate_json(config).format
        if saved_as <= FORMAT:
            parts = _read_parts(folder, config)
            kept = unpack({CONFIG: config, **parts})
            if SEEN not in parts:
                log.warning(
                    f"{shown(folder)} has no {SEEN}: which pictures it learned from is not known, "
                    "so a test cannot leave them out."
                )
            return kept
    except UnknownTowerAdapterError:
        raise
    except PermissionError as error:
        raise not_permitted(error.filename or str(folder), ClassifierError) from error
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        if missing and not (folder / CONFIG).exists():
            raise no_classifier(folder) from error
        raise ClassifierError(
            f"The classifier in {folder} cannot be read: {error.strerror or error}.",
            hint="Copy it again, or fit it again.",
        ) from error
    except Exception as error:  # forged files can raise any; nobody but us is to meet it
        raise ClassifierError(
            f"The classifier in {folder} is damaged: {reason_of(error)}.",
            hint="Copy it again, or fit it again.",
        ) from error
    raise ClassifierError(
        f"{folder} has format {saved_as}.", allowed=f"at most {FORMAT}", hint="Update clip-adapter."
    )


def _read_parts(folder: Path, config: bytes) -> Files:
    """The parts that ``config`` names, also those that a killed process left beside their places.

    What it does not name is no part of the classifier.
    """
    record, files = Record.model_validate_json(config), Files()
    for name in PARTS:
        wanted = record.sha256.get(name) or record.side_files.get(name)
        if record.sha256.get(name, "") is None:
            continue
        path = folder / name
        data = path.read_bytes() if path.exists() else None
        if wanted and (data is None or digest(data) != wanted) and _HEX.fullmatch(wanted):
            new = folder / _NEW.format(name, wanted)
            data = new.read_bytes() if new.is_file() else data
        files |= {} if data is None else {name: data}
    return files
