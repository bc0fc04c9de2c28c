"""Heads: features (N, D) to logits (N, C).

logits = logit_scale * normalize(image_map(f)) @ normalize(W).T + cache(f)       (cosine)
logits = f @ W.T + bias + cache(f)                                               (linear)
logits = sum_i weight_i * logits_i                                               (mixture)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from clip_adapter.errors import ClassifierError
from clip_adapter.nn import Cache, Projection, ResidualAdapter, cosine_logits, normalize

Kind = Literal["cosine", "linear"]
# The bias of a class of which nothing is known, neither picture nor text: never the answer.
ABSENT = -1e9
# Rows scored at once: bounds the (rows, C) scores in memory without slowing the product.
CHUNK = 4096


class Head(nn.Module):
    """Features (N, D) to logits (N, C).

    Args:
        weights: W (C, D).
        image_map: changes the features first (the visual adapter), or None.
        bias: (C,), for linear heads only.
        logit_scale: 1/tau, for cosine heads.
        kind: "cosine" or "linear".
        unit: scale the features to unit length before anything else; a cosine head without an
            image map does so anyway.
        cache: adds scores of the features as they were before ``image_map``, or None.
    """

    def __init__(
        self,
        weights: Tensor,
        image_map: nn.Module | None = None,
        bias: Tensor | None = None,
        logit_scale: float = 100.0,
        kind: Kind = "cosine",
        *,
        unit: bool = False,
        cache: Cache | None = None,
    ) -> None:
        super().__init__()
        self.image_map = image_map
        self.cache = cache
        self.kind: Kind = kind
        self.unit = unit
        self.logit_scale = float(logit_scale)
        self.weights = nn.Buffer(weights.detach().float().contiguous())
        self.bias = None if bias is None else nn.Buffer(bias.detach().float())

    @property
    def dim(self) -> int:
        """D, the size of the features it takes."""
        if isinstance(self.image_map, Projection | ResidualAdapter):
            return self.image_map.dim
        return int(self.weights.shape[1])

    @property
    def sees_length(self) -> bool:
        """Whether the length of a feature changes the order of the scores."""
        return self.kind == "linear" and not self.unit

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, C)."""
        if self.unit:
            features = normalize(features)
        mapped = features if self.image_map is None else self.image_map(features)
        if self.kind == "cosine":
            scores = cosine_logits(mapped, self.weights, self.logit_scale)
        else:
            scores = mapped @ self.weights.T
            scores = scores if self.bias is None else scores + self.bias
        return scores if self.cache is None else scores + self.cache(features)


class Mixture(nn.Module):
    """A weighted sum of the logits of several heads over the same features.

    Args:
        heads: at least one, all of the same D and C; a mixture among them is taken apart.
        shares: their weights.
        logit_scale: 1/tau of the backbone, for the comparison with zero-shot.
    """

    def __init__(
        self,
        heads: Sequence[Head | Mixture],
        shares: Sequence[float],
        logit_scale: float = 100.0,
    ) -> None:
        super().__init__()
        self.heads, self.shares = nn.ModuleList(), list[float]()
        for head, share in zip(heads, shares, strict=True):
            mixed = isinstance(head, Mixture)
            self.heads.extend(head.members if mixed else [head])
            self.shares += [float(share) * own for own in (head.shares if mixed else [1.0])]
        self.logit_scale = float(logit_scale)

    @property
    def members(self) -> list[Head]:
        """The heads, in order."""
        return [cast("Head", head) for head in self.heads]

    @property
    def dim(self) -> int:
        """D, the size of the features it takes."""
        return self.members[0].dim

    @property
    def sees_length(self) -> bool:
        """Whether the length of a feature changes the order of the scores."""
        return any(head.sees_length for head in self.members)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, C)."""
        return torch.stack(
            [share * head(features) for share, head in zip(self.shares, self.members, strict=True)]
        ).sum(0)


@torch.inference_mode()
def score_rows(head: Head | Mixture, features: Tensor, feature_norm: str) -> Tensor:
    """(N, C) scores of features (N, D), which are scaled to unit length for a head of "unit"."""
    if feature_norm == "unit":
        features = normalize(features)
    return torch.cat(
        [head(features[i : i + CHUNK]) for i in range(0, max(len(features), 1), CHUNK)]
    )


def check_numbers(head: Head | Mixture, tower_adapter: nn.Module | None = None) -> None:
    """Check that all that was learnt is a number.

    Raises:
        ClassifierError: NaN or infinite numbers, or scales and shares with which no score is one.
    """
    learnt = nn.ModuleList([head] if tower_adapter is None else [head, tower_adapter])
    if not all(bool(t.isfinite().all()) for t in learnt.state_dict().values()):
        raise ClassifierError(
            "The classifier holds NaN or infinite numbers: its training diverged, or an option "
            "is out of any useful range.",
            hint="Fit it again with milder options; where the method has a learning rate, a "
            "lower one (-o lr=...).",
        )
    scales = [one.logit_scale for one in learnt.modules() if isinstance(one, Head | Mixture)]
    shares = head.shares if isinstance(head, Mixture) else []
    if not (all(math.isfinite(s) and s > 0 for s in scales) and all(map(math.isfinite, shares))):
        raise ClassifierError(
            f"Logit scales {scales}, shares {shares}.",
            allowed="finite scales above 0, and finite shares",
            hint="The logit scale is that of the backbone, 100 for OpenAI's CLIP.",
        )
