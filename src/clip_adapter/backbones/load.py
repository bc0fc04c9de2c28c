"""``load_backbone``: from a name, or an object of the user's, to a frozen CLIP."""

from __future__ import annotations

from typing import Any

from clip_adapter.backbones.activation import with_activation
from clip_adapter.backbones.base import (
    DTYPES,
    RUNTIMES,
    Backbone,
    resolve_device,
    resolve_dtype,
    runtime_entry,
)
from clip_adapter.backbones.names import is_own, origin_of
from clip_adapter.backbones.onnx import check_runtime, on_onnx
from clip_adapter.backbones.open_clip import OpenClipBackbone, create_model
from clip_adapter.backbones.own import OwnBackbone, own_backbone
from clip_adapter.backbones.weights import fetch
from clip_adapter.errors import UsageError, unknown_name
from clip_adapter.reporting import log


def load_backbone(
    name: Any,
    *,
    device: str = "auto",
    dtype: str = "float32",
    runtime: str = "torch",
    recorded: bool = False,
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
        runtime: "torch"; or "onnx", which is quicker with the convolutional picture towers of CLIP
            on a CPU (``docs/speed.md``).
        recorded: the name stands in a saved classifier: what it leaves open was as then. Where
            "onnx" cannot be had, torch takes its place, and this is said.

    Raises:
        UsageError: an unknown name, device, dtype or runtime; an object that is no backbone, or
            is on another device, or of another number format or runtime than asked for; a runtime
            that brings nothing.
        MissingExtraError: the runtime is not installed.
        BackboneError: weights that cannot be found, fetched or loaded.
    """
    if runtime not in RUNTIMES:
        raise unknown_name("runtime", str(runtime), RUNTIMES)
    if isinstance(name, OwnBackbone):
        name.renew()  # its weights may have been loaded or trained since
    if not isinstance(name, str):
        given = name if isinstance(name, Backbone) else OwnBackbone(name)
        return _as_asked(given, device, dtype, runtime)
    if is_own(name):
        return _as_asked(own_backbone(name, device), device, dtype, runtime)
    if dtype not in ("auto", *DTYPES):
        raise unknown_name("dtype", str(dtype), ["auto", *DTYPES])
    origin = with_activation(origin_of(name), recorded)
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    if origin.kind == "hub":  # with the configuration, which tells what tower it is
        origin = fetch(origin)
    if runtime == "onnx":
        try:
            check_runtime(origin, device, dtype)
        except UsageError as error:
            if not recorded:
                raise
            runtime = "torch"
            log.info(f"{error.found} Here torch takes its place.")
    if origin.kind == "tag":
        origin = fetch(origin)
    backbone = OpenClipBackbone(origin, create_model(origin), device, dtype)
    return on_onnx(backbone) if runtime == "onnx" else backbone


def _as_asked(backbone: Backbone, device: str, dtype: str, runtime: str) -> Backbone:
    """``backbone``, which stays where and what it is, if nothing else is asked for.

    Raises:
        UsageError: another device, number format or runtime is.
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
    if runtime != "torch" and not runtime_entry(backbone):
        raise UsageError(
            f"runtime = {runtime}: {backbone.name} is loaded already, and runs as it is.",
            allowed="backbones by name, such as RN50/openai",
            hint="Leave it away.",
        )
    return backbone
