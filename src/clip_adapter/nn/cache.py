"""The cache term of Tip-Adapter: the shots as keys, their labels as values.

    logits += a exp(-b (1 - f F^T)) V

Source: Zhang et al. 2022 (arXiv 2111.03930), section 3.1. With ``channels`` the affinity is taken
on some channels only, as in APE (Zhu et al. 2023, arXiv 2304.01195).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_adapter.nn.cosine import normalize


class Cache(nn.Module):
    """Features (..., B, D) to scores (..., B, C).

    Args:
        keys: F (..., n, d), of any length; d is D, or the number of ``channels``.
        values: V (n, C) or (..., n, C): one-hot labels, weighted ones, or zero rows for pictures
            that are to be left out.
        weight: a >= 0, the cache weight; one number, or one per run (...).
        sharpness: b > 0; one number, or one per run (...).
        channels: indices (d,) of the channels to compare, or None for all.
    """

    weight: Tensor
    sharpness: Tensor
    values: Tensor
    channels: Tensor | None

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        weight: float | Tensor = 1.0,
        sharpness: float | Tensor = 5.5,
        channels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.keys = nn.Parameter(keys.detach().float().clone())
        self.register_buffer("values", values.detach().float().clone())
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float32))
        self.register_buffer("sharpness", torch.as_tensor(sharpness, dtype=torch.float32))
        self.register_buffer("channels", None if channels is None else channels.long())

    def forward(self, features: Tensor) -> Tensor:
        """Scores to add to the logits; ``features`` may have any length."""
        seen = features if self.channels is None else features[..., self.channels]
        affinity = normalize(seen) @ normalize(self.keys).transpose(-1, -2)
        sharpness = self.sharpness[..., None, None]
        near = torch.exp(-sharpness * (1 - affinity))
        return self.weight[..., None, None] * (near @ self.values)
