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
from clip_adapter.nn.saved import filled, number

Kind = Literal["cosine", "linear"]
IMAGE_MAPS = {"residual-adapter": ResidualAdapter, "projection": Projection}
MAX_MEMBERS = 16
# The bias of a class of which nothing is known, neither picture nor text: never the answer.
ABSENT = -1e9


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
        ClassifierError: an image map that no loader knows, or a mixture of too many heads.
    """
    if isinstance(head, Mixture):
        if len(head.members) > MAX_MEMBERS:
            raise ClassifierError(
                f"A mixture of {len(head.members)} heads cannot be saved.",
                allowed=f"at most {MAX_MEMBERS}",
                hint="Leave out the heads of the smallest shares.",
            )
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
        ArithmeticError, LookupError, RuntimeError, TypeError, ValueError: the description and the
            tensors do not fit.
    """
    scale = number(config["logit_scale"], "logit_scale")
    if config["head"] == "mixture":
        members = config["members"]
        if not 1 <= len(members) <= MAX_MEMBERS:
            raise ValueError(f"a mixture of {len(members)} heads")
        if any(m["head"] == "mixture" for m in members):
            raise ValueError("a mixture of mixtures")
        heads = [build(m, _below(maps, i), _below(weights, i)) for i, m in enumerate(members)]
        return Mixture(heads, [number(m["share"], "a share") for m in members], scale)
    if config["head"] not in ("cosine", "linear"):
        raise ValueError(f"head {config['head']!r}")
    for name, tensor in {**maps, **weights}.items():
        wanted = torch.int64 if name == "cache.channels" else torch.float32
        if tensor.dtype != wanted:
            raise ValueError(f"the tensor {name} holds {tensor.dtype}, not {wanted}")
    unit, has_cache = config.get("unit", False), config.get("cache", False)
    if not isinstance(unit, bool) or not isinstance(has_cache, bool):
        raise ValueError("'unit' and 'cache' are neither true nor false")
    image_map = None
    if (told := config["image_map"]) is not None:
        kind = IMAGE_MAPS[told["kind"]]
        own = {k: v for k, v in maps.items() if not k.startswith("cache.")}
        image_map = filled(lambda: kind.from_config(told), own)
    cache = None
    if has_cache:
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
        scale,
        config["head"],
        unit=unit,
        cache=cache,
    )


def check(head: Head | Mixture, classes: int) -> None:
    """Whether all parts of ``head`` fit each other and C = ``classes``.

    Raises:
        ValueError: one does not; says which.
    """
    number(head.logit_scale, "logit_scale", lowest=0)
    _need(head.logit_scale > 0, "logit_scale is 0")
    if isinstance(head, Mixture):
        _need(len(head.shares) == len(head.members) > 0, "a mixture lacks heads or shares")
        for share, member in zip(head.shares, head.members, strict=True):
            number(share, "a share")
            check(member, classes)
        dims = sorted({member.dim for member in head.members})
        _need(len(dims) == 1, f"the heads of a mixture take features of {dims} dimensions")
        return
    _shaped("the class weights", head.weights, classes, None)
    inner = head.weights.shape[1]
    if isinstance(head.image_map, Projection):
        inner = head.image_map.matrix.shape[1]
    elif isinstance(head.image_map, ResidualAdapter):
        inner = head.image_map.dim
    _need(inner == head.weights.shape[1], f"the image map does not lead to {head.weights.shape}")
    if head.bias is not None:
        _shaped("the bias", head.bias, classes)
    if head.cache is not None:
        _check_cache(head.cache, head.dim, classes)
    for name, tensor in head.state_dict().items():
        _need(bool(tensor.isfinite().all()), f"{name} holds NaN or infinite numbers")


def _check_cache(cache: Cache, dim: int, classes: int) -> None:
    """Whether a cache takes features of ``dim`` and scores ``classes``."""
    channels = cache.channels
    if channels is not None:
        _shaped("the channels of the cache", channels, None)
        inside = bool(((channels >= 0) & (channels < dim)).all())
        _need(inside, f"the channels of the cache are not all in 0 to {dim - 1}")
    _shaped("the keys of the cache", cache.keys, None, dim if channels is None else len(channels))
    _shaped("the values of the cache", cache.values, len(cache.keys), classes)
    _shaped("the weight of the cache", cache.weight)
    _shaped("the sharpness of the cache", cache.sharpness)


def _shaped(name: str, tensor: Tensor, *sizes: int | None) -> None:
    """Raises ValueError unless ``tensor`` has these sizes; None stands for any but 0."""
    pairs = zip(tensor.shape, sizes, strict=False)
    fits = all(have > 0 and want in (None, have) for have, want in pairs)
    wanted = ", ".join("any" if size is None else str(size) for size in sizes)
    _need(
        tensor.ndim == len(sizes) and fits,
        f"the shape of {name} is {tuple(tensor.shape)}, not ({wanted})",
    )


def _need(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _below(tensors: dict[str, Tensor], member: int) -> dict[str, Tensor]:
    prefix = f"{member}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
