"""The files of a classifier: safetensors and JSON, never pickle.

classifier.json          class names, resolved configuration, versions, fingerprint
adapter.safetensors      what changes the image feature, and caches (absent where there is none)
tower.safetensors        what was trained inside the visual tower (absent where nothing was)
class_weights.safetensors  W, bias, and the zero-shot text weights
seen.json                digests of the training pictures (absent in classifiers of old)
README.md                a model card made from the run

``classifier.json`` has the SHA-256 of all others, and none of its own: class names and the record
of the run can be changed in it, and nothing tells.

Tensors have the names of the head's state dict, without ``image_map.``; those of a mixture begin
with the number of the member.
"""

from __future__ import annotations

import functools
import hashlib
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from safetensors.torch import load, save
from torch import Tensor

from clip_adapter.classifier.model_card import model_card
from clip_adapter.errors import ClassifierError, ClipAdapterError
from clip_adapter.features.feature_set import FeatureNorm
from clip_adapter.heads import Head, Kind, Mixture
from clip_adapter.nn import Cache, Projection, ResidualAdapter
from clip_adapter.nn.saved import MAX_FLOAT, filled
from clip_adapter.paths import CONFIG
from clip_adapter.towers import TowerAdapter, build_tower_adapter, describe_tower_adapter
from clip_adapter.wording import located

FORMAT = 1
SEEN, CARD = "seen.json", "README.md"
ADAPTER, TOWER, WEIGHTS = TENSORS = (
    "adapter.safetensors",
    "tower.safetensors",
    "class_weights.safetensors",
)
# What has to fit ``classifier.json``; a model card is for people.
PARTS = (*TENSORS, SEEN)
FILES = (CONFIG, *PARTS, CARD)
IMAGE_MAPS = {"residual-adapter": ResidualAdapter, "projection": Projection}
MAX_MEMBERS = 16

Files = dict[str, bytes]
Tensors = dict[str, Tensor]
Scale = Annotated[float, Field(gt=0, le=MAX_FLOAT)]


class SavedHead(BaseModel, strict=True):
    """What is saved of a :class:`~clip_adapter.heads.Head`, but for its tensors.

    ``share`` is that of a member of a mixture.
    """

    head: Kind
    logit_scale: Scale
    image_map: dict[str, Any] | None
    unit: bool = False
    cache: bool = False
    share: Annotated[float, Field(ge=-MAX_FLOAT, le=MAX_FLOAT)] = 1.0


class SavedMixture(BaseModel, strict=True):
    """What is saved of a :class:`~clip_adapter.heads.Mixture`."""

    head: Literal["mixture"]
    logit_scale: Scale
    members: Annotated[list[SavedHead], Field(min_length=1, max_length=MAX_MEMBERS)]


SAVED = TypeAdapter(Annotated[SavedHead | SavedMixture, Field(discriminator="head")])


class Version(BaseModel, strict=True):
    """What every format says of itself."""

    format: Annotated[int, Field(ge=1)]


class Record(Version, strict=True):
    """``classifier.json``, but for what it says of the head.

    ``sha256`` has the digests of all files of tensors, ``side_files`` those of the others.
    """

    class_names: Annotated[list[str], Field(min_length=2)]
    feature_norm: FeatureNorm
    change: dict[str, Any] | None
    text: Literal["weights", "text"] | None
    sha256: dict[str, str | None]
    side_files: dict[str, str] = {}
    info: dict[str, Any]


class Info(BaseModel, strict=True):
    """What the program reads in the record of how a classifier was made; more is for people."""

    backbone: str | None = None
    backbone_fingerprint: str | None = None
    dtype: str | None = None
    runtime: str | None = None
    method: str | None = None
    preprocess: str | None = None
    selection: list[Any] | None = None
    trained_parameters: int | None = None


