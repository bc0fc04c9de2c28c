"""A backbone of one's own: any object that turns pictures into features.

It is given in place of a name (``clip_adapter.fit(..., backbone=mine)``), or a package makes it
known by the entry point group ``clip_adapter.backbones``, name to factory.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch
from torch import Tensor, nn

from clip_adapter.backbones.base import Preprocess, resolve_device
from clip_adapter.backbones.memory import FrozenEncoder
from clip_adapter.backbones.names import GROUP, is_reserved
from clip_adapter.backbones.weights import fingerprint
from clip_adapter.errors import BackboneError, MissingTextError, UsageError, code_of
from clip_adapter.nn.cosine import scale_doubt
from clip_adapter.reporting import log
from clip_adapter.wording import counted

HOW = "docs/add-a-backbone.md shows a backbone from start to end."
BLANKS = ((64, 64), (96, 64))  # pixels of the pictures that find the sizes


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
            may have ``fingerprint``, a str that changes with its code and its preprocessing
            (without one no feature is stored), beside which that of its weights is put;
            ``encode_text``, list of str -> (N, D); ``logit_scale``, a number, or a tensor that
            holds its logarithm as CLIP's does (100); and ``name``.
        name: None takes that of the object, or of its class.

    Attributes:
        stated: the fingerprint as the object has it; "" without one.

    Raises:
        UsageError: one of these is missing, or something else.
        BackboneError: a first picture does not come out as (1, D).
        PluginError: its own code breaks down on a first picture.
    """

    def __init__(self, model: Any, name: str | None = None) -> None:
        _check(model)
        self.own: Any = model.eval() if isinstance(model, nn.Module) else model
        self.name = str(name or getattr(model, "name", type(model).__name__))
        if is_reserved(self.name):
            raise _wrong(
                model,
                f"it is called {self.name!r}, as a backbone of this library's own is",
                "a name without slash and colon, not 'demo', 'auto' or a model of OpenAI",
                hint='Give it another attribute "name", such as "my-backbone".',
            )
        self.renew()
        self.encodes_text = callable(getattr(model, "encode_text", None))
        self.logit_scale = _scale(model)
        module = model if isinstance(model, nn.Module) else nn.Module()
        self.parameters = sum(p.numel() for p in module.parameters())
        numbers = [t for t in module.state_dict().values() if t.is_floating_point()]
        numbers.append(torch.empty(0, device=getattr(model, "device", None) or "cpu"))
        self._like = numbers[0]  # pictures go to its device, in its number format
        self.device, self.dtype = str(self._like.device), str(self._like.dtype).split(".")[1]
        blank: Tensor | None = None
        if isinstance(model.preprocess, Preprocess):
            self.preprocess = model.preprocess
        else:
            from PIL import Image

            blank, other = (self._prepared(Image.new("RGB", size)) for size in BLANKS)
            if blank.shape != other.shape:
                raise _wrong(
                    model,
                    f"preprocess gives {tuple(blank.shape)} for a picture, and "
                    f"{tuple(other.shape)} for a wider one",
                    "a tensor (3, H, W), of one size for all pictures",
                )
            plain = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            size = int(blank.shape[-1])
            self.preprocess = OwnPreprocess(size, *plain, function=self._prepared)
        super().__init__(blank)
        if not self.fingerprint:
            log.warning(
                f"The backbone {self.name} has no fingerprint: its features are not stored, and "
                "are made again each time."
            )

    def renew(self) -> None:
        """Take the fingerprint of the object with the weights that it has now.

        Raises:
            UsageError: the one of its own is no str.
        """
        stated = getattr(self.own, "fingerprint", None)
        if not isinstance(stated, str | None):
            raise _wrong(
                self.own,
                f"fingerprint = {stated!r}",
                "a str that changes with the weights and the preprocessing, or None",
            )
        self.stated = self.fingerprint = stated or ""
        if stated and (weights := _weights(self.own)):
            self.fingerprint += f" weights:{fingerprint(weights)}"

    def _prepared(self, picture: Any) -> Tensor:
        """A PIL RGB picture as the function of the user's makes it, (3, H, W)."""
        with code_of(self.own):
            pixels = self.own.preprocess(picture)
        if isinstance(pixels, Tensor) and pixels.ndim == 3 and len(pixels) == 3:
            return pixels
        shape = tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
        raise _wrong(self.own, f"preprocess gives {shape} for a picture", "a tensor (3, H, W)")

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
            f"The backbone {self.name} gives {shape} for "
            f"{counted(len(batch), 'picture or text', 'pictures or texts')}.",
            allowed="a tensor (B, D) for B of them",
            hint=HOW,
        )

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) preprocessed -> (B, D) raw features, float32 on the CPU."""
        encode = functools.partial(self._checked, self.own.encode_images)
        with code_of(self.own):
            return self._frozen(lambda part: encode(part.to(self._like)), images)

    def encode_text(self, texts: list[str]) -> Tensor:
        """B texts -> (B, D) raw features, float32 on the CPU.

        Raises:
            MissingTextError: the object has no ``encode_text``.
        """
        if not self.encodes_text:
            raise MissingTextError(
                f"The backbone {self.name} encodes pictures only: it has no encode_text.",
                hint="Take a method that needs no text ('clip-adapter ls methods' tells which), "
                "or give it encode_text, list of str -> (N, D).",
            )
        with code_of(self.own):
            return self._frozen(functools.partial(self._checked, self.own.encode_text), texts)

    tokenize = embed_tokens = trim_tokens = encode_prompt_embeddings = FrozenEncoder._refuse_prompts


def _weights(model: Any) -> nn.Module | None:
    """The torch module that ``model`` is, or those among its attributes; None without one.

    Buffers that its state dict leaves out are in that of the result.
    """
    inner = [model, *getattr(model, "__dict__", {}).values()]
    modules = nn.ModuleList(one for one in inner if isinstance(one, nn.Module))
    kept, hidden = modules.state_dict(), nn.Module()
    for name, buffer in modules.named_buffers():
        if name not in kept:
            hidden.register_buffer(name.replace(".", "/"), buffer)
    return modules.append(hidden) if len(modules) else None


def _wrong(model: Any, found: str, allowed: str, hint: str = HOW) -> UsageError:
    return UsageError(f"{type(model).__name__} as a backbone: {found}.", allowed=allowed, hint=hint)


def _check(model: Any) -> None:
    """Check the attributes of an object that is given as a backbone.

    Raises:
        UsageError: one is missing or of another kind; says which.
    """
    if isinstance(model, type):
        raise UsageError(
            f"{model.__name__} is a class, and no backbone yet.",
            allowed="a name, or an object",
            hint=f"Give an object of it, such as {model.__name__}().",
        )
    lacks = [name for name in ("encode_images", "preprocess") if not hasattr(model, name)]
    if lacks:
        raise _wrong(
            model,
            f"it is no backbone, for it has no {' and no '.join(lacks)}",
            "a name, or an object with encode_images (B, 3, H, W) -> (B, D) and preprocess: a "
            "Preprocess, or a callable PIL image -> (3, H, W)",
        )
    if not callable(model.encode_images):
        raise _wrong(model, "encode_images is no function", "(B, 3, H, W) -> (B, D)")
    if not isinstance(model.preprocess, Preprocess) and not callable(model.preprocess):
        raise _wrong(
            model,
            f"preprocess = {model.preprocess!r}",
            "a Preprocess, or a callable PIL image -> (3, H, W)",
        )


def _scale(model: Any) -> float:
    """1/tau of the object, from the number or the logarithm that it holds; 100 without one.

    Raises:
        UsageError: it holds something else.
    """
    given = getattr(model, "logit_scale", 100.0)
    with contextlib.suppress(AttributeError, TypeError, ValueError, RuntimeError):
        number = given if isinstance(given, float | int) else float(given.detach().exp())
        if 0 < number < 1e6 and not isinstance(given, bool):
            if isinstance(given, float | int) and (doubt := scale_doubt(number)):
                log.warning(f"The backbone's logit_scale {number:g} is taken: {doubt}.")
            return float(number)
    raise _wrong(
        model,
        f"logit_scale = {given!r}",
        "a number above 0, as CLIP's 100, or a tensor that holds its logarithm, as CLIP's 4.6",
    )


def own_backbone(name: str, device: str) -> OwnBackbone:
    """What the factory that is registered as ``name`` makes; a torch module goes to ``device``.

    Raises:
        BackboneError: the package cannot be loaded, or makes no backbone.
    """
    (entry, *_) = entry_points(group=GROUP, name=name)
    with _made_by(entry):
        model = entry.load()()
    if isinstance(model, nn.Module):
        model = model.to(resolve_device(device))
    with _made_by(entry):
        return OwnBackbone(model, name)


@contextlib.contextmanager
def _made_by(entry: EntryPoint) -> Iterator[None]:
    """Name the package in what goes wrong: it is another's code, and anything can happen."""
    try:
        yield
    except Exception as error:
        kind, allowed = type(error).__name__, getattr(error, "allowed", "")
        raise BackboneError(
            f"The backbone {entry.name!r} of {entry.dist.name if entry.dist else 'a package'} "
            f"({entry.value}) cannot be made: {kind}: {getattr(error, 'found', error)}",
            allowed=allowed,
            hint="Mend or update its package, or take another backbone.",
        ) from error
