"""Heads: features (N, D) to logits (N, C), and how they are described to be saved.

logits = logit_scale * normalize(image_map(f)) @ normalize(W).T + cache(f)       (cosine)
logits = f @ W.T + bias + cache(f)                                               (linear)
logits = sum_i weight_i * logits_i                                               (mixture)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from clip_adapter.errors import ClassifierError
from clip_adapter.nn import Cache, Projection, ResidualAdapter, cosine_logits, normalize

Kind = Literal["cosine", "linear"]
IMAGE_MAPS = {"residual-adapter": ResidualAdapter, "projection": Projection}
MAX_MEMBERS = 16


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

    weights: Tensor
    bias: Tensor | None

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
        self.register_buffer("weights", weights.detach().float().contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach().float())

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
        heads: at least one, all of the same D and C.
        shares: their weights.
        logit_scale: 1/tau of the backbone, for the comparison with zero-shot.
    """

    def __init__(
        self, heads: Sequence[Head], shares: Sequence[float], logit_scale: float = 100.0
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.shares = [float(s) for s in shares]
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
        scores = [s * h(features) for s, h in zip(self.shares, self.members, strict=True)]
        return torch.stack(scores).sum(0)


def describe(head: Head | Mixture) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """(configuration as JSON types, tensors of maps and caches, tensors of class weights).

    Raises:
        ClassifierError: an image map that no loader knows.
    """
    if isinstance(head, Mixture):
        parts = [describe(h) for h in head.members]
        config: dict[str, Any] = {
            "head": "mixture",
            "logit_scale": head.logit_scale,
            "members": [{**c, "share": s} for (c, _, _), s in zip(parts, head.shares, strict=True)],
        }
        maps = {f"{i}.{k}": v for i, (_, m, _) in enumerate(parts) for k, v in m.items()}
        weights = {f"{i}.{k}": v for i, (_, _, w) in enumerate(parts) for k, v in w.items()}
        return config, maps, weights
    maps = {}
    image_map = None
    if head.image_map is not None:
        kinds = {cls: kind for kind, cls in IMAGE_MAPS.items()}
        if type(head.image_map) not in kinds:
            raise ClassifierError(
                f"An image map of type {type(head.image_map).__name__} cannot be saved.",
                allowed=", ".join(IMAGE_MAPS),
            )
        known = cast("ResidualAdapter | Projection", head.image_map)
        image_map = {"kind": kinds[type(known)], **known.config()}
        maps.update({k: v.clone() for k, v in known.state_dict().items()})
    if head.cache is not None:
        maps.update({f"cache.{k}": v.clone() for k, v in head.cache.state_dict().items()})
    # Copies: members of a mixture may share their weights, which a file of tensors must not.
    weights = {"weights": head.weights.clone()}
    if head.bias is not None:
        weights["bias"] = head.bias.clone()
    config = {
        "head": head.kind,
        "logit_scale": head.logit_scale,
        "image_map": image_map,
        "unit": head.unit,
        "cache": head.cache is not None,
    }
    return config, maps, weights


def build(config: dict[str, Any], maps: dict[str, Tensor], weights: dict[str, Tensor]) -> Any:
    """The head that :func:`describe` described, a :class:`Head` or a :class:`Mixture`.

    Raises:
        ValueError, KeyError, RuntimeError: the description and the tensors do not fit.
    """
    if config["head"] == "mixture":
        members = config["members"]
        if not 1 <= len(members) <= MAX_MEMBERS:
            raise ValueError(f"a mixture of {len(members)} heads")
        heads = [build(m, _below(maps, i), _below(weights, i)) for i, m in enumerate(members)]
        if any(isinstance(h, Mixture) for h in heads) or len({h.weights.shape for h in heads}) > 1:
            raise ValueError("a mixture of heads that do not fit")
        return Mixture(heads, [m["share"] for m in members], config["logit_scale"])
    if config["head"] not in ("cosine", "linear"):
        raise ValueError(f"head {config['head']!r}")
    image_map = None
    if config["image_map"] is not None:
        image_map = IMAGE_MAPS[config["image_map"]["kind"]].from_config(config["image_map"])
        image_map.load_state_dict({k: v for k, v in maps.items() if not k.startswith("cache.")})
    cache = None
    if config.get("cache"):
        cache = Cache(
            maps["cache.keys"],
            maps["cache.values"],
            maps["cache.weight"],
            maps["cache.sharpness"],
            maps.get("cache.channels"),
        )
    return Head(
        weights["weights"],
        image_map,
        weights.get("bias"),
        config["logit_scale"],
        config["head"],
        unit=bool(config.get("unit")),
        cache=cache,
    )


def _below(tensors: dict[str, Tensor], member: int) -> dict[str, Tensor]:
    prefix = f"{member}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