def describe(head: Head | Mixture) -> dict[str, Any]:
    """``head`` but for its tensors, as JSON types.

    Raises:
        ClassifierError: an image map that no loader knows.
    """
    if isinstance(head, Mixture):
        pairs = zip(head.members, head.shares, strict=True)
        members = [describe(member) | {"share": share} for member, share in pairs]
        return {"head": "mixture", "logit_scale": head.logit_scale, "members": members}
    image_map = None
    if head.image_map is not None:
        kinds = [kind for kind, cls in IMAGE_MAPS.items() if type(head.image_map) is cls]
        if not kinds:
            raise ClassifierError(
                f"An image map of type {type(head.image_map).__name__} cannot be saved.",
                allowed=", ".join(IMAGE_MAPS),
            )
        image_map = {"kind": kinds[0], **cast("Projection", head.image_map).config()}
    return {
        "head": head.kind,
        "logit_scale": head.logit_scale,
        "image_map": image_map,
        "unit": head.unit,
        "cache": head.cache is not None,
    }


def build(
    saved: SavedHead | SavedMixture, maps: Tensors, weights: Tensors, classes: int
) -> Head | Mixture:
    """The head over C = ``classes`` that was saved; all its parts fit each other.

    Args:
        saved: its description.
        maps: the tensors of image maps and caches.
        weights: those of class weights.
        classes: C.

    Raises:
        ArithmeticError, LookupError, RuntimeError, TypeError, ValueError: the description and the
            tensors do not fit.
    """
    if isinstance(saved, SavedMixture):
        heads = [
            cast("Head", build(member, _below(maps, i), _below(weights, i), classes))
            for i, member in enumerate(saved.members)
        ]
        if len({head.dim for head in heads}) > 1:
            raise ValueError("the heads of a mixture take features of several dimensions")
        return Mixture(heads, [member.share for member in saved.members], saved.logit_scale)
    for name, tensor in {**maps, **weights}.items():
        wanted = torch.int64 if name == "cache.channels" else torch.float32
        if tensor.dtype != wanted:
            raise ValueError(f"the tensor {name} holds {tensor.dtype}, not {wanted}")
    image_map = cache = None
    if saved.image_map is not None:
        make = functools.partial(IMAGE_MAPS[saved.image_map["kind"]].from_config, saved.image_map)
        image_map = filled(make, {k: v for k, v in maps.items() if not k.startswith("cache.")})
    if saved.cache:
        cache = Cache(
            maps["cache.keys"],
            maps["cache.values"],
            maps["cache.weight"],
            maps["cache.sharpness"],
            maps.get("cache.channels"),
        )
    head = Head(
        weights["weights"],
        image_map,
        weights.get("bias"),
        saved.logit_scale,
        saved.head,
        unit=saved.unit,
        cache=cache,
    )
    inner = image_map.matrix.shape[1] if isinstance(image_map, Projection) else head.dim
    shapes: dict[str, tuple[int, ...]] = {"weights": (classes, inner), "bias": (classes,)}
    if cache is not None:
        columns = head.dim if cache.channels is None else len(cache.channels)
        shapes |= {
            "cache.channels": (columns,),
            "cache.keys": (len(cache.keys), columns),
            "cache.values": (len(cache.keys), classes),
            "cache.weight": (),
            "cache.sharpness": (),
        }
    for name, tensor in head.state_dict().items():
        if shapes.get(name, tensor.shape) != tensor.shape or 0 in tensor.shape:
            raise ValueError(f"the shape of {name} is {tuple(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinite numbers")
        if name == "cache.channels" and not bool(((tensor >= 0) & (tensor < head.dim)).all()):
            raise ValueError(f"the channels of the cache are not all in 0 to {head.dim - 1}")
    return head


