"""Checkpoints of a training on pixels: tensors and plain values, written whole or not at all.

They are read with ``weights_only=True``: a file from elsewhere cannot run code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import not_permitted, replacing, writing
from clip_adapter.reporting import log

DAMAGE = (
    OSError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, EOFError,
    UnpicklingError,
)  # fmt: skip


@dataclass
class State:
    """A training between two steps.

    Attributes:
        digest: of everything that decides its result.
        done: whether it is finished; then there is no optimiser any more.
        parameters: by name.
        trained: the fields of ``Trained`` so far.
        best: the parameters with the best held-out accuracy, or None.
        optimizer: its state dict.
        precision: state dict of the gradient scaler.
    """

    digest: str
    done: bool
    parameters: dict[str, Tensor]
    trained: dict[str, Any]
    best: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    precision: dict[str, Any]


def write_state(path: Path, state: State) -> None:
    """Write the state, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    with writing(path), replacing(path) as temporary:
        torch.save(vars(state), temporary)


def read_state(path: Path, digest: str, steps: int) -> State | None:
    """The state that was saved, on the CPU; None where there is none to go on from.

    A finished state of another training is passed over: nothing is lost when it is replaced.

    Args:
        path: of the file.
        digest: of everything that decides the result of this training.
        steps: all that it takes, for the line that says where it goes on.

    Raises:
        UsageError: an unfinished state of another training.
        DataError: the file is damaged, or may not be read.
    """
    if not path.exists():
        return None
    try:
        state = State(**torch.load(path, map_location="cpu", weights_only=True))
    except PermissionError as error:
        raise not_permitted(f"The checkpoint {path}") from error
    except DAMAGE as error:
        raise DataError(
            f"The checkpoint {path} cannot be read.",
            hint="Remove it, and the training starts again.",
        ) from error
    step = state.trained["steps"]
    if state.digest == digest:
        rest = f"goes on from step {step} of {steps}"
        words = "was finished: its result is taken" if state.done else rest
        log.info(f"The training in {path.parent} {words}.")
        return state
    if state.done:
        log.info(
            f"{path.parent} holds the result of another training: it is replaced by this one's."
        )
        return None
    raise UsageError(
        f"The checkpoint {path} is of another training (step {step}): its "
        "pictures, their preprocessing, text, method, options, seed or backbone differ, or the "
        "version of clip-adapter.",
        hint="Give the same command as then to go on with it, name another folder, or remove it.",
    )
