"""``load_backbone``: from a name, or an object of the user's, to a frozen CLIP."""

from __future__ import annotations

from typing import Any

from clip_adapter.backbones.activation import with_activation
from clip_adapter.backbones.base import DTYPES, Backbone, resolve_device, resolve_dtype
from clip_adapter.backbones.names import origin_of, own_names
from clip_adapter.backbones.open_clip import OpenClipBackbone, create_model
from clip_adapter.backbones.own import OwnBackbone, own_backbone
from clip_adapter.backbones.weights import fetch
from clip_adapter.errors import UsageError, unknown_name


def load_backbone(
    name: Any, *, device: str = "auto", dtype: str = "float32", recorded: bool = False
) -> Backbone:
    """Load a frozen CLIP.

    Args:
        name: ``ARCH/TAG`` (``RN50/openai``, ``ViT-B/32``), ``ARCH/random``, ``ARCH/./FILE``,
            ``hf-hub:ORG/REPO``, ``local-dir:DIR``, ``demo`` or the name that a package gave to its
            own; or an object, see :class:`~clip_adapter.backbones.own.OwnBackbone`, which stays on
            its device and in its number format.
        device: "auto" takes cuda, then mps, then cpu; or a device by name ("cuda:1").
        dtype: "float32", "float16" or "bfloat16", of weights and computation; "auto" is float16
            on a CUDA device, else float32. Returned tensors are float32 in any case.
        recorded: the name stands in a saved classifier: what it leaves open was as then.

    Raises:
        UsageError: an unknown name, device or dtype; an object that is no backbone, or is on
            another device or of another number format than asked for.
        BackboneError: weights that cannot be found, fetched or loaded.
    """
    if isinstance(name, OwnBackbone):
        name.renew()  # its weights may have been loaded or trained since
    if not isinstance(name, str):
        return _as_asked(name if isinstance(name, Backbone) else OwnBackbone(name), device, dtype)
    if name in own_names():
        return _as_asked(own_backbone(name, device), device, dtype)
    if dtype not in ("auto", *DTYPES):
        raise unknown_name("dtype", str(dtype), ["auto", *DTYPES])
    origin = with_activation(origin_of(name), recorded)
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    if origin.kind in ("tag", "hub"):
        origin = fetch(origin)
    return OpenClipBackbone(origin, create_model(origin), device, dtype)


def _as_asked(backbone: Backbone, device: str, dtype: str) -> Backbone:
    """``backbone``, which stays where and what it is, if nothing else is asked for.

    Raises:
        UsageError: another device or number format is.
    """
    if not f"{backbone.device}:".startswith(f"{device}:") and device != "auto":
        raise UsageError(
            f"device = {device}: {backbone.name} is on {backbone.device}.",
            hint="Leave it away: a backbone of your own stays where you put it.",
        )
    if dtype not in ("auto", "float32", backbone.dtype):
        raise UsageError(
            f"dtype = {dtype}: {backbone.name} computes in {backbone.dtype}.",
            hint="Leave it away: a backbone of your own has its own number format.",
        )
    return backbone
