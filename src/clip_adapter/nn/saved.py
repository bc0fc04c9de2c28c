"""Modules made again from what was saved of them, which anyone may have written.

A saved module is a few sizes and its tensors. The sizes alone must cost nothing: a module is first
made of shapes without memory (torch's "meta" device), then compared with the tensors and given
them, so that no more memory is ever asked for than the file of tensors has bytes. The tensors say
which sizes are right; what none of them shows (how many parts, a scale) is checked by its reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

MAX_FLOAT = torch.finfo(torch.float32).max

M = TypeVar("M", bound=nn.Module)


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
    own, copies = module.state_dict(), {}
    for name, tensor in tensors.items():
        dtype = own.get(name, tensor).dtype
        if tensor.dtype.is_floating_point != dtype.is_floating_point:
            raise ValueError(f"the tensor {name} holds {tensor.dtype}")
        copies[name] = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    module.load_state_dict(copies, assign=True)
    return module
