"""How heads are described to be saved, and built again from the description and tensors."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from clip_adapter.errors import ClassifierError
from clip_adapter.heads import Head, Mixture
from clip_adapter.nn import Cache, Projection, ResidualAdapter
from clip_adapter.nn.saved import filled, number

IMAGE_MAPS = {"residual-adapter": ResidualAdapter, "projection": Projection}
MAX_MEMBERS = 16


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
