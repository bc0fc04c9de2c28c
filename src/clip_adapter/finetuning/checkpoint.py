"""Checkpoints of a training on pixels: tensors and plain values, written whole or not at all.

They are read with ``weights_only=True``: a file from elsewhere cannot run code.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import replacing, writing


@dataclass
class State:
    """A training between two steps.

    Attributes:
        digest: of everything that decides its result.
        done: whether it is finished; then there is no optimiser any more.
        parameters: by name.
        trained: the fields of ``Trained`` so far.
        best: the parameters with the best held-out accuracy, or None.
        best_key: (share right, minus the loss) of them.
        optimizer: its state dict.
        precision: state dict of the gradient scaler.
    """

    digest: str
    done: bool
    parameters: dict[str, Tensor]
    trained: dict[str, Any]
    best: dict[str, Tensor] | None
    best_key: tuple[float, float]
    optimizer: dict[str, Any]
    precision: dict[str, Any]


def state_file(folder: Path) -> Path:
    """Where the state lies."""
    return folder / "training.pt"


def write_state(folder: Path, state: State) -> None:
    """Writes the state, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    path = state_file(folder)
    plain = {f.name: getattr(state, f.name) for f in fields(state)}
    with writing(path), replacing(path) as temporary:
        torch.save(plain, temporary)


def read_state(folder: Path, digest: str) -> State | None:
    """The state that was saved, on the CPU; None where there is none to go on from.

    A finished state of another training is passed over: nothing is lost when it is replaced.

    Raises:
        UsageError: an unfinished state of another training.
        DataError: the file is damaged.
    """
    path = state_file(folder)
    if not path.exists():
        return None
    try:
        state = State(**torch.load(path, map_location="cpu", weights_only=True))
    except (
        OSError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, EOFError,
        UnpicklingError,
    ) as error:  # fmt: skip
        raise DataError(
            f"The checkpoint {path} cannot be read.",
            hint="Remove it, and the training starts again.",
        ) from error
    if state.digest == digest:
        return state
    if state.done:
        return None
    raise UsageError(
        f"The checkpoint {path} is of another training (step {state.trained['steps']}): its "
        "pictures, their preprocessing, text, method, options, seed or backbone differ, or the "
        "version of clip-adapter.",
        hint="Give the same command as then to go on with it, name another folder, or remove it.",
    )
