"""Modules made again from what was saved of them, which anyone may have written.

A saved module is a few sizes and its tensors. The sizes alone must cost nothing: a module is first
made of shapes without memory (torch's "meta" device), then compared with the tensors and given
them, so that no more memory is ever asked for than the file of tensors has bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

# Larger than any layer of a published CLIP, and far from what overflows a count of bytes.
MAX_SIZE = 2**24
MAX_FLOAT = torch.finfo(torch.float32).max

M = TypeVar("M", bound=nn.Module)


def whole(value: Any, name: str, lowest: int = 1, highest: int = MAX_SIZE) -> int:
    """``value`` if it is a whole number in ``lowest`` to ``highest``.

    Raises:
        ValueError: anything else; ``name`` says what it was meant to be.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ValueError(f"{name} is no whole number in {lowest} to {highest}")
    return value


def number(value: Any, name: str, lowest: float = -MAX_FLOAT, highest: float = MAX_FLOAT) -> float:
    """``value`` if it is a finite number in ``lowest`` to ``highest``.

    Raises:
        ValueError: anything else; ``name`` says what it was meant to be.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not lowest <= value <= highest:
        raise ValueError(f"{name} is no finite number in {lowest:g} to {highest:g}")
    return value


def filled(make: Callable[[], M], tensors: Mapping[str, Tensor]) -> M:
    """The module that ``make`` makes, with copies of ``tensors``, on the CPU, for its own.

    Args:
        make: runs on the meta device: what it draws or fills takes neither memory nor random
            numbers. Its state dict must hold all that it needs.
        tensors: one for each entry of the module's state dict; converted to its number format.

    Raises:
        ValueError: a tensor of whole numbers in the place of real ones, or the other way round.
        RuntimeError: a tensor is missing, too many, or of another shape.
    """
    with torch.device("meta"):
        module = make()
    own, given = module.state_dict(), {}
    for name, tensor in tensors.items():
        dtype = own[name].dtype if name in own else tensor.dtype
        if tensor.dtype.is_floating_point != dtype.is_floating_point:
            raise ValueError(f"the tensor {name} holds {tensor.dtype}")
        given[name] = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    module.load_state_dict(given, assign=True)
    return module
