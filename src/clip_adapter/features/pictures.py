"""``embed_pictures``: a few pictures, given as paths or PIL images, without the store."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from clip_adapter.backbones.base import Backbone
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import FORMATS
from clip_adapter.errors import DecodeError, unknown_name
from clip_adapter.features.embed import embed
from clip_adapter.reporting import log, warn

if TYPE_CHECKING:
    from PIL.Image import Image


Unreadable = Literal["mark", "stop"]


def embed_pictures(
    backbone: Backbone,
    pictures: Sequence[str | Path | Image],
    preprocess: str = "clip",
    unreadable: Unreadable = "stop",
) -> Tensor:
    """Raw features (N, D) of N pictures.

    Args:
        backbone: the frozen model.
        pictures: paths, or PIL images in any mode.
        preprocess: how pictures are cut to size, "clip" or "coop".
        unreadable: what becomes of pictures that cannot be read. "mark": their rows are NaN, each
            is logged, and one warning tells how many they are. "stop": one is an error.

    Raises:
        UsageError: another ``unreadable``.
        DecodeError: no picture can be read, or with "stop" one cannot; the first such is named.
    """
    if unreadable not in get_args(Unreadable):
        raise unknown_name("unreadable", unreadable, get_args(Unreadable))
    samples = [_sample(picture) for picture in pictures]
    # Rows are found again by their place: a name may be there twice.
    numbered = [replace(sample, name=str(i)) for i, sample in enumerate(samples)]
    embedded, bad = embed(backbone, numbered, [], preprocess=preprocess, unreadable="return")
    faults = [f"{samples[int(one.name)].name}: {one.reason}" for one in bad]
    if faults and (unreadable == "stop" or len(faults) == len(samples)):
        raise DecodeError(
            faults[0],
            allowed=", ".join(FORMATS),
            hint="Check the path, or replace the picture.",
        )
    for fault in faults:
        log.info(f"Unreadable: {fault}")
    if faults:
        warn(f"{len(faults)} of {len(samples)} pictures cannot be read: they get no answer.")
    features = torch.full((len(samples), embedded.dim), torch.nan)
    features[[int(name) for name in embedded.names]] = embedded.plain_view
    return features


def _sample(picture: str | Path | Image) -> Sample:
    if isinstance(picture, str | Path):
        if Path(picture).is_dir():
            raise DecodeError(
                f"{picture} is a folder.",
                allowed="paths of pictures, or PIL images",
                hint="Give what lies in it, such as sorted(Path(folder).rglob('*.jpg')); "
                "'clip-adapter predict' takes folders.",
            )
        return Sample(str(picture), -1, Path(picture))
    if not hasattr(picture, "convert"):
        raise DecodeError(
            f"{type(picture).__name__} is not a picture.", allowed="a path or a PIL image"
        )
    return Sample("a picture without a name", -1, functools.partial(_pixels_of, picture))


def _pixels_of(image: Image) -> bytes:
    """A file of the pixels as they are; as "RGB", without transparency or orientation."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PPM")
    return buffer.getvalue()
