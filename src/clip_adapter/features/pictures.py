"""``embed_pictures``: a few pictures, given in any form that is sure, without the store."""

from __future__ import annotations

import functools
import io
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from numbers import Real
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip_adapter.backbones.base import Backbone
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import FORMATS, upright_rgb
from clip_adapter.datasets.open import feature_spec
from clip_adapter.errors import ClassifierError, ClipAdapterError, DecodeError, unknown_name
from clip_adapter.features.embed import embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.reporting import log, warn
from clip_adapter.wording import shortened

Picture = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray | Tensor
Pictures = Picture | Iterable[Picture]

ALLOWED = (
    "a path, a PIL image, the bytes of a file, a file opened with 'rb', or 8-bit pixels (uint8) as "
    "an array or tensor (H, W), (H, W, 3) or (3, H, W)"
)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by the number of channels
_COLOURS = {3, 4}  # numbers of channels that tell pixels from features
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|data:")


Unreadable = Literal["mark", "stop"]


def embed_pictures(
    backbone: Backbone,
    pictures: Pictures,
    preprocess: str = "clip",
    unreadable: Unreadable = "stop",
) -> Tensor:
    """Raw features (N, D) of N pictures, each read as a file of it is.

    Args:
        backbone: the frozen model.
        pictures: one, or several in order (a list, a pandas Series, a generator, an array of
            rank 4): paths, bytes, binary files, PIL images in any mode, 8-bit pixels in RGB order.
            A PIL image is turned upright by its EXIF, as a file is.
        preprocess: how pictures are cut to size, "clip" or "coop".
        unreadable: what becomes of pictures that cannot be read, folders and words that are no
            path among them. "mark": their rows are NaN, each is logged, and one warning tells how
            many they are. "stop": one is an error.

    Raises:
        UsageError: another ``unreadable``.
        DecodeError: no picture can be read, or with "stop" one cannot; or, before any is read, one
            is of another type, such as None, or an array of which it is not sure what is meant.
            The first such is named.
    """
    if unreadable not in get_args(Unreadable):
        raise unknown_name("unreadable", unreadable, get_args(Unreadable))
    locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
    named = _named(pictures)
    sources = [_source(picture, name, locks[id(picture)]) for name, picture in named]
    errors = {i: one for i, one in enumerate(sources) if isinstance(one, DecodeError)}
    # Rows are found again by their place: a name may be there twice.
    samples = [Sample(str(i), -1, one) for i, one in enumerate(sources) if i not in errors]
    if errors and (unreadable == "stop" or not samples):
        raise errors[min(errors)]
    embedded, bad = embed(backbone, samples, [], preprocess=preprocess, unreadable="return")
    for one in bad:
        # Of a picture in memory, the reason may begin with what it is called.
        name = f"{named[int(one.name)][0]}: "
        errors[int(one.name)] = DecodeError(
            name + one.reason.removeprefix(name),
            allowed=", ".join(FORMATS),
            hint="Check the path, or replace the picture.",
        )
    if errors and (unreadable == "stop" or len(errors) == len(named)):
        raise errors[min(errors)]
    for _, error in sorted(errors.items()):
        log.warning(f"Unreadable: {error.found}")
    if errors:
        warn(f"{len(errors)} of {len(named)} pictures cannot be read: they get no answer.")
    features = torch.full((len(named), embedded.dim), torch.nan)
    features[[int(name) for name in embedded.names]] = embedded.plain_view
    return features


