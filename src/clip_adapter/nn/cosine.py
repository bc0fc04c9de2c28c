"""The only normalisation of the library, and the cosine classifier built on it with its weights.

    logits = logit_scale * normalize(f) @ normalize(W).T          (CLIP-Adapter, equation 1)
    W = L T + s x        T of unit length (C, D), x (R, C, D) starts at zero

Source of the second: TaskRes (Yu et al. 2023, arXiv 2211.10277). A linear probe that starts at the
zero-shot weights (CLAP, Silva-Rodriguez et al. 2024, arXiv 2312.12730) is the same with s = 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# L. Published learning rates are for text features as CLIP makes them, which are not of unit
# length: a step of one size turns a long vector less. 8.7 is their mean length over ImageNet's
# class names with OpenAI's ViT-B/32; here text weights have length 1, so they are stretched again.
RAW_LENGTH = 8.7

# The least 1/tau that is taken as it stands: below it may be a logarithm (CLIP's is 4.6).
LEAST_SCALE = 10.0
# The most: training CLIP clips it at 100, and SigLIP's is about 118.
MOST_SCALE = 1000.0


def normalize(x: Tensor) -> Tensor:
    """Rows of ``x`` (..., D) scaled to unit length; a zero row stays zero."""
    return F.normalize(x, dim=-1, eps=1e-12)


def cosine_logits(features: Tensor, weights: Tensor, logit_scale: float | Tensor) -> Tensor:
    """``logit_scale * normalize(features) @ normalize(weights).T``: (..., N, C).

    Args:
        features: (..., N, D), any length.
        weights: (C, D) or (..., C, D), any length.
        logit_scale: 1/tau, about 100 for CLIP.
    """
    return logit_scale * normalize(features) @ normalize(weights).transpose(-1, -2)


def scale_doubt(logit_scale: float) -> str:
    """Why a ``logit_scale`` is hardly 1/tau, and what else it may be; "" for one that is."""
    if MOST_SCALE < logit_scale < math.inf:
        return "as 1/tau that leaves hardly a probability but 0 and 1; CLIP's is 100, SigLIP's 118"
    if not 0 < logit_scale < LEAST_SCALE:
        return ""
    doubt = "as 1/tau that leaves all classes nearly alike; read as a logarithm, as CLIP keeps it, "
    doubt += f"it is {math.exp(logit_scale):g}"
    return doubt + (f", as tau {1 / logit_scale:g}" if logit_scale < 1 else "")


class TextResidual(nn.Module):
    """A residual for the classes that have pictures; the others keep their text weights.

    Args:
        text: (C, D), any length.
        labels: (N,) of the shots: which classes have pictures.
        scale: s, one number or one per run (R, 1, 1).
        runs: R independent copies.
    """

    def __init__(
        self, text: Tensor, labels: Tensor, scale: float | Tensor = 1.0, runs: int = 1
    ) -> None:
        super().__init__()
        self._text = nn.Buffer(RAW_LENGTH * normalize(text), persistent=False)
        size = torch.bincount(labels, minlength=len(text))
        self._scale = nn.Buffer(scale * (size > 0).to(text.dtype)[:, None], persistent=False)
        self.residual = nn.Parameter(torch.zeros(runs, *text.shape, dtype=text.dtype))

    def class_weights(self) -> Tensor:
        """W (R, C, D)."""
        return self._text + self._scale * self.residual

    def forward(self, features: Tensor) -> Tensor:
        """(R, B, D) of any length -> cosines (R, B, C)."""
        return normalize(features) @ normalize(self.class_weights()).transpose(-1, -2)
