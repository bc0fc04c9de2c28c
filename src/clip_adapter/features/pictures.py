"""``embed_pictures``: a few pictures, given as paths or PIL images, without the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clip_adapter.backbones.base import Backbone
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.transforms import make_transform
from clip_adapter.errors import DecodeError
from clip_adapter.reporting import tracking

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 64


def embed_pictures(
    backbone: Backbone, pictures: Sequence[str | Path | Image], style: str = "clip"
) -> Tensor:
    """Raw features (N, D) of N pictures.

    Args:
        backbone: the frozen model.
        pictures: paths, or PIL images in any mode.
        style: preprocessing, "clip" or "coop".

    Raises:
        DecodeError: a picture cannot be read; the first such is named.
    """
    transform = make_transform(backbone.preprocess, style)
    parts = []
    with tracking("Embedding", len(pictures), "pictures") as tracker:
        for start in range(0, len(pictures), BATCH):
            batch = [transform(_open(p)) for p in pictures[start : start + BATCH]]
            parts.append(backbone.encode_images(torch.stack(batch)))
            tracker.advance(len(batch))
    return torch.cat(parts) if parts else torch.empty(0, backbone.embed_dim)


def _open(picture: str | Path | Image) -> Image:
    if isinstance(picture, str | Path):
        try:
            data = Path(picture).read_bytes()
        except OSError as error:
            raise DecodeError(
                f"{picture}: {error.strerror or error}", hint="Check the path."
            ) from error
        return decode(data, str(picture))
    if not hasattr(picture, "convert"):
        raise DecodeError(
            f"{type(picture).__name__} is not a picture.", allowed="a path or a PIL image"
        )
    return picture.convert("RGB")