def features_in(inputs: Any, dim: int) -> Tensor | None:
    """Features (N, ``dim``), if they fit, of a set or an array of them; None of pictures.

    Raises:
        DecodeError: an array may be either.
        ClassifierError: it is one of pixels that are not of 8 bits.
    """
    if isinstance(inputs, FeatureSet):
        return inputs.plain_view
    if isinstance(inputs, list | tuple) and not inputs:
        return torch.zeros(0, dim)
    if not isinstance(inputs, np.ndarray | Tensor) or not _holds_numbers(inputs):
        return None
    if not _is_uint8(inputs):
        if inputs.ndim > 2 and _COLOURS & {*inputs.shape[-3::2]}:
            raise _not_8_bit(inputs, "What was given", ClassifierError)
        if isinstance(inputs, np.ndarray):
            inputs = np.require(inputs, requirements="W")  # torch warns of any other
        return torch.as_tensor(inputs).float()
    if inputs.ndim == 2 and inputs.shape[1] == dim:
        raise DecodeError(
            f"8-bit numbers (uint8) of shape {tuple(inputs.shape)} may be a picture or features.",
            allowed="a picture in a list, or features as floats",
            hint="Write [picture], or features.astype('float32').",
        )
    return None


def refuse_features(picture: Any) -> None:
    """Stop at a file of features, or at a list of their rows, where pictures are meant.

    Raises:
        DecodeError: ``picture`` is the path of one, or such a list.
    """
    if isinstance(picture, list | tuple) and _is_row(picture[0]):
        raise DecodeError(
            f"A list of {len(picture)} that begins with numbers is no list of pictures.",
            allowed=f"features as one array (N, D); or {ALLOWED}; or a list of these",
            hint="Of rows of features make one array: numpy.stack(rows).",
        )
    if isinstance(picture, str | os.PathLike) and feature_spec(path := os.fsdecode(picture)):
        raise DecodeError(
            f"{shortened(path, 200)} holds features, and is no picture.",
            allowed=ALLOWED,
            hint=f"Give its features: clip_adapter.load_features({path!r}).feature_set.",
        )


