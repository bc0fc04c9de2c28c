"""``Backbone``: what the rest of the library asks of a frozen CLIP, and the device it runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from clip_adapter.errors import UsageError, unknown_name
from clip_adapter.known_names import Runtime, check_device
from clip_adapter.reporting import log, warn
from clip_adapter.wording import first_line

INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "squash", "longest")
RUNTIMES = get_args(Runtime)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Preprocess:
    """What turns a decoded RGB picture into the (3, S, S) input of a backbone.

    ``image_size`` S in pixels; ``mean`` and ``std`` per channel of values in 0..1;
    ``interpolation`` is "bicubic" or "bilinear". ``resize_mode`` is how the model's own test
    preprocessing reaches S x S: "shortest" (short side to S, centre crop), "squash" (aspect lost,
    as SigLIP) or "longest" (long side to S, black borders).

    Raises:
        UsageError: one of them is something else.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", self.interpolation, INTERPOLATIONS)
        if self.resize_mode not in RESIZE_MODES:
            raise unknown_name("resize mode", self.resize_mode, RESIZE_MODES)
        if not isinstance(self.image_size, int) or self.image_size < 1:
            raise UsageError(f"image_size = {self.image_size!r}.", allowed="pixels, 1 or more")
        for name, above, allowed in (("mean", -math.inf, ""), ("std", 0.0, " above 0")):
            values: Any = getattr(self, name)
            three = isinstance(values, tuple | list) and len(values) == 3
            if not three or not all(
                isinstance(one, float | int) and above < one < math.inf for one in values
            ):
                raise UsageError(f"{name} = {values!r}.", allowed=f"three numbers{allowed}")


@runtime_checkable
class Backbone(Protocol):
    """A frozen CLIP. All tensors it returns are float32, on the CPU unless said."""

    name: str
    fingerprint: str
    embed_dim: int
    logit_scale: float
    preprocess: Preprocess
    device: str
    dtype: str

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) preprocessed -> (B, D) raw features (not normalised)."""
        ...

    def encode_text(self, texts: list[str]) -> Tensor:
        """B texts -> (B, D) raw features (not normalised)."""
        ...

    def tokenize(self, texts: list[str]) -> Tensor:
        """B texts -> (B, L) token ids; L is the context length of the text tower."""
        ...

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) -> token embeddings (B, L, W), on the backbone's device."""
        ...

    def trim_tokens(self, tokens: Tensor) -> Tensor:
        """``tokens`` (B, L) without the last columns that change no feature, if there are any."""
        ...

    def encode_prompt_embeddings(
        self, embeddings: Tensor, tokens: Tensor, shared: int = 0
    ) -> Tensor:
        """Token embeddings (B, L, W) in place of ``tokens`` (B, L) -> (B, D), differentiable.

        ``tokens`` only tell where each text ends; :meth:`trim_tokens` may have trimmed them. The
        first ``shared`` embeddings are the same in all rows, which may save work.
        Source: CoOp, section 3.2.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint, sizes, device and dtype, for results and logs."""
        ...


def has_made(backbone: Backbone, known: str) -> bool:
    """Whether features with the fingerprint ``known`` on record are those of ``backbone``.

    Of one's own backbone older records have only what it stated, and weights can come later than
    that: with such a record one is warned.
    """
    stated = getattr(backbone, "stated", None)
    if known == stated != backbone.fingerprint:
        warn(
            f"Whether {backbone.name} has the weights that are on record cannot be checked: the "
            "record is older than this check, and has only the fingerprint that the object states. "
            "Fit or embed again, and they are."
        )
    return known in (backbone.fingerprint, stated)


def runtime_entry(backbone: Any) -> dict[str, str]:
    """What keys and records say of the runtime of a backbone: nothing where that is torch."""
    runtime = getattr(backbone, "runtime", "torch")
    return {} if runtime == "torch" else {"runtime": runtime}


def best_device() -> str:
    """The fastest kind of device that is here: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_device(device: str = "auto") -> str:
    """The device to compute on; the choice of "auto" is said.

    Raises:
        UsageError: the device is unknown, or this machine has none of it.
    """
    check_device(device)
    if device == "auto":
        best = best_device()
        name = f"CUDA ({torch.cuda.get_device_name()})" if best == "cuda" else "MPS (Apple GPU)"
        log.info(f"Device: {'CPU (no CUDA or MPS device found)' if best == 'cpu' else name}")
        return best
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"The device {device!r} cannot be used: {first_line(error)}",
            allowed="auto, cpu, cuda, cuda:N, mps",
            hint="'auto' takes the best one that is here.",
        ) from error
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """The number format to compute in on ``device``: "auto" is float16 on a CUDA device."""
    if dtype != "auto":
        return dtype
    return "float16" if device.startswith("cuda") else "float32"
