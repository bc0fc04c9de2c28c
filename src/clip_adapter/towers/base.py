"""``Change``: a trained part of a visual tower, apart from the frozen tower itself."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from clip_adapter.backbones.base import Backbone
from clip_adapter.backbones.memory import is_out_of_memory
from clip_adapter.backbones.open_clip import OpenClipBackbone
from clip_adapter.errors import BackboneError, UnknownChangeError
from clip_adapter.nn.saved import filled

Config = dict[str, Any]


class Change(nn.Module, ABC):
    """Parameters to be trained, and where they go in a visual tower.

    A subclass is an ordinary module. It is saved as its :meth:`config` and its state dict, so the
    two must be enough to make it again.
    """

    kind: ClassVar[str]

    @abstractmethod
    def attach(self, visual: nn.Module) -> None:
        """Puts this change into ``visual``, a copy of the backbone's tower, for good.

        Afterwards ``visual(images)`` runs through the parameters of this module.

        Raises:
            BackboneError: the tower has no such place; says which towers have.
        """

    @abstractmethod
    def config(self) -> Config:
        """What :meth:`from_config` needs, JSON types only."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config) -> Change:
        """The module that :meth:`config` described, to be made by :func:`saved.filled`.

        The configuration may be forged: every size and number in it is checked here.

        Raises:
            KeyError, TypeError, ValueError: no such module can be.
        """


# Modules of this package that register changes; imported when one is looked up.
FAMILIES = ("adapters", "lora", "trunk", "weights")
CHANGES: dict[str, type[Change]] = {}
# Of a tower, as far as a saved change may claim; the largest CLIPs have 64.
MAX_BLOCKS = 1000

T = TypeVar("T", bound=type[Change])


def register_change(cls: T) -> T:
    """Class decorator: makes a change known under its ``kind``, so that it can be loaded."""
    CHANGES[cls.kind] = cls
    return cls


def visual_tower(backbone: Backbone) -> nn.Module:
    """The visual tower of ``backbone``; not to be changed.

    Raises:
        BackboneError: the backbone is no open_clip model with a visual tower of its own.
    """
    visual = getattr(getattr(backbone, "model", None), "visual", None)
    if not isinstance(visual, nn.Module):
        raise BackboneError(
            f"The visual tower of {backbone.name} cannot be reached.",
            allowed="models of open_clip",
            hint="Take a method that reads features: 'clip-adapter ls methods' tells which.",
        )
    return visual


def changed_copy(backbone: Backbone, change: Change, dtype: torch.dtype | None = None) -> nn.Module:
    """A frozen copy of the visual tower, in eval mode, with ``change`` attached.

    ``visual(images (B, 3, S, S)) -> (B, D)``. Only the parameters of ``change`` ask for gradients;
    BatchNorm stays in eval mode (CLIP-Adapter trains no statistics).

    Args:
        backbone: left as it is.
        change: attached; moved to the device of the tower.
        dtype: number format of the copy; None keeps that of the backbone.
    """
    visual = copy.deepcopy(visual_tower(backbone)).eval().requires_grad_(False)
    if dtype is not None:
        visual = visual.to(dtype)
    first = next(visual.parameters())
    change.to(first.device, first.dtype)
    change.attach(visual)
    return visual


def tuned(backbone: Backbone, change: Change) -> Backbone:
    """A backbone like ``backbone`` whose images go through ``change``.

    Its fingerprint covers the change, so that features of the two are never mixed in a cache.

    Raises:
        BackboneError: the change was made for another tower, or the backbone takes none.
    """
    if not isinstance(backbone, OpenClipBackbone):
        visual_tower(backbone)
        raise BackboneError(f"{type(backbone).__name__} takes no change of its tower.")
    inner = copy.deepcopy(change).requires_grad_(False).eval()
    fingerprint = f"{backbone.fingerprint}+{digest(change)}"
    try:
        visual = changed_copy(backbone, inner).requires_grad_(False)
        return backbone.with_visual(visual, hashlib.sha256(fingerprint.encode()).hexdigest())
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        # A change that was saved may be of any shape, and towers differ in ways that no check of
        # its own foresees: what fails here is the first picture through the two together.
        raise BackboneError(
            f"The change of kind {change.kind!r} does not fit the visual tower of "
            f"{backbone.name}: {error}",
            allowed="a change that was trained in this backbone",
            hint="Take the backbone that it was made for, or fit the classifier again.",
        ) from error


def digest(change: Change) -> str:
    """SHA-256 (hex) over the configuration and the tensors."""
    config, tensors = describe_change(change)
    found = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def describe_change(change: Change) -> tuple[Config, dict[str, Tensor]]:
    """(configuration, tensors in float32 on the CPU)."""
    tensors = {
        k: v.detach().to("cpu", torch.float32 if v.is_floating_point() else v.dtype).contiguous()
        for k, v in change.state_dict().items()
    }
    return {"kind": change.kind, **change.config()}, tensors


def build_change(config: Config, tensors: dict[str, Tensor]) -> Change:
    """The change that :func:`describe_change` described.

    Raises:
        UnknownChangeError: nothing that is installed registers its kind.
        KeyError, TypeError, ValueError, RuntimeError: sizes and tensors that do not fit.
    """
    kind = change_kind(config["kind"])
    return filled(lambda: kind.from_config(config), tensors)


def change_kind(name: str) -> type[Change]:
    """The change registered as ``name``, here or by a package of methods.

    Raises:
        UnknownChangeError: nothing that is installed registers it.
    """
    for family in FAMILIES:
        importlib.import_module(f"clip_adapter.towers.{family}")
    if name not in CHANGES:
        # A third party registers its changes where it registers its methods.
        for entry in entry_points(group="clip_adapter.methods"):
            with contextlib.suppress(Exception):  # told where methods are looked up
                entry.load()
    if name not in CHANGES:
        raise UnknownChangeError(
            f"This classifier trained {name!r} inside the visual tower, which is not known here.",
            allowed=", ".join(sorted(CHANGES)),
            hint="Install the package that its method came from, or update clip-adapter.",
        )
    return CHANGES[name]
