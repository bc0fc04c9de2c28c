"""How heads are described to be saved, and built again from the description and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, Field, TypeAdapter
from torch import Tensor

from clip_adapter.errors import ClassifierError
from clip_adapter.heads import Head, Kind, Mixture
from clip_adapter.nn import Cache, Projection, ResidualAdapter
from clip_adapter.nn.saved import MAX_FLOAT, filled

IMAGE_MAPS = {"residual-adapter": ResidualAdapter, "projection": Projection}
CACHE = ("keys", "values", "weight", "sharpness")
MAX_MEMBERS = 16

Tensors = dict[str, Tensor]
Scale = Annotated[float, Field(gt=0, le=MAX_FLOAT)]


class SavedHead(BaseModel, strict=True):
    """What is saved of a :class:`~clip_adapter.heads.Head`, but for its tensors."""

    head: Kind
    logit_scale: Scale
    image_map: dict[str, Any] | None
    unit: bool = False
    cache: bool = False


class SavedMember(SavedHead, strict=True):
    """A head in a mixture, and its share."""

    share: Annotated[float, Field(ge=-MAX_FLOAT, le=MAX_FLOAT)]


class SavedMixture(BaseModel, strict=True):
    """What is saved of a :class:`~clip_adapter.heads.Mixture`."""

    head: Literal["mixture"]
    logit_scale: Scale
    members: Annotated[list[SavedMember], Field(min_length=1, max_length=MAX_MEMBERS)]


SAVED = TypeAdapter(Annotated[SavedHead | SavedMixture, Field(discriminator="head")])


def describe(head: Head | Mixture) -> tuple[dict[str, Any], Tensors, Tensors]:
    """(configuration as JSON types, tensors of maps and caches, tensors of class weights).

    Raises:
        ClassifierError: an image map that no loader knows.
    """
    if isinstance(head, Mixture):
        parts = [describe(member) for member in head.members]
        members = [{**c, "share": s} for (c, _, _), s in zip(parts, head.shares, strict=True)]
        config = {"head": "mixture", "logit_scale": head.logit_scale, "members": members}
        maps = {f"{i}.{k}": v for i, (_, m, _) in enumerate(parts) for k, v in m.items()}
        weights = {f"{i}.{k}": v for i, (_, _, w) in enumerate(parts) for k, v in w.items()}
        return config, maps, weights
    maps, image_map = {}, None
    if head.image_map is not None:
        kinds = {cls: kind for kind, cls in IMAGE_MAPS.items()}
        if type(head.image_map) not in kinds:
            raise ClassifierError(
                f"An image map of type {type(head.image_map).__name__} cannot be saved.",
                allowed=", ".join(IMAGE_MAPS),
            )
        known = cast("ResidualAdapter | Projection", head.image_map)
        image_map = {"kind": kinds[type(known)], **known.config()}
        maps |= known.state_dict()
    if head.cache is not None:
        maps |= {f"cache.{k}": v for k, v in head.cache.state_dict().items()}
    weights = {"weights": head.weights} | ({} if head.bias is None else {"bias": head.bias})
    config = {
        "head": head.kind,
        "logit_scale": head.logit_scale,
        "image_map": image_map,
        "unit": head.unit,
        "cache": head.cache is not None,
    }
    return config, _copies(maps), _copies(weights)


def _copies(tensors: Mapping[str, Tensor]) -> Tensors:
    """Members of a mixture may share their weights, which a file of tensors must not."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def build(config: Any, maps: Tensors, weights: Tensors, classes: int) -> Head | Mixture:
    """The head over C = ``classes`` that :func:`describe` described; all its parts fit.

    Raises:
        ArithmeticError, LookupError, RuntimeError, TypeError, ValueError: the description and the
            tensors do not fit.
    """
    saved = SAVED.validate_python(config)
    if isinstance(saved, SavedHead):
        return _head(saved, maps, weights, classes)
    heads = [
        _head(member, _below(maps, i), _below(weights, i), classes)
        for i, member in enumerate(saved.members)
    ]
    if len({head.dim for head in heads}) > 1:
        raise ValueError("the heads of a mixture take features of several dimensions")
    return Mixture(heads, [member.share for member in saved.members], saved.logit_scale)


def _below(tensors: Tensors, member: int) -> Tensors:
    prefix = f"{member}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _head(saved: SavedHead, maps: Tensors, weights: Tensors, classes: int) -> Head:
    for name, tensor in {**maps, **weights}.items():
        wanted = torch.int64 if name == "cache.channels" else torch.float32
        if tensor.dtype != wanted:
            raise ValueError(f"the tensor {name} holds {tensor.dtype}, not {wanted}")
    image_map = cache = None
    if (config := saved.image_map) is not None:
        kind = IMAGE_MAPS[config["kind"]]
        own = {k: v for k, v in maps.items() if not k.startswith("cache.")}
        image_map = filled(lambda: kind.from_config(config), own)
    if saved.cache:
        keys, values, weight, sharpness = (maps[f"cache.{name}"] for name in CACHE)
        cache = Cache(keys, values, weight, sharpness, maps.get("cache.channels"))
    head = Head(
        weights["weights"],
        image_map,
        weights.get("bias"),
        saved.logit_scale,
        saved.head,
        unit=saved.unit,
        cache=cache,
    )
    _check(head, classes)
    return head


def _check(head: Head, classes: int) -> None:
    """Check that all parts of ``head`` fit each other and C = ``classes``.

    Raises:
        ValueError: one does not; says which.
    """
    image_map, cache = head.image_map, head.cache
    inner = image_map.matrix.shape[1] if isinstance(image_map, Projection) else head.dim
    shapes: dict[str, tuple[int, ...]] = {"weights": (classes, inner), "bias": (classes,)}
    if cache is not None:
        rows, channels = len(cache.keys), cache.channels
        if channels is not None and not bool(((channels >= 0) & (channels < head.dim)).all()):
            raise ValueError(f"the channels of the cache are not all in 0 to {head.dim - 1}")
        columns = head.dim if channels is None else len(channels)
        shapes |= {
            "cache.channels": (columns,),
            "cache.keys": (rows, columns),
            "cache.values": (rows, classes),
            "cache.weight": (),
            "cache.sharpness": (),
        }
    for name, tensor in head.state_dict().items():
        if shapes.get(name, tensor.shape) != tensor.shape or 0 in tensor.shape:
            raise ValueError(f"the shape of {name} is {tuple(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinite numbers")
