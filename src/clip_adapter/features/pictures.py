"""``embed_pictures``: a few pictures, given as paths or PIL images, without the store."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from clip_adapter.backbones.base import Backbone
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import FORMATS
from clip_adapter.errors import DecodeError
from clip_adapter.features.embed import embed

if TYPE_CHECKING:
    from PIL.Image import Image


def embed_pictures(
    backbone: Backbone, pictures: Sequence[str | Path | Image], preprocess: str = "clip"
) -> Tensor:
    """Raw features (N, D) of N pictures.

    Args:
        backbone: the frozen model.
        pictures: paths, or PIL images in any mode.
        preprocess: how pictures are cut to size, "clip" or "coop".

    Raises:
        DecodeError: a picture cannot be read; the first such is named.
    """
    samples = [_sample(picture) for picture in pictures]
    features, bad = embed(backbone, samples, [], preprocess=preprocess, unreadable="return")
    if bad:
        raise DecodeError(
            f"{bad[0].name}: {bad[0].reason}",
            allowed=", ".join(FORMATS),
            hint="Check the path, or replace the picture.",
        )
    return features.plain_view


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
