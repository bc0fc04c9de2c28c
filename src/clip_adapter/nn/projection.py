"""A trained projection of features of the tower's trunk into CLIP's joint space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_adapter.nn.saved import whole


class Projection(nn.Module):
    """``(..., B, trunk) -> (..., B, D)``: ``x @ matrix + bias``.

    Args:
        matrix: (trunk, D), the start.
        bias: (D,), or None for none (vision transformers have none); it is not trained.
    """

    def __init__(self, matrix: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.detach().float().clone())
        self.bias = None if bias is None else nn.Buffer(bias.detach().float().clone())

    @property
    def dim(self) -> int:
        """Size of the features that it takes."""
        return int(self.matrix.shape[-2])

    def forward(self, x: Tensor) -> Tensor:
        """Projected rows."""
        y = x @ self.matrix
        return y if self.bias is None else y + self.bias

    def config(self) -> dict[str, int | str]:
        """What :meth:`from_config` needs to build the same module, without its weights."""
        trunk, dim = self.matrix.shape[-2:]
        return {"trunk": int(trunk), "dim": int(dim), "bias": int(self.bias is not None)}

    @classmethod
    def from_config(cls, config: dict[str, int | str]) -> Projection:
        """The module that :meth:`config` described, to be made by :func:`saved.filled`.

        Raises:
            KeyError, ValueError: no such sizes.
        """
        trunk = whole(config["trunk"], "the input of a projection")
        dim = whole(config["dim"], "the output of a projection")
        return cls(torch.zeros(trunk, dim), torch.zeros(dim) if config["bias"] else None)
