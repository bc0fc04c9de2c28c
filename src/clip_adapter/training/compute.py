"""``Compute``: where and how a pixel-reading method trains. None of it is a hyper-parameter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from clip_adapter.errors import UsageError, unknown_name

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class Compute:
    """How to train inside a backbone.

    Attributes:
        device: of the backbone, such as "cpu" or "cuda".
        devices: how many of them work together.
        precision: "32-true", or mixed precision ("16-mixed" on CUDA, "bf16-mixed").
        accumulate: parts that a batch is cut into, to fit into memory; the gradient is theirs
            together.
        checkpoint: folder where the state of the training is kept, so that it resumes after it was
            interrupted; None keeps nothing.

    Raises:
        UsageError: a value out of range.
    """

    device: str = "cpu"
    devices: int = 1
    precision: Precision = "32-true"
    accumulate: int = 1
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        for name in ("devices", "accumulate"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}.", allowed="1 or more")
        if self.precision not in get_args(Precision):
            raise unknown_name("precision", str(self.precision), get_args(Precision))

    def refuse(self, method: str) -> None:
        """Stops where a method would not look at anything but the device.

        Raises:
            UsageError: something else is set.
        """
        names = ("devices", "precision", "accumulate", "checkpoint")
        if given := [n for n in names if getattr(self, n) != getattr(Compute(), n)]:
            raise UsageError(
                f"{method} runs the tower once and trains on its features in seconds: "
                f"{', '.join(given)} would change nothing.",
                hint="Leave it away.",
            )
