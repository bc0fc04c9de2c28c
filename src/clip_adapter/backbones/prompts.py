"""Token embeddings through a frozen open_clip text tower, with gradients.

The tower's own forward pass is run on a shallow copy whose first layer answers with the embeddings:
every weight is shared, nothing can differ, and the tower itself is left untouched.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

# Texts that share one copy of their beginning. More save little and make the attention longer.
PACK = 16


def _pool_name(tower: Any) -> str:
    return "text_pool_type" if hasattr(tower, "text_pool_type") else "pool_type"


def reads_back(tower: Any) -> bool:
    """Whether no token sees a later one, and a text's feature is that of its end."""
    return (
        isinstance(getattr(tower, "attn_mask", None), Tensor)
        and getattr(tower, _pool_name(tower), None) == "argmax"
        and getattr(tower, "cls_emb", None) is None
    )


def _like(tower: Any, given: Tensor, positions: Tensor, mask: Tensor | None) -> Any:
    """``tower`` with ``given`` (B, L, W) as its embeddings, and these positions and mask."""

    def embed(_: Tensor) -> Tensor:
        return given

    other = copy.copy(tower)
    other._modules = {**tower._modules, "token_embedding": embed}
    other._parameters = {**tower._parameters, "positional_embedding": positions}
    if mask is not None:
        other._buffers = {**tower._buffers, "attn_mask": mask}
    return other


def _run(tower: Any, tokens: Tensor) -> Tensor:
    return getattr(tower, "encode_text", tower)(tokens)


def row_by_row(tower: Any, given: Tensor, tokens: Tensor, shared: int = 0) -> Tensor:
    """Features (B, D) of embeddings (B, L, W), each row by itself."""
    length = tokens.shape[1]
    mask = tower._buffers.get("attn_mask")
    mask = None if mask is None else mask[:length, :length]
    return _run(_like(tower, given, tower.positional_embedding[:length], mask), tokens)


def packed(tower: Any, given: Tensor, tokens: Tensor, shared: int) -> Tensor:
    """The same where the first ``shared`` embeddings are common: their work is done once a pack.

    A pack is one row: the common beginning, then the rests of ``PACK`` texts, each of which sees
    the beginning and itself alone, at the positions that it has in its own text.
    """
    texts, length = tokens.shape
    rest, size = length - shared, min(PACK, texts)
    packs = -(-texts // size)
    index = torch.arange(packs * size, device=given.device).clamp(max=texts - 1)
    rests = given[index, shared:].reshape(packs, size * rest, -1)
    rows = torch.cat([given[:1, :shared].expand(packs, -1, -1), rests], dim=1)
    place = torch.cat([torch.arange(shared), torch.arange(shared, length).repeat(size)])
    owner = torch.cat([torch.full((shared,), -1), torch.arange(size).repeat_interleave(rest)])
    seen = (owner == -1) | (owner == owner[:, None])
    seen &= place <= place[:, None]
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf")).to(tower.attn_mask)
    other = _like(tower, rows, tower.positional_embedding[place.to(given.device)], mask)
    setattr(other, _pool_name(tower), "none")
    features = _run(other, torch.zeros(rows.shape[:2], dtype=torch.long, device=given.device))
    number = torch.arange(texts, device=given.device)
    ends = shared + (number % size) * rest + tokens.argmax(-1) - shared
    return features[number // size, ends]
