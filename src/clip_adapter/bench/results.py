"""``Run``: one training and its scores. ``Results``: a JSON for each run, whole or not there."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, create_model

from clip_adapter.bench.recipe import Measure, SelectionRule
from clip_adapter.features.store import content_digest
from clip_adapter.files import write_file, writing
from clip_adapter.methods import Method, make_method
from clip_adapter.options import Dtype
from clip_adapter.reporting import log
from clip_adapter.wording import located

FOLDER, FORMAT = "results", 1
DAMAGED, FAILED = ".damaged", ".failed.json"
ZERO_SHOT = "zero-shot"
_USUAL = {"dtype": "float32", "weights": "", "code": ""}
# Of a record, beside its accuracy; pages count with them.
NUMBERS = (
    *("train_seconds", "embed_seconds", "trained_parameters", "peak_memory_mib"),
    *("train_peak_mib", "infer_ms", "infer_peak_mib", "silhouette"),
)
Record = dict[str, Any]
# What is read of a file is of its type and finite; the rest is kept as it is.
_CONFIG = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
_TOP1: dict[str, Any] = {"top1": Annotated[float, Field(ge=0, le=100)]}
_COMMON: dict[str, Any] = {
    # A silhouette may be below zero.
    **dict.fromkeys(("n", *NUMBERS), (Annotated[float | None, Field(ge=-1)], None)),
    **dict.fromkeys(("chosen", "hardware"), (dict[str, Any], {})),
    "shifts": (dict[str, create_model("Shift", __config__=_CONFIG, **_TOP1)], {}),
    "format": Literal[1],
    "run": dict[str, Any],
}
_SCORE = create_model("Score", __config__=_CONFIG, **_COMMON | _TOP1)
_SECONDS: dict[str, Any] = {"train_seconds": Annotated[float, Field(ge=0)]}
_COST = create_model("Cost", __config__=_CONFIG, **_COMMON | _SECONDS)


@dataclass(frozen=True)
class Run:
    """What is done once, told by all that decides it.

    Attributes:
        profile: of the recipe.
        measure: what is measured.
        dataset: its name.
        data: digest of what it holds, as far as it is cheap to know.
        backbone: name; "" where ready-made features tell it.
        style: preprocessing.
        views: augmented views of each shot.
        prompts: templates in place of the data set's; () are its own.
        method: its name.
        options: of the method, as the recipe gives them.
        shots: K.
        seed: of draw and training.
        shifts: further test sets.
        protocol: how what is reported was chosen.
        cost: settings of the measure "cost".
        dtype: of the backbone.
        weights: digest of the backbone's files, where its name is a path, or of the code of the
            package that makes it; else "".
        code: digest of the code of the method, where it is another package's; else "".
    """

    profile: str
    measure: Measure
    dataset: str
    data: str
    backbone: str
    style: str
    views: int
    prompts: tuple[str, ...]
    method: str
    options: Mapping[str, Any]
    shots: int
    seed: int
    shifts: tuple[str, ...] = ()
    protocol: SelectionRule = "ours"
    cost: Mapping[str, Any] = field(default_factory=dict)
    dtype: Dtype = "float32"
    weights: str = ""
    code: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes; without ``dtype``, ``weights`` and ``code`` where they are the usual."""
        return {k: v for k, v in asdict(self).items() if _USUAL.get(k) != v}

    @functools.cached_property
    def key(self) -> str:
        """A digest of everything in it."""
        return content_digest(json.dumps(self.to_dict(), sort_keys=True).encode())

    @property
    def title(self) -> str:
        """For people."""
        options = ", ".join(f"{k}={v}" for k, v in self.options.items())
        words = {
            f"{self.dataset} ({self.backbone}, {self.style})": True,
            f"{self.method} ({options})" if options else self.method: True,
            f"{self.shots} shots, seed {self.seed}": True,
            f"prompts {' / '.join(self.prompts)}": self.prompts,
            f"{self.views} views": self.views > 1,
            f"protocol {self.protocol}": self.protocol != "ours",
        }
        return ", ".join(word for word, shown in words.items() if shown)

    @property
    def path(self) -> str:
        """Of its result, below the folder of results; readable, and its own."""
        words = [self.dataset, self.method, *(f"{k}-{v}" for k, v in self.options.items())]
        words += [f"{self.shots}shot", f"seed{self.seed}", self.key[:12]]
        dataset, *parts = (re.sub(r"[^\w.+-]", "-", word) for word in words)
        return f"{self.profile}/{dataset}/{'_'.join(part[:40] for part in parts)}.json"

    def instance(self) -> Method:
        """The method with its options."""
        return make_method(self.method, self.options)


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
            reason = located(first["loc"], first["msg"]) if first else str(error)
            if path not in self.damaged:
                log.warning(f"The result {path} cannot be used: {reason}.")
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
            with writing(kept):
                path.replace(kept)
            log.warning(f"It is kept as {kept.name}; the run is done again.")
        self.damaged.clear()

    def write(self, run: Run, record: Record) -> None:
        """Write a result; a failure that was told before is over.

        Raises:
            DataError: it cannot be written.
        """
        self._write(run, ".json", {"key": run.key, "run": run.to_dict(), **record})
        self.path(run, FAILED).unlink(missing_ok=True)

    def fail(self, run: Run, error: str, trace: str) -> None:
        """Write why a run failed, beside where its result would be. It is tried again.

        Raises:
            DataError: it cannot be written.
        """
        self._write(run, FAILED, {"run": run.to_dict(), "error": error, "trace": trace})

    def _write(self, run: Run, ending: str, content: Record) -> None:
        text = json.dumps({"format": FORMAT, **content}, indent=1)
        write_file(self.path(run, ending), f"{text}\n".encode())

    def failure(self, run: Run) -> str | None:
        """The first line of why ``run`` failed the last time, or None."""
        try:
            failure = json.loads(self.path(run, FAILED).read_bytes())
            return (str(failure["error"]).splitlines() or ["unknown"])[0]
        except (OSError, ValueError, KeyError, TypeError):
            return None
