"""A batch size that halves itself when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clip_adapter.errors import BackboneError
from clip_adapter.reporting import log


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine has no memory left."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    signs = ("out of memory", "can't allocate memory", "cannot allocate")
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in signs)


class Halving:
    """Runs a function over a batch in parts of at most ``size`` rows.

    Out of memory, the size is halved, this is said, and the work goes on; the smaller size is
    kept for later batches.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, function: Callable[[Any], Tensor], batch: Tensor | Sequence[Any]) -> Tensor:
        """``function`` of every part of ``batch`` (B, ...), joined along the first dimension.

        Raises:
            BackboneError: memory runs out with a single row.
        """
        while True:
            used = min(self.size, max(len(batch), 1))
            try:
                starts = range(0, max(len(batch), 1), used)
                return torch.cat([function(batch[i : i + used]) for i in starts])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if used == 1:
                    raise BackboneError(
                        "Memory runs out with a single picture or text in the batch.",
                        hint="Take a smaller backbone, dtype float16 on a GPU, or device cpu.",
                    ) from error
            # outside of the handler: the error's frames hold the tensors that must go
            self.size = used // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.info(f"Out of memory with a batch of {used}: going on with {self.size}.")
