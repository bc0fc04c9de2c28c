"""A pretend accelerator: a device of its own, whose numbers lie in the memory of the CPU.

It goes by the name ``meta:1``; torch's own device without numbers is ``meta``. As on a card,
numbers come to it and back by ``to`` and ``copy_`` alone, and whatever mixes its tensors with those
of the CPU is an error. It has no speed, no streams and no number formats of its own.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CARD = torch.device("meta", 1)
aten = torch.ops.aten
# What a card takes beside tensors of the CPU: copies, and indices.
CROSSING = {
    aten._to_copy.default,
    aten.copy_.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
}


class Card(torch.Tensor):
    """A tensor on the pretend accelerator; ``inner`` holds its numbers."""

    @staticmethod
    def __new__(cls, inner):
        card = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CARD,
        )
        card.inner = inner
        return card

    def __repr__(self):
        return f"Card({self.inner})"

    def numpy(self, **kwargs):
        raise TypeError("A tensor of the pretend accelerator has to go to the CPU first.")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Present(TorchDispatchMode):
    """Within this context the pretend accelerator takes tensors of the CPU, and makes new ones."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """``func`` on the numbers; the result is where a card would have it."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    cards = [x for x in tensors if isinstance(x, Card)]
    # A single number of the CPU may stand beside tensors of a card.
    others = [x for x in tensors if not isinstance(x, Card) and x.ndim > 0]
    if cards and others and func not in CROSSING:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} found the pretend "
            f"accelerator and {others[0].device}."
        )
    asked = kwargs.get("device")
    on_card = bool(cards) if asked is None else torch.device(asked) == CARD
    if func is aten.copy_.default:
        on_card = isinstance(args[0], Card)
    if not cards and not on_card:
        return func(*args, **kwargs)
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map_only(Card, lambda x: x.inner, (args, kwargs))
    # What changes a tensor in place gives that tensor back.
    given = {id(x.inner): x for x in cards}

    def placed(x):
        if not on_card:
            return x
        return given[id(x)] if id(x) in given else Card(x)

    return tree_map_only(torch.Tensor, placed, func(*args, **kwargs))


@contextlib.contextmanager
def present():
    """The pretend accelerator is in the machine, and the device "auto" finds it."""
    from clip_adapter.backbones import load, own
    from clip_adapter.sources import base as sources

    resolve = load.resolve_device

    def resolve_device(device="auto", *say):
        return str(CARD) if device in ("auto", str(CARD)) else resolve(device, *say)

    swaps = torch.__future__.get_swap_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch, Present():
        patch.setattr(load, "resolve_device", resolve_device)
        patch.setattr(own, "resolve_device", resolve_device)
        patch.setattr(sources, "resolve_device", resolve_device)
        patch.setattr(sources, "best_device", resolve_device)
        # Views of a wrapped tensor cannot be made in inference mode.
        patch.setattr(torch, "inference_mode", torch.no_grad)
        # A module that moves keeps its parameters, as between the CPU and a card.
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            yield
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)
