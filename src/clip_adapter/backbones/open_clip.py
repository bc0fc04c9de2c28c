"""Every model of open_clip as a :class:`~clip_adapter.backbones.base.Backbone`."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clip_adapter.backbones.activation import CONVERT
from clip_adapter.backbones.base import DTYPES, Preprocess
from clip_adapter.backbones.catalog import catalog
from clip_adapter.backbones.memory import FrozenEncoder
from clip_adapter.backbones.prompts import packed, reads_back, row_by_row
from clip_adapter.backbones.weights import (
    Origin,
    check_config,
    fingerprint,
    model_config,
    reason_of,
    tokenizer_options,
)
from clip_adapter.errors import BackboneError, how_to_install
from clip_adapter.paths import HUB
from clip_adapter.reporting import log


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs to the root logger and warns of what is settled here."""
    root, disabled = logging.getLogger(), logging.root.manager.disable
    handler = logging.NullHandler()  # without one, logging would add one that prints, for good
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)


class OpenClipBackbone(FrozenEncoder):
    """A frozen open_clip model, in eval mode (BatchNorm too).

    SigLIP adds a constant ``logit_bias`` to all logits; a constant drops out of the softmax and
    out of the order of the classes, so only its ``logit_scale`` is kept.
    """

    def __init__(
        self,
        origin: Origin,
        model: nn.Module,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self._origin, self.name, self.device, self.dtype = origin, origin.name, device, dtype
        self.preprocess = _preprocess(origin.name, model)
        # of the weights as they came, so that it is the same for every device and dtype
        self.fingerprint = fingerprint(model)
        self.logit_scale = float(model.logit_scale.detach().float().exp())  # type: ignore[operator]
        self.parameters = sum(p.numel() for p in model.parameters())
        self._torch_dtype = DTYPES[dtype]
        # The open_clip module, for methods that train or adapt what is inside.
        self.model: Any = model.to(device, self._torch_dtype).eval().requires_grad_(False)
        convolutions = sum(isinstance(part, nn.Conv2d) for part in self.model.visual.modules())
        if device.startswith("cuda") and convolutions > 1:  # not only the one that cuts patches
            self.model.visual.to(memory_format=torch.channels_last)
        super().__init__()

    def with_visual(self, visual: nn.Module, fingerprint: str) -> OpenClipBackbone:
        """This backbone with another visual tower; the text tower is shared.

        Args:
            visual: ``(B, 3, S, S) -> (B, D)``, on the device and in the dtype of this one.
            fingerprint: of the backbone with that tower.
        """
        other, model = copy.copy(self), copy.copy(self.model)
        # A shallow copy of a module shares the table of its parts.
        model._modules = {**self.model._modules, "visual": visual}
        other.model, other.fingerprint = model, fingerprint
        super(OpenClipBackbone, other).__init__()
        return other

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) preprocessed -> (B, D) raw features, float32 on the CPU."""
        return self._frozen(
            lambda part: self.model.encode_image(part.to(self.device, self._torch_dtype)), images
        )

    def encode_text(self, texts: list[str]) -> Tensor:
        """B texts -> (B, D) raw features, float32 on the CPU."""
        tokens = self.tokenize(texts) if texts else torch.zeros(0)
        return self._frozen(lambda part: self.model.encode_text(part.to(self.device)), tokens)

    def tokenize(self, texts: list[str]) -> Tensor:
        """B texts -> (B, L) token ids; what is too long is cut.

        Raises:
            BackboneError: the tokenizer cannot be had.
        """
        return self._tokenizer(texts)

    @functools.cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        import open_clip

        origin = self._origin
        with _quiet():
            identifier, config = origin.identifier, model_config(origin.identifier)
            if origin.kind == "hub" and tokenizer_options(config):
                # Its files are on the hub, and so may be a newer configuration now.
                identifier = f"{HUB}{origin.target}"
                config = model_config(identifier)
            check_config(origin.name, config)
            try:
                return open_clip.get_tokenizer(identifier, **tokenizer_options(config))
            except Exception as error:  # transformers raises errors of many kinds
                raise BackboneError(
                    f"The tokenizer of {origin.name} cannot be loaded: {reason_of(error)}",
                    hint=f"{how_to_install('siglip')}; SigLIP and others have their tokenizer on "
                    "the Hugging Face hub: let it reach the hub once. Image features need none.",
                ) from error

    def _text_tower(self) -> Any:
        """The module that holds the token embeddings.

        Raises:
            BackboneError: the text tower has no token embeddings to replace.
        """
        tower = getattr(self.model, "text", self.model)
        if not isinstance(getattr(tower, "token_embedding", None), nn.Embedding):
            self._refuse_prompts()
        return tower

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) -> token embeddings (B, L, W), float32 on the backbone's device.

        Raises:
            BackboneError: the text tower has no token embeddings to replace.
        """
        return self._text_tower().token_embedding(tokens.to(self.device)).float()

    def trim_tokens(self, tokens: Tensor) -> Tensor:
        """``tokens`` (B, L) without the last columns that change no feature.

        Where no token sees a later one and the feature is read at the end of the text, all that
        follows the longest text is idle; other text towers get ``tokens`` back whole.
        """
        if not reads_back(self._text_tower()):
            return tokens
        return tokens[:, : int(tokens.argmax(-1).max()) + 1]

    def encode_prompt_embeddings(
        self, embeddings: Tensor, tokens: Tensor, shared: int = 0
    ) -> Tensor:
        """Token embeddings (B, L, W) in place of ``tokens`` (B, L) -> (B, D), differentiable.

        ``tokens`` only tell where each text ends; they may be trimmed by :meth:`trim_tokens`. The
        result is float32 and on the device of ``embeddings``. Source: CoOp, section 3.2.

        Args:
            embeddings: on any device.
            tokens: the ids that they stand for.
            shared: how many leading embeddings are the same in all rows. They are computed once
                for several rows where the text tower allows it, to the same result.

        Raises:
            BackboneError: the text tower takes no token embeddings.
        """
        tower = self._text_tower()
        given = embeddings.to(self.device, self._torch_dtype)
        tokens = tokens.to(self.device)
        shared = min(shared, int(tokens.argmax(-1).min()))
        encode = packed if shared > 1 and reads_back(tower) else row_by_row
        return encode(tower, given, tokens, shared).to(embeddings.device, torch.float32)