def _below(tensors: Tensors, member: int) -> Tensors:
    prefix = f"{member}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def pack(
    head: Head | Mixture,
    class_names: Sequence[str],
    *,
    feature_norm: FeatureNorm,
    text_weights: Tensor | None,
    info: Mapping[str, Any],
    train_digests: Iterable[str],
    tower_adapter: TowerAdapter | None,
) -> Files:
    """The files of a classifier of these parts, by name.

    Raises:
        ClassifierError: an image map that no loader knows.
    """
    change, tower = describe_tower_adapter(tower_adapter) if tower_adapter else (None, {})
    tensors: dict[str, Tensors] = {ADAPTER: {}, TOWER: tower, WEIGHTS: {}}
    for name, tensor in head.state_dict().items():
        file = ADAPTER if re.search(r"image_map\.|cache\.", name) else WEIGHTS
        # Members of a mixture may share their weights, which a file of tensors must not.
        tensors[file][re.sub(r"^heads\.|image_map\.", "", name)] = tensor.clone()
    text = None
    if text_weights is not None:
        own = tensors[WEIGHTS].get("weights", torch.zeros(0))
        text = "weights" if torch.equal(text_weights, own) else "text"
        tensors[WEIGHTS].setdefault(text, text_weights.float().contiguous())
    files = {name: save(parts) for name, parts in tensors.items() if parts}
    side_files = {
        SEEN: to_json(sorted(train_digests)),
        CARD: model_card(class_names, info, getattr(tower_adapter, "kind", None)).encode(),
    }
    record = {
        "format": FORMAT,
        "class_names": list(class_names),
        "feature_norm": feature_norm,
        **describe(head),
        "change": change,
        "text": text,
        "sha256": _digests(files),
        "side_files": {name: digest(data) for name, data in side_files.items()},
        "info": info,
    }
    # JSON has neither NaN nor infinity: null, no number is known.
    return {
        CONFIG: to_json(record, indent=1, inf_nan_mode="null"),
        **files,
        **side_files,
    }


def unpack(files: Files) -> dict[str, Any]:
    """The arguments of :class:`~clip_adapter.Classifier` that :func:`pack` was given.

    All that the files say is compared with the tensors, and no code in them is run.

    Raises:
        Exception: of any kind, where anything is wrong.
    """
    record = Record.model_validate_json(files[CONFIG])
    Info.model_validate(record.info)
    for name in PARTS:
        if name not in files and (record.sha256.get(name) or record.side_files.get(name)):
            raise ValueError(f"the file {name} is missing")
    if record.sha256 != _digests(files):
        raise ValueError("the tensors are not those that were saved")
    if SEEN in files and record.side_files.get(SEEN, digest(files[SEEN])) != digest(files[SEEN]):
        raise ValueError(f"{SEEN} is not the one that was saved")
    maps, tower, weights = (load(files[n]) if n in files else {} for n in TENSORS)
    classes = len(record.class_names)
    text = None if record.text is None else weights[record.text]
    if text is not None and not (
        text.ndim == 2
        and len(text) == classes
        and text.shape[1] > 0
        and text.is_floating_point()
        and bool(text.isfinite().all())
    ):
        raise ValueError(f"the text weights are no {classes} rows of finite numbers")
    adapter = None if record.change is None else build_tower_adapter(record.change, tower)
    if adapter is None and TOWER in files:
        raise ValueError(f"{TOWER} is there, and {CONFIG} tells of no change of the tower")
    return {
        "head": build(SAVED.validate_json(files[CONFIG]), maps, weights, classes),
        "class_names": record.class_names,
        "feature_norm": record.feature_norm,
        "text_weights": text,
        "info": record.info,
        "train_digests": TypeAdapter(list[str]).validate_json(files.get(SEEN, b"[]"), strict=True),
        "tower_adapter": adapter,
    }


def _digests(files: Files) -> dict[str, str | None]:
    """Of each file of tensors; None where it is absent."""
    return {n: digest(files[n]) if n in files else None for n in TENSORS}


def digest(data: bytes) -> str:
    """SHA-256 (hex)."""
    return hashlib.sha256(data).hexdigest()


def reason_of(error: Exception) -> str:
    """What is wrong, in one line."""
    text = str(error) or type(error).__name__
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        text = located(first["loc"], first["msg"])
    elif isinstance(error, ClipAdapterError):
        text = error.found
    elif isinstance(error, KeyError):
        text = f"{error} is missing or unknown"
    return textwrap.shorten(text, 300, placeholder="...").rstrip(".")
