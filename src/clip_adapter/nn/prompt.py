"""Learnable prompts: M context vectors in the place of words, around the name of each class.

    end:     [SOS] [V]1 ... [V]M [class] [.] [EOT]
    middle:  [SOS] [V]1 ... [V]M/2 [class] [V]M/2+1 ... [V]M [.] [EOT]
    front:   [SOS] [class] [V]1 ... [V]M [.] [EOT]

Source: Zhou et al. 2022 (arXiv 2109.01134), section 3.2; the full stop and the first, smaller half
of an odd M are those of the released code (KaiyangZhou/CoOp, trainers/coop.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clip_adapter.errors import UsageError

Position = Literal["end", "middle", "front"]
Tokenize = Callable[[list[str]], Tensor]

# Its token stands where a context vector goes; the vector takes the place of its embedding.
PLACEHOLDER = "X"


@dataclass(frozen=True)
class Frame:
    """What a tokenizer puts around the words of a text.

    Attributes:
        start: ids before them, such as [SOS].
        end: ids after them, such as [EOT].
        padding: the id that fills a row.
        length: L, ids of a row.
    """

    start: list[int]
    end: list[int]
    padding: int
    length: int

    @classmethod
    def of(cls, tokenize: Tokenize) -> Frame:
        """The frame of ``tokenize``: texts (B) -> ids (B, L)."""
        empty, word = tokenize(["", "a"]).tolist()
        bare = _unpadded(empty, empty[-1])
        starts = int(word[:1] == bare[:1])
        return cls(bare[:starts], bare[starts:], empty[-1], len(empty))

    def words(self, row: list[int]) -> list[int]:
        """The ids of ``row`` (L) without the frame."""
        bare = _unpadded(row, self.padding)
        return bare[len(self.start) : len(bare) - len(self.end)]


def _unpadded(row: list[int], padding: int) -> list[int]:
    return row[: max((i + 1 for i, token in enumerate(row) if token != padding), default=0)]


def context_tokens(tokenize: Tokenize, context: int | str) -> list[int]:
    """M token ids: of the words ``context``, or ``context`` times that of a placeholder.

    Raises:
        UsageError: no word.
    """
    text = PLACEHOLDER if isinstance(context, int) else context
    tokens = Frame.of(tokenize).words(tokenize([text]).tolist()[0])
    if not tokens:
        raise UsageError(f"context_init = {context!r} holds no word.", allowed="'a photo of a'")
    return tokens[:1] * context if isinstance(context, int) else tokens


def lay_out(
    tokenize: Tokenize, class_names: Sequence[str], context: Sequence[int], position: Position
) -> tuple[Tensor, Tensor]:
    """The prompts of C classes, token by token.

    Args:
        tokenize: texts (B) -> ids (B, L).
        class_names: C names.
        context: M ids that stand where the context goes.
        position: of the class name.

    Returns:
        Ids (C, L), and the columns (C, M) of the context in them.

    Raises:
        UsageError: a prompt is longer than L.
    """
    frame = Frame.of(tokenize)
    before = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
    # The full stop is told from the name by what it adds to it.
    names = tokenize(list(class_names)).tolist()
    closed = tokenize([f"{name}." for name in class_names]).tolist()
    ids, columns = [], []
    for class_name, name_row, closed_row in zip(class_names, names, closed, strict=True):
        words, length = frame.words(closed_row), len(frame.words(name_row))
        middle = [*context[:before], *words[:length], *context[before:], *words[length:]]
        row = [*frame.start, *middle, *frame.end]
        if len(row) > frame.length:
            raise UsageError(
                f"The class {class_name!r} and {len(context)} context tokens make {len(row)} "
                f"tokens or more; the text tower takes {frame.length}.",
                hint="Take a smaller context_length, or give the class a shorter name "
                "(--class-names).",
            )
        ids.append(row + [frame.padding] * (frame.length - len(row)))
        columns.append([len(frame.start) + i + length * (i >= before) for i in range(len(context))])
    return torch.tensor(ids), torch.tensor(columns)


def common_start(tokens: Tensor, columns: Tensor) -> int:
    """How many leading tokens all C prompts have in common, where the context is shared.

    Args:
        tokens: ids (C, L).
        columns: (C, M) of the context.
    """
    context = torch.zeros(tokens.shape, dtype=torch.bool).scatter(1, columns, True)
    same = ((tokens == tokens[0]) & (context == context[0])).all(0)
    return int(same.cumprod(0).sum())


class SoftPrompts(nn.Module):
    """Token embeddings of C prompts whose context is trained.

    Args:
        embedded: (C, L, W), of the whole prompts.
        columns: (C, M), where the context stands in them.
        context: (M, W), shared by the classes, or (C, M, W); the start.
    """

    def __init__(self, embedded: Tensor, columns: Tensor, context: Tensor) -> None:
        super().__init__()
        self.context = nn.Parameter(context.detach().clone())
        self.embedded = nn.Buffer(embedded.detach())
        self.columns = nn.Buffer(columns[..., None].expand(*columns.shape, context.shape[-1]))

    def forward(self) -> Tensor:
        """(C, L, W)."""
        return self.embedded.scatter(1, self.columns, self.context.expand_as(self.columns))