def _preprocess(name: str, model: nn.Module) -> Preprocess:
    config: Any = model.visual.preprocess_cfg  # type: ignore[union-attr]
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise BackboneError(f"{name} wants pictures of {size}.", allowed="square pictures")
    mean, std = ((float(v[0]), float(v[1]), float(v[2])) for v in (config["mean"], config["std"]))
    return Preprocess(int(*sides), mean, std, config["interpolation"], config["resize_mode"])


class _Undrawn(TorchFunctionMode):
    """Zeros where a module draws its first weights, which takes as long as reading them.

    For modules whose weights are all read from a file afterwards, of which open_clip makes sure.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__name__", "").endswith(("normal_", "uniform_")):
            with torch.no_grad():
                return (args[0] if args else kwargs["tensor"]).zero_()
        return function(*args, **kwargs or {})


@_quiet()
def create_model(origin: Origin, **overrides: Any) -> nn.Module:
    """The open_clip module that comes from ``origin``, whose files are here, on the CPU.

    Args:
        origin: the model.
        **overrides: entries of its configuration, such as ``text_cfg``.

    Raises:
        BackboneError: its weights cannot be loaded.
    """
    import open_clip

    options: dict[str, Any] = {"pretrained_text": False, "weights_only": True}
    seed = 0
    if origin.kind in ("hub", "folder"):
        check_config(origin.name, model_config(origin.identifier))
        options["require_pretrained"] = True
    else:
        published = origin.published
        options["force_preprocess_cfg"] = published or _arch_preprocess(origin)
        # OpenAI's weights were trained with QuickGELU, whatever the architecture's entry says
        options["force_quick_gelu"] = bool(published.get("quick_gelu") or origin.quick_gelu)
        if origin.kind == "random":
            # 31 bits of a digest: the same name gives the same weights on every machine
            seed = int.from_bytes(hashlib.sha256(origin.arch.encode()).digest()[:4], "big") >> 1
        else:
            options |= {"pretrained": origin.file, "require_pretrained": True}
    try:
        drawn = contextlib.nullcontext() if origin.kind == "random" else _Undrawn()
        with torch.random.fork_rng(devices=[]), drawn:
            torch.default_generator.manual_seed(seed)  # models are made on the CPU
            return open_clip.create_model(origin.identifier, device="cpu", **options, **overrides)
    except Exception as error:  # damaged files, wrong shapes, missing packages: all end here
        raise BackboneError(
            f"{origin.name} cannot be loaded: {reason_of(error)}",
            allowed="weights of this very architecture, in safetensors or a state dict of tensors",
            hint=CONVERT
            if origin.kind == "file"
            else "Remove the damaged file so that it is fetched again, or name another backbone.",
        ) from error


def _arch_preprocess(origin: Origin) -> dict[str, Any]:
    """The preprocessing that the published weights of an architecture share."""
    keys = ("mean", "std", "interpolation", "resize_mode")
    entries = catalog().weights.get(origin.arch, {}).values()
    published = [{key: entry[key] for key in keys} for entry in entries]
    if all(entry == published[0] for entry in published):
        return published[0] if published else {}
    if origin.kind == "file":
        log.info(
            f"The published weights of {origin.arch} differ in preprocessing; OpenAI's is taken. "
            "A folder with open_clip_config.json (local-dir:DIR) can say otherwise."
        )
    return {}
