"""The only normalisation of the library, and the cosine classifier built on it."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

LEAST_SCALE = 10.0
"""The least 1/tau that is taken as it stands: below it may be a logarithm (CLIP's is 4.6)."""


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


def other_readings(logit_scale: float) -> str:
    """What a doubtful ``logit_scale`` would be as something else than 1/tau; "" for one that is."""
    if not 0 < logit_scale < LEAST_SCALE:
        return ""
    logarithm = f"read as a logarithm, as CLIP keeps it, it is {math.exp(logit_scale):g}"
    return logarithm + (f", as tau {1 / logit_scale:g}" if logit_scale < 1 else "")
