"""``TextTower``: class names through a copy of the text tower, with gradients."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from clip_adapter.backbones.base import Backbone
from clip_adapter.datasets.templates import fill
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.nn import normalize
from clip_adapter.towers.sites import blocks_of

# Prompts of one pass. Where there are more, each pass is run again on the way back, so that the
# activations of one of them are in memory at a time: 1,000 classes fit where 128 do.
CHUNK = 128
# What a whole CLIP has beside its text tower.
OTHERS = ("visual", "logit_scale", "logit_bias")


def in_passes(encode: Callable[..., Tensor], *prompts: Tensor) -> Tensor:
    """``encode`` of ``prompts``, tensors of C rows each, in passes that fit into memory: (C, D)."""
    parts = list(zip(*(tensor.split(CHUNK) for tensor in prompts), strict=True))
    if len(parts) > 1 and torch.is_grad_enabled():
        encode = functools.partial(checkpoint, encode, use_reentrant=False)
    return torch.cat([encode(*part) for part in parts])


class TextTower(nn.Module):
    """Classifier weights (C, D) as a function of the parameters of a text tower.

    The tower is a frozen copy in eval mode: the caller says what of :attr:`model` is trained, or
    attaches something to :meth:`blocks`. It is not needed once the weights are made.

    Args:
        backbone: left as it is.
        class_names: C names.
        templates: T prompt templates with one ``{}`` each.
        dtype: number format of the copy; None keeps that of the backbone.

    Attributes:
        model: the copy, token ids (B, L) -> (B, D). Its parameters are those of the text tower
            alone.

    Raises:
        BackboneError: the backbone is no open_clip model.
        UsageError: no template.
    """

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        templates: Sequence[str],
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not templates:
            raise UsageError(
                "The text tower is to be trained, and there is no prompt template: class "
                "descriptions alone are no prompts to train it on.",
                allowed="one template or more, as 'a photo of a {}.'",
                hint="Add --prompt, beside --descriptions or in their place.",
            )
        self.model: Any = _text_part(backbone).eval().requires_grad_(False).to(dtype=dtype)
        self._classes, self._templates = len(class_names), len(templates)
        tokens = backbone.tokenize([fill(t, name) for name in class_names for t in templates])
        if isinstance(getattr(self.model, "token_embedding", None), nn.Embedding):
            # 8 to 20 of CLIP's 77 tokens are left, which is as many times faster
            tokens = backbone.trim_tokens(tokens)
        self.tokens = nn.Buffer(tokens.to(next(self.model.parameters()).device), persistent=False)

    def blocks(self) -> list[nn.Module]:
        """Its transformer blocks, in order.

        Raises:
            BackboneError: the tower is not one of open_clip's transformers.
        """
        if blocks := blocks_of(self.model):
            return blocks
        raise BackboneError(
            "The text tower of this backbone is not one of open_clip's transformers.",
            allowed="backbones with a CLIP text transformer, as ViT-B-32/openai",
        )

    def forward(self) -> Tensor:
        """Class weights (C, D) of unit length, float32, differentiable.

        Per class, the T text features are scaled to unit length, averaged, and scaled again, as
        in :func:`clip_adapter.features.text.text_weights`.
        """
        features = normalize(in_passes(self._encode, self.tokens).float())
        return normalize(features.reshape(self._classes, self._templates, -1).mean(dim=1))

    def _encode(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) -> raw features (B, D)."""
        model, length = self.model, tokens.shape[1]
        shorter: dict[str, Tensor] = {}
        if length < getattr(model, "context_length", length):
            shorter = {
                "positional_embedding": model.positional_embedding[:length],
                "attn_mask": model.attn_mask[:length, :length],
            }
        # The embeddings are cut for this call alone, so the tower keeps all of its parameters.
        out = functional_call(model, shorter, (tokens,))
        return out[0] if isinstance(out, tuple) else out


def _text_part(backbone: Backbone) -> nn.Module:
    """A copy of the text tower, and of nothing else."""
    model = getattr(backbone, "model", None)
    if isinstance(getattr(model, "text", None), nn.Module):  # CustomTextCLIP and its like
        return copy.deepcopy(model.text)  # type: ignore[union-attr]
    if not isinstance(model, nn.Module) or not hasattr(model, "encode_text"):
        raise BackboneError(
            f"The text tower of {backbone.name} cannot be reached.",
            allowed="models of open_clip",
            hint="Take a method that does not train it: 'clip-adapter ls methods' tells which.",
        )
    # The text tower of a plain CLIP lies in the whole model itself: the copy has None for the rest.
    half: Any = copy.deepcopy(model, {id(getattr(model, name, None)): None for name in OTHERS})
    half.forward = half.encode_text
    return half
