"""``load_backbone``: a backbone by its name, on a device that is said aloud.

A further family of backbones is one more module with ``claims``, ``load`` and ``listing``, named
in ``FAMILIES``; the first that claims a name loads it.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, cast

import torch

from clip_adapter.backbones.base import Backbone
from clip_adapter.errors import UsageError, unknown_name
from clip_adapter.reporting import log

FAMILIES = ("clip_adapter.backbones.open_clip",)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Dtype = Literal["float32", "float16", "bfloat16"]


def load_backbone(name: str, *, device: str = "auto", dtype: str = "float32") -> Backbone:
    """Load a frozen CLIP.

    Args:
        name: ``ARCH/TAG`` (``RN50/openai``, ``ViT-B/32``), ``ARCH/random``, ``ARCH/./FILE``,
            ``hf-hub:ORG/REPO``, ``local-dir:DIR`` or ``demo``.
        device: "auto" takes cuda, then mps, then cpu; or a device by name ("cuda:1").
        dtype: "float32", "float16" or "bfloat16", of weights and computation. Returned tensors
            are float32 in any case.

    Raises:
        UsageError: an unknown name, device or dtype.
        BackboneError: weights that cannot be found, fetched or loaded.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", str(dtype), DTYPES)
    for family in map(importlib.import_module, FAMILIES):
        if family.claims(name):
            return family.load(name, device, cast("Dtype", dtype))
    raise UsageError(f"No family of backbones knows {name!r}.")


def list_backbones() -> list[dict[str, Any]]:
    """Every backbone that can be named: ``name``, ``arch``, ``tag`` and ``notes``."""
    return [row for family in map(importlib.import_module, FAMILIES) for row in family.listing()]


def resolve_device(device: str = "auto") -> str:
    """The device to compute on; the choice of "auto" is said.

    Raises:
        UsageError: the device is unknown, or this machine has none of it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            log.info(f"Device: CUDA ({torch.cuda.get_device_name()})")
            return "cuda"
        if torch.backends.mps.is_available():
            log.info("Device: MPS (Apple GPU)")
            return "mps"
        log.info("Device: CPU (no CUDA or MPS device found)")
        return "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["it is not available"])[0]
        raise UsageError(
            f"The device {device!r} cannot be used: {reason}",
            allowed="auto, cpu, cuda, cuda:N, mps",
            hint="'auto' takes the best one that is here.",
        ) from error
    return device
