"""The only normalisation of the library, and the cosine classifier built on it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def normalize(x: Tensor) -> Tensor:
    """Rows of ``x`` (..., D) scaled to unit length; a zero row stays zero."""
    return F.normalize(x, dim=-1, eps=1e-12)


def cosine_logits(features: Tensor, weights: Tensor, logit_scale: float | Tensor) -> Tensor:
    """``logit_scale * normalize(features) @ normalize(weights).T``.

    Args:
        features: (..., N, D), any length.
        weights: (C, D) or (..., C, D), any length.
        logit_scale: 1/tau, about 100 for CLIP.

    Returns:
        (..., N, C). Source: CLIP-Adapter, equation 1.
    """
    return logit_scale * normalize(features) @ normalize(weights).transpose(-1, -2)
