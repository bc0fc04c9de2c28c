"""``Results``: one JSON for each run, in a folder; whole or not there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clip_adapter.bench.runs import Run
from clip_adapter.errors import DataError
from clip_adapter.files import write_file

FORMAT = 1
DAMAGED, FAILED = ".damaged", ".failed.json"
Record = dict[str, Any]
# What pages count with, where it is there.
_NUMBERS = (
    *("n", "train_seconds", "embed_seconds", "trained_parameters", "peak_memory_mib"),
    *("train_peak_mib", "infer_ms", "infer_peak_mib", "silhouette"),
)
_TABLES = ("shifts", "chosen", "hardware")


class Results:
    """Results below ``folder``.

    Args:
        folder: made when first written to.
        say: receives lines for the user.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder, say
        self.damaged: list[Path] = []

    def path(self, run: Run) -> Path:
        """Where the result of ``run`` is, or will be."""
        return self.folder / run.path

    def read(self, run: Run) -> Record | None:
        """The result of ``run``; None where there is none, or one that cannot be used.

        A file that cannot be used is said, and kept in ``damaged``.
        """
        path = self.path(run)
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            return self._damage(path, str(error))
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            return self._damage(path, "it is no result of this version")
        if found.get("run") != json.loads(json.dumps(run.to_dict())):
            return self._damage(path, "it is the result of another run")
        if wrong := _impossible(run, found):
            return self._damage(path, wrong)
        return found

    def _damage(self, path: Path, reason: str) -> None:
        if path not in self.damaged:
            self.damaged.append(path)
            self._say(f"Warning: the result {path} cannot be used: {reason}.")

    def set_aside(self) -> None:
        """Renames what could not be used, so that nothing is lost and the run is done again.

        Raises:
            DataError: it cannot be renamed.
        """
        for path in self.damaged:
            kept = path.with_name(path.name + DAMAGED)
            try:
                os.replace(path, kept)
            except OSError as error:
                raise DataError(f"{path} cannot be renamed: {error.strerror}.") from error
            self._say(f"It is kept as {kept.name}; the run is done again.")
        self.damaged.clear()

    def write(self, run: Run, record: Record) -> None:
        """Writes a result; a failure that was told before is over.

        Raises:
            DataError: it cannot be written.
        """
        whole = {"format": FORMAT, "key": run.key, "run": run.to_dict(), **record}
        write_file(self.path(run), (json.dumps(whole, indent=1) + "\n").encode())
        self._failure(run).unlink(missing_ok=True)

    def fail(self, run: Run, error: str, trace: str) -> None:
        """Writes why a run failed, beside where its result would be. It is tried again.

        Raises:
            DataError: it cannot be written.
        """
        told = {"format": FORMAT, "run": run.to_dict(), "error": error, "trace": trace}
        write_file(self._failure(run), (json.dumps(told, indent=1) + "\n").encode())

    def failure(self, run: Run) -> str | None:
        """Why ``run`` failed the last time, or None."""
        try:
            return str(json.loads(self._failure(run).read_bytes())["error"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _failure(self, run: Run) -> Path:
        path = self.path(run)
        return path.with_name(path.stem + FAILED)


def _impossible(run: Run, found: Record) -> str:
    """What in the result of ``run`` cannot be; "" where all can."""
    if run.measure == "cost":
        needed = "train_seconds"
        fits = _number(found.get(needed))
    else:
        needed = "top1"
        fits = _percent(found.get(needed))
    if not fits:
        return f"{needed} is {found[needed]!r}" if needed in found else f"it has no {needed}"
    for name in _NUMBERS:
        if found.get(name) is not None and not _number(found[name], least=-1):
            return f"{name} is {found[name]!r}"
    for name in _TABLES:
        if name in found and not isinstance(found[name], dict):
            return f"{name} is no table"
    for name, shift in found.get("shifts", {}).items():
        if not isinstance(shift, dict) or not _percent(shift.get("top1")):
            return f"it has no top1 on {name}"
    return ""


def _number(value: Any, least: float = 0.0, most: float = sys.float_info.max) -> bool:
    """Whether it is a finite number in these bounds; NaN is in none."""
    return type(value) in (int, float) and least <= value <= most


def _percent(value: Any) -> bool:
    return _number(value, most=100.0)
