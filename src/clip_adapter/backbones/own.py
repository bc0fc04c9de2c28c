"""A backbone of one's own: any object that turns pictures into features.

It is given in place of a name (``clip_adapter.fit(..., backbone=mine)``), or a package makes it
known by the entry point group ``clip_adapter.backbones``, name to factory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import Tensor, nn

from clip_adapter.backbones.base import Preprocess, resolve_device
from clip_adapter.backbones.memory import FrozenEncoder
from clip_adapter.errors import BackboneError, MissingTextError, UsageError
from clip_adapter.reporting import log

GROUP = "clip_adapter.backbones"
HOW = "docs/add-a-backbone.md shows a backbone from start to end."
BLANK = (64, 64)  # pixels of the picture that finds the sizes


@dataclass(frozen=True)
class OwnPreprocess(Preprocess):
    """Code of the user's in place of sizes and numbers: PIL RGB picture -> (3, H, W)."""

    function: Callable[[Any], Tensor] = field(kw_only=True)


class OwnBackbone(FrozenEncoder):
    """A :class:`~clip_adapter.backbones.Backbone` around an object of the user's.

    A torch module is put into eval mode; it stays on its device and in its number format.

    Args:
        model: has ``encode_images`` (B, 3, H, W) -> (B, D) and ``preprocess``, a
            :class:`~clip_adapter.backbones.Preprocess` or a callable, PIL image -> (3, H, W). It
            may have ``fingerprint``, a str that changes with its weights and its preprocessing
            (without one no feature is stored); ``encode_text``, list of str -> (N, D);
            ``logit_scale``, a number, or a tensor that holds its logarithm as CLIP's does (100);
            and ``name``.
        name: None takes that of the object, or of its class.

    Raises:
        BackboneError: something is missing, or a first picture does not come out as (1, D).
    """

    def __init__(self, model: Any, name: str | None = None) -> None:
        preprocess = getattr(model, "preprocess", None)
        if not callable(getattr(model, "encode_images", None)) or not (
            isinstance(preprocess, Preprocess) or callable(preprocess)
        ):
            raise BackboneError(
                f"An object of type {type(model).__name__} is no backbone.",
                allowed="a name, or an object with encode_images (B, 3, H, W) -> (B, D) and "
                "preprocess: a Preprocess, or a callable PIL image -> (3, H, W)",
                hint=HOW,
            )
        self.own: Any = model.eval() if isinstance(model, nn.Module) else model
        self.name = str(name or getattr(model, "name", type(model).__name__))
        self.fingerprint = str(getattr(model, "fingerprint", None) or "")
        scale = getattr(model, "logit_scale", 100.0)
        self.logit_scale = float(scale.detach().exp() if isinstance(scale, Tensor) else scale)
        module = model if isinstance(model, nn.Module) else nn.Module()
        self.parameters = sum(p.numel() for p in module.parameters())
        numbers = [t for t in module.state_dict().values() if t.is_floating_point()]
        numbers.append(torch.empty(0, device=getattr(model, "device", None) or "cpu"))
        self._like = numbers[0]  # pictures go to its device, in its number format
        self.device, self.dtype = str(self._like.device), str(self._like.dtype).split(".")[1]
        super().__init__()
        self.preprocess, blank = _preprocessing(preprocess)
        self.embed_dim = self.encode_images(blank).shape[1]
        if not self.fingerprint:
            log.warning(
                f"The backbone {self.name} has no fingerprint: its features are not stored, and "
                "are made again each time."
            )

    def _checked(self, function: Callable[[Any], Any], batch: Any) -> Tensor:
        """``function`` of ``batch``, (B, D).

        Raises:
            BackboneError: it is something else.
        """
        features = function(batch)
        if isinstance(features, Tensor) and features.ndim == 2 and len(features) == len(batch):
            return features
        shape = tuple(getattr(features, "shape", ())) or type(features).__name__
        raise BackboneError(
            f"The backbone {self.name} gives {shape} for {len(batch)} pictures or texts.",
            allowed="a tensor (B, D) for B of them",
            hint=HOW,
        )

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) preprocessed -> (B, D) raw features, float32 on the CPU."""
        encode = functools.partial(self._checked, self.own.encode_images)
        return self._frozen(lambda part: encode(part.to(self._like)), images)

    def encode_text(self, texts: list[str]) -> Tensor:
        """B texts -> (B, D) raw features, float32 on the CPU.

        Raises:
            MissingTextError: the object has no ``encode_text``.
        """
        if not callable(getattr(self.own, "encode_text", None)):
            raise MissingTextError(
                f"The backbone {self.name} encodes pictures only: it has no encode_text.",
                hint="Take a method that needs no text ('clip-adapter ls methods' tells which), "
                "or give it encode_text, list of str -> (N, D).",
            )
        return self._frozen(functools.partial(self._checked, self.own.encode_text), texts)

    def _no_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Stop methods that learn prompts, which enter a text tower as token embeddings."""
        raise BackboneError(
            f"The backbone {self.name} takes no token embeddings.",
            allowed="backbones with a CLIP text transformer, as RN50/openai",
            hint="Learnt prompts need another backbone; other methods work with this one.",
        )

    tokenize = embed_tokens = trim_tokens = encode_prompt_embeddings = _no_tokens


def _preprocessing(given: Any) -> tuple[Preprocess, Tensor]:
    """The preprocessing, and a blank picture (1, 3, H, W) that went through it."""
    if isinstance(given, Preprocess):
        return given, torch.zeros(1, 3, given.image_size, given.image_size)
    from PIL import Image

    blank = given(Image.new("RGB", BLANK))
    if not isinstance(blank, Tensor) or blank.ndim != 3:
        raise BackboneError(
            f"The preprocessing of the backbone gives {type(blank).__name__} for a picture.",
            allowed="a tensor (3, H, W)",
            hint=HOW,
        )
    plain = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return OwnPreprocess(int(blank.shape[-1]), *plain, function=given), blank[None]


def own_names() -> dict[str, str]:
    """Names in the entry point group, each with the package that it is of.

    Names of this library's own form (``demo``, or with a slash or colon) stay this library's.
    """
    entries = [e for e in entry_points(group=GROUP) if e.name != "demo" and not {*"/:"} & {*e.name}]
    return {entry.name: entry.dist.name if entry.dist else "a package" for entry in entries}


def own_backbone(name: str, device: str, dtype: str) -> OwnBackbone:
    """What the factory that is registered as ``name`` makes; a torch module goes to ``device``.

    Raises:
        UsageError: another number format than the factory's is asked for.
        BackboneError: the package cannot be loaded, or makes no backbone.
    """
    (entry, *_) = entry_points(group=GROUP, name=name)
    try:
        model = entry.load()()
    except Exception as error:  # another package's code: anything can happen
        raise BackboneError(
            f"The backbone {name!r} ({entry.value}) cannot be made: "
            f"{type(error).__name__}: {error}",
            hint="Mend or update its package, or take another backbone.",
        ) from error
    if isinstance(model, nn.Module):
        model = model.to(resolve_device(device))
    backbone = OwnBackbone(model, name)
    if dtype not in ("float32", backbone.dtype):
        raise UsageError(
            f"dtype = {dtype}: {name} computes in {backbone.dtype}.",
            hint="Leave it away: a backbone of your own has its own number format.",
        )
    return backbone
