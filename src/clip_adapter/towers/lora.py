"""Low-rank changes of the query, key and value matrices of transformer blocks.

    x W.T becomes x W.T + s drop(x) A.T B.T       s = alpha / sqrt(rank), for each of q, k and v

Source: Zanella and Ben Ayed, "Low-Rank Few-Shot Adaptation of Vision-Language Models", 2024 (arXiv
2405.18541), section 3. From their repository (MaxZanella/CLIP-LoRA): the scale with the root of the
rank, a dropout of its own for each matrix, and A's start, which is that of a linear layer.

``peft`` is not used, see docs/decisions/0004-lora-without-peft.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from clip_adapter.errors import BackboneError
from clip_adapter.nn import linear_init
from clip_adapter.nn.saved import MAX_FLOAT
from clip_adapter.towers.base import MAX_BLOCKS, TowerAdapter, register_tower_adapter
from clip_adapter.towers.sites import transformer_blocks

MATRICES = 3  # query, key and value, in the order of torch's fused in_proj_weight


class LowRank(nn.Module):
    """What is trained of one block: 6 * rank * W numbers. It says zero at first, for B is zero.

    Args:
        width: W.
        rank: r.
        alpha: the numerator of the scale.
        dropout: share of the inputs that are dropped while training.
        generator: of the random start.
    """

    def __init__(
        self,
        width: int,
        rank: int,
        alpha: float,
        dropout: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.dropout = alpha / math.sqrt(rank), dropout
        # three starts of a linear layer, drawn one after the other
        starts = linear_init((MATRICES * rank, width), width, generator)
        self.a = nn.Parameter(starts.view(MATRICES, rank, width))
        self.b = nn.Parameter(torch.zeros(MATRICES, width, rank))

    def delta(self) -> Tensor:
        """S B A for each matrix, (3 W, W), to be added to the fused weight."""
        return self.scale * (self.b @ self.a).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """S drop(x) A.T B.T for each matrix: (..., W) -> (..., 3 W)."""
        # from the global generator, which the training loop seeds at every step
        dropped = [F.dropout(x, self.dropout, self.training) for _ in range(MATRICES)]
        parts = [d @ a.T @ b.T for d, a, b in zip(dropped, self.a, self.b, strict=True)]
        return self.scale * torch.cat(parts, dim=-1)


class LoraAttention(nn.Module):
    """A frozen self-attention with a low-rank change.

    Without dropout the change is merged into the weight for the call, and torch's own attention
    runs, kernel by kernel: with B = 0 not a bit differs. Dropout acts on the input of A alone,
    which no change of weights can express, so with it the attention is computed here.
    """

    def __init__(self, attention: nn.MultiheadAttention, low_rank: LowRank) -> None:
        super().__init__()
        self.attention, self.low_rank = attention, low_rank

    def forward(self, x: Tensor, *others: Tensor, **options: Any) -> tuple[Tensor, None]:
        """The call of ``nn.MultiheadAttention`` on itself: (..., W) -> ((..., W), None)."""
        drops = self.low_rank.training and self.low_rank.dropout > 0
        return (self.unmerged if drops else self.merged)(x, options.get("attn_mask")), None

    def merged(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """W + s B A in the place of W."""
        return functional_call(
            self.attention,
            {"in_proj_weight": self.attention.in_proj_weight + self.low_rank.delta()},
            (x, x, x),
            {"need_weights": False, "attn_mask": attn_mask},
        )[0]

    def unmerged(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """W and s B A apart, with dropout before A while training."""
        base = self.attention
        x = x if base.batch_first else x.transpose(0, 1)
        fused = F.linear(x, base.in_proj_weight, base.in_proj_bias) + self.low_rank(x)
        # (B, L, 3 W) -> three of (B, heads, L, W / heads)
        heads = fused.unflatten(-1, (MATRICES, base.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # in mixed precision the mask comes in another format than what it is added to
        mask = None if attn_mask is None else attn_mask.to(fused.dtype)
        mixed = F.scaled_dot_product_attention(*heads.unbind(0), attn_mask=mask)
        out = base.out_proj(mixed.transpose(1, 2).flatten(2))
        return out if base.batch_first else out.transpose(0, 1)


@register_tower_adapter
class Lora(TowerAdapter):
    """Low-rank changes in all blocks of a transformer, visual or text.

    Args:
        blocks: how many it has.
        width: W.
        rank: r.
        alpha: the numerator of the scale.
        dropout: share of A's inputs that are dropped while training.
        generator: of the random start.
    """

    kind = "lora"

    def __init__(
        self,
        blocks: int,
        width: int,
        rank: int = 2,
        alpha: float = 1.0,
        dropout: float = 0.25,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(blocks=blocks, width=width, rank=rank, alpha=alpha, dropout=dropout)
        if not (0 < blocks <= MAX_BLOCKS and 0 <= alpha <= MAX_FLOAT and 0 <= dropout <= 1):
            raise ValueError(
                f"{blocks} blocks, alpha {alpha} and dropout {dropout} are not in 1 to "
                f"{MAX_BLOCKS}, 0 to {MAX_FLOAT:g} and 0 to 1"
            )
        self.parts: Any = nn.ModuleList(
            LowRank(width, rank, alpha, dropout, generator) for _ in range(blocks)
        )

    @classmethod
    def for_blocks(
        cls,
        blocks: list[nn.Module],
        rank: int = 2,
        alpha: float = 1.0,
        dropout: float = 0.25,
        generator: torch.Generator | None = None,
    ) -> Lora:
        """An untrained change that fits ``blocks``.

        Raises:
            BackboneError: their attention is of another kind than open_clip's standard one.
        """
        return cls(len(blocks), _attentions(blocks)[0].embed_dim, rank, alpha, dropout, generator)

    def attach(self, visual: nn.Module) -> None:  # noqa: D102
        self.attach_to(transformer_blocks(visual, "A low-rank change"))

    def attach_to(self, blocks: list[nn.Module]) -> None:
        """Put this into ``blocks``, of a copy of a tower, for good.

        Raises:
            BackboneError: their number, their width or the kind of their attention is another.
        """
        attentions, own = _attentions(blocks), self.settings
        if (own["blocks"], own["width"]) != (len(blocks), attentions[0].embed_dim):
            raise BackboneError(
                f"Low-rank changes of {own['blocks']} blocks of width {own['width']} do not fit a "
                f"tower of {len(blocks)} blocks of width {attentions[0].embed_dim}.",
                hint="Take the backbone that they were made for.",
            )
        for block, attention, part in zip(blocks, attentions, self.parts, strict=True):
            block.attn = LoraAttention(attention, part)


def _attentions(blocks: list[nn.Module]) -> list[nn.MultiheadAttention]:
    """The attention of each block.

    Raises:
        BackboneError: one is of another kind.
    """
    every = [getattr(block, "attn", None) for block in blocks]
    known = [a for a in every if isinstance(a, nn.MultiheadAttention)]
    if not known or len(known) < len(every) or any(a.in_proj_weight is None for a in known):
        raise BackboneError(
            "The blocks of this backbone have an attention of another kind.",
            allowed="open_clip's standard blocks, such as those of ViT-B-32/openai",
        )
    return known
