"""``Results``: one JSON for each run, in a folder; whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, create_model

from clip_adapter.bench.run import Run
from clip_adapter.errors import DataError
from clip_adapter.files import write_file
from clip_adapter.reporting import log

FOLDER, FORMAT = "results", 1
DAMAGED, FAILED = ".damaged", ".failed.json"
# Of a record, beside its accuracy; pages count with them.
NUMBERS = (
    *("train_seconds", "embed_seconds", "trained_parameters", "peak_memory_mib"),
    *("train_peak_mib", "infer_ms", "infer_peak_mib", "silhouette"),
)
Record = dict[str, Any]
# What is read of a file is of its type and finite; the rest is kept as it is.
_CONFIG = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
_PERCENT = Annotated[float, Field(ge=0, le=100)]
_NUMBER = Annotated[float, Field(ge=-1)] | None  # a silhouette may be below zero
_TOP1: dict[str, Any] = {"top1": _PERCENT}
_SECONDS: dict[str, Any] = {"train_seconds": Annotated[float, Field(ge=0)]}
_SHIFT = create_model("Shift", __config__=_CONFIG, **_TOP1)
_COMMON: dict[str, Any] = {
    **dict.fromkeys(("n", *NUMBERS), (_NUMBER, None)),
    **dict.fromkeys(("chosen", "hardware"), (dict[str, Any], {})),
    "shifts": (dict[str, _SHIFT], {}),
    "format": Literal[1],
    "run": dict[str, Any],
}
_SCORE = create_model("Score", __config__=_CONFIG, **(_COMMON | _TOP1))
_COST = create_model("Cost", __config__=_CONFIG, **(_COMMON | _SECONDS))


class Results:
    """Results below ``folder``.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: dict[Path, None] = {}

    def path(self, run: Run, ending: str = ".json") -> Path:
        """Where the result of ``run`` is, or will be; or another file beside it."""
        path = self.folder / run.path
        return path.with_name(path.stem + ending)

    def read(self, run: Run) -> Record | None:
        """The result of ``run``; None where there is none, or one that cannot be used.

        A file that cannot be used is said, and kept in ``damaged``.
        """
        path = self.path(run)
        try:
            record = json.loads(path.read_bytes())
            (_COST if run.measure == "cost" else _SCORE).model_validate(record)
            if record["run"] != json.loads(json.dumps(run.to_dict())):
                raise ValueError("it is the result of another run")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
            if path not in self.damaged:
                log.warning(f"Warning: the result {path} cannot be used: {reason}.")
            self.damaged[path] = None
            return None
        return record

    def set_aside(self) -> None:
        """Rename what could not be used, so that nothing is lost and the run is done again.

        Raises:
            DataError: it cannot be renamed.
        """
        for path in self.damaged:
            kept = path.with_name(path.name + DAMAGED)
            try:
                os.replace(path, kept)
            except OSError as error:
                raise DataError(f"{path} cannot be renamed: {error.strerror}.") from error
            log.warning(f"It is kept as {kept.name}; the run is done again.")
        self.damaged.clear()

    def write(self, run: Run, record: Record) -> None:
        """Write a result; a failure that was told before is over.

        Raises:
            DataError: it cannot be written.
        """
        whole = {"format": FORMAT, "key": run.key, "run": run.to_dict(), **record}
        write_file(self.path(run), (json.dumps(whole, indent=1) + "\n").encode())
        self.path(run, FAILED).unlink(missing_ok=True)

    def fail(self, run: Run, error: str, trace: str) -> None:
        """Write why a run failed, beside where its result would be. It is tried again.

        Raises:
            DataError: it cannot be written.
        """
        content = {"format": FORMAT, "run": run.to_dict(), "error": error, "trace": trace}
        write_file(self.path(run, FAILED), (json.dumps(content, indent=1) + "\n").encode())

    def failure(self, run: Run) -> str | None:
        """Why ``run`` failed the last time, or None."""
        try:
            return str(json.loads(self.path(run, FAILED).read_bytes())["error"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
