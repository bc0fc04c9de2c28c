"""``TowerAdapter``: a trained part of a visual tower, apart from the frozen tower itself."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from abc import ABC, abstractmethod
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from clip_adapter.backbones.base import Backbone, runtime_entry
from clip_adapter.backbones.memory import is_out_of_memory
from clip_adapter.backbones.open_clip import OpenClipBackbone
from clip_adapter.errors import BackboneError, UnknownTowerAdapterError, UsageError
from clip_adapter.nn.saved import filled

Config = dict[str, Any]


class TowerAdapter(nn.Module, ABC):
    """Parameters to be trained, and where they go in a visual tower.

    A subclass is an ordinary module. It is saved as its :meth:`config` and its state dict, so the
    two must be enough to make it again.

    Attributes:
        kind: its name in saved classifiers.
        settings: the arguments that make it again, JSON types only.
    """

    kind: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def attach(self, visual: nn.Module) -> None:
        """Put this adapter into ``visual``, a copy of the backbone's tower, for good.

        Afterwards ``visual(images)`` runs through the parameters of this module.

        Raises:
            BackboneError: the tower has no such place; says which towers have.
        """

    def config(self) -> Config:
        """What :meth:`from_config` needs, JSON types only."""
        return self.settings

    @classmethod
    def from_config(cls, config: Config) -> TowerAdapter:
        """The module that :meth:`config` described, to be made by :func:`saved.filled`.

        The configuration may be forged. Sizes are compared with the tensors afterwards; how many
        parts there are, and every other number, is checked where the module is made.

        Raises:
            ArithmeticError, LookupError, RuntimeError, TypeError, ValueError: no such module can
                be.
        """
        return cls(**{name: value for name, value in config.items() if name != "kind"})


TOWER_ADAPTERS: dict[str, type[TowerAdapter]] = {}
# Of a tower, as far as a saved adapter may claim; the largest CLIPs have 64.
MAX_BLOCKS = 1000

T = TypeVar("T", bound=type[TowerAdapter])


def register_tower_adapter(cls: T) -> T:
    """Class decorator: makes an adapter known under its ``kind``, so that it can be loaded."""
    TOWER_ADAPTERS[cls.kind] = cls
    return cls


def visual_tower(backbone: Backbone) -> nn.Module:
    """The visual tower of ``backbone``; not to be changed.

    Raises:
        UsageError: torch does not compute it.
        BackboneError: the backbone is no open_clip model with a visual tower of its own.
    """
    if runtime_entry(backbone):
        raise UsageError(
            f"The visual tower of {backbone.name} runs in ONNX Runtime: nothing inside it can be "
            "trained or changed.",
            hint="Leave --runtime away, or take a method that reads features.",
        )
    visual = getattr(getattr(backbone, "model", None), "visual", None)
    if not isinstance(visual, nn.Module):
        raise BackboneError(
            f"The visual tower of {backbone.name} cannot be reached.",
            allowed="models of open_clip",
            hint="Take a method that reads features: 'clip-adapter ls methods' tells which.",
        )
    return visual


def adapted_copy(
    backbone: Backbone, adapter: TowerAdapter | None, dtype: torch.dtype | None = None
) -> nn.Module:
    """A frozen copy of the visual tower, in eval mode, with ``adapter`` attached, if any.

    ``visual(images (B, 3, S, S)) -> (B, D)``. Only the parameters of ``adapter`` ask for gradients;
    BatchNorm stays in eval mode (CLIP-Adapter trains no statistics).

    Args:
        backbone: left as it is.
        adapter: attached; moved to the device of the tower.
        dtype: number format of the copy; None keeps that of the backbone.
    """
    visual = copy.deepcopy(visual_tower(backbone)).eval().requires_grad_(False).to(dtype=dtype)
    if adapter is not None:
        first = next(visual.parameters())
        adapter.to(first.device, first.dtype).attach(visual)
    return visual


def tuned(backbone: Backbone, adapter: TowerAdapter) -> Backbone:
    """A backbone like ``backbone`` whose images go through ``adapter``.

    Its fingerprint covers the adapter, so that features of the two are never mixed in a cache.

    Raises:
        BackboneError: the adapter was made for another tower, or the backbone takes none.
    """
    if not isinstance(backbone, OpenClipBackbone):
        visual_tower(backbone)
        raise BackboneError(f"{type(backbone).__name__} takes no adapter of its tower.")
    inner = copy.deepcopy(adapter).requires_grad_(False).eval()
    fingerprint = f"{backbone.fingerprint}+{digest(adapter)}"
    try:
        visual = adapted_copy(backbone, inner).requires_grad_(False)
        return backbone.with_visual(visual, hashlib.sha256(fingerprint.encode()).hexdigest())
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        # An adapter that was saved may be of any shape, and towers differ in ways that no check of
        # its own foresees: what fails here is the first picture through the two together.
        raise BackboneError(
            f"The adapter of kind {adapter.kind!r} does not fit the visual tower of "
            f"{backbone.name}: {error}",
            allowed="an adapter that was trained in this backbone",
            hint="Take the backbone that it was made for, or fit the classifier again.",
        ) from error


def digest(adapter: TowerAdapter) -> str:
    """SHA-256 (hex) over the configuration and the tensors."""
    config, tensors = describe_tower_adapter(adapter)
    sha = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def describe_tower_adapter(adapter: TowerAdapter) -> tuple[Config, dict[str, Tensor]]:
    """(configuration, tensors in float32 on the CPU)."""
    tensors = {
        k: v.detach().to("cpu", torch.float32 if v.is_floating_point() else v.dtype).contiguous()
        for k, v in adapter.state_dict().items()
    }
    return {"kind": adapter.kind, **adapter.config()}, tensors


def build_tower_adapter(config: Config, tensors: dict[str, Tensor]) -> TowerAdapter:
    """The adapter that :func:`describe_tower_adapter` described.

    Raises:
        UnknownTowerAdapterError: nothing that is installed registers its kind.
        ArithmeticError, LookupError, RuntimeError, TypeError, ValueError: sizes and tensors that
            do not fit.
    """
    name = config["kind"]
    if name not in TOWER_ADAPTERS:
        # A third party registers its adapters where it registers its methods.
        for entry in entry_points(group="clip_adapter.methods"):
            with contextlib.suppress(Exception):  # told where methods are looked up
                entry.load()
    if name not in TOWER_ADAPTERS:
        raise UnknownTowerAdapterError(
            f"This classifier trained {name!r} inside the visual tower, which is not known here.",
            allowed=", ".join(sorted(TOWER_ADAPTERS)),
            hint="Install the package that its method came from, or update clip-adapter.",
        )
    return filled(lambda: TOWER_ADAPTERS[name].from_config(config), tensors)