def _named(pictures: Any) -> list[tuple[str, Any]]:
    """Each of ``pictures`` with what an error calls it."""
    one = isinstance(pictures, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    if one or any(hasattr(pictures, reader) for reader in ("read", "read_bytes")):
        return [(_name(pictures, "what was given"), pictures)]
    array = isinstance(pictures, np.ndarray | Tensor) and pictures.ndim < 4
    if array and _holds_numbers(pictures):
        return [("the picture", pictures)]
    if isinstance(pictures, Mapping | Set) or hasattr(pictures, "columns"):
        raise DecodeError(
            f"A {type(pictures).__name__} is no list of pictures.",
            allowed=f"{ALLOWED}; or a list of these",
            hint="Give what holds the pictures in order, such as list(...) or table['path'].",
        )
    if not isinstance(pictures, Iterable) or getattr(pictures, "ndim", 1) == 0:
        pictures = [pictures]
    return [(_name(one, f"pictures[{i}]"), one) for i, one in enumerate(pictures)]


def _name(picture: Any, otherwise: str) -> str:
    if isinstance(picture, str | os.PathLike):
        return shortened(os.fsdecode(picture), 200)
    # Of files, ``name`` is what they are called; gzip's warns of its ``filename``.
    own = "name" if isinstance(picture, io.IOBase) else "filename"
    name = getattr(picture, own, "") or getattr(picture, "name", "")
    return name if name and isinstance(name, str) else otherwise


def _source(picture: Any, name: str, lock: threading.Lock) -> Any:
    """Where the bytes of a picture are, as a :class:`Sample` has it, or why there are none.

    Raises:
        DecodeError: what is given is no picture by its type.
    """
    if isinstance(picture, str | os.PathLike):
        try:
            return _path(picture, name)
        except DecodeError as error:
            return error
    if isinstance(picture, Image.Image):
        return functools.partial(_pixels_of, picture, name, lock)
    if hasattr(picture, "read_bytes"):  # in an archive, or among the files of a package
        return picture.read_bytes
    if isinstance(picture, bytes | bytearray | memoryview):
        return functools.partial(bytes, picture)
    if hasattr(picture, "read"):
        try:
            if getattr(picture, "seekable", bool)():
                picture.seek(0)  # as Pillow does it
            data = picture.read()
        except (OSError, ValueError) as error:  # such as a closed one
            return DecodeError(f"{name}: {error}", allowed=ALLOWED)
        if isinstance(data, bytes):
            return functools.partial(bytes, data)
        raise DecodeError(f"{name} is a file of text.", allowed=ALLOWED, hint="Open it with 'rb'.")
    if isinstance(picture, np.ndarray | Tensor):
        array = picture.numpy(force=True) if isinstance(picture, Tensor) else picture
        if array.dtype == np.uint8 and array.ndim == 1:  # an encoded file
            return array.tobytes
        return functools.partial(_pixels_of, _from_array(array, name), name, lock)
    kind = type(picture).__name__
    raise DecodeError(f"{name}: {kind} is not a picture.", allowed=ALLOWED)


def _path(picture: str | os.PathLike[str], name: str) -> Path:
    refuse_features(picture)
    if isinstance(picture, str) and _ADDRESS.match(picture):
        raise DecodeError(
            f"{name} is an address, and no path.",
            allowed=ALLOWED,
            hint="Fetch the picture, and give its bytes.",
        )
    if "\0" in os.fsdecode(picture) or not os.fspath(picture):
        raise DecodeError(f"{name!r} is no path.", allowed=ALLOWED)
    if os.path.isdir(picture):
        raise DecodeError(
            f"{name} is a folder.",
            allowed=ALLOWED,
            hint="Give what lies in it, such as sorted(Path(folder).rglob('*.jpg')); "
            "'clip-adapter predict' takes folders.",
        )
    return Path(picture)


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    """8-bit pixels (H, W), or with channels last or first, as an image."""
    if array.dtype != np.uint8:
        raise _not_8_bit(array, name)
    shape = " x ".join(map(str, array.shape))
    axes = [axis for axis in (2, 0) if array.ndim == 3 and array.shape[axis] in _MODES]
    if array.ndim != 2 and len(axes) != 1:
        raise DecodeError(
            f"{name}: in an array {shape} it is not sure where the channels are.",
            allowed=ALLOWED,
            hint="Give a PIL image of it.",
        )
    if not array.size:
        raise DecodeError(f"{name}: the picture has no pixels ({shape}).")
    pixels = np.moveaxis(array, axes[0], 2) if axes else array[..., None]
    mode = _MODES[pixels.shape[2]]
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if mode == "L" else pixels))


def _not_8_bit(
    array: np.ndarray | Tensor, name: str, kind: type[ClipAdapterError] = DecodeError
) -> ClipAdapterError:
    shape = " x ".join(map(str, array.shape))
    return kind(
        f"{name}: an array {shape} of {array.dtype}; which number is black and which white, is "
        "not sure.",
        allowed=ALLOWED,
        hint="Give 8-bit pixels, 0 to 255: of numbers 0 to 1, (array * 255).round() as uint8 "
        "(.astype('uint8') of NumPy, .to(torch.uint8) of torch).",
    )


def _pixels_of(image: Image.Image, name: str, lock: threading.Lock) -> bytes:
    """A file of the pixels of ``image``, which others may be reading, read as a file is."""
    with lock:
        rgb = upright_rgb(image, name)
    buffer = io.BytesIO()
    rgb.save(buffer, "PPM")
    return buffer.getvalue()


def _is_uint8(array: np.ndarray | Tensor) -> bool:
    return array.dtype == (torch.uint8 if isinstance(array, Tensor) else np.uint8)


def _is_row(one: Any) -> bool:
    """Whether it is a number or numbers of one row, and no encoded file."""
    if isinstance(one, np.ndarray | Tensor):
        return one.ndim < 2 and _holds_numbers(one) and not _is_uint8(one)
    return isinstance(one, list | tuple | Real)


def _holds_numbers(array: np.ndarray | Tensor) -> bool:
    """Whether it holds neither words nor objects."""
    return isinstance(array, Tensor) or array.dtype.kind not in "OSTU"
