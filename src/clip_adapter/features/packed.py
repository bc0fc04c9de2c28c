"""Pictures of many sizes, cut to one size together on a device, in a few large steps.

The resize is Pillow's: the same filters, widened where a picture shrinks, first along the width and
then along the height, each time rounded to 0..255. As a product with a matrix of weights for each
picture it is cheaper on a GPU than to gather the few neighbours that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.transforms import centre_of, short_side_to


@dataclass
class Packed:
    """``pixels`` (B, H, W, 3) on the device, 8 bits; picture i fills its corner of ``sizes[i]``.

    Attributes:
        pixels: what is beyond a picture may be anything.
        sizes: B pairs (width, height).
        ready: where the copy is on its way, what to wait for; else None.
    """

    pixels: Tensor
    sizes: list[tuple[int, int]]
    ready: torch.cuda.Event | None = None


def pack(images: Sequence[np.ndarray], stream: torch.cuda.Stream | None = None) -> Packed:
    """Bring B pictures (H, W, 3) of 8 bits to the device of ``stream``, without waiting for it.

    None keeps them on the CPU. It can be called from several threads.
    """
    sizes = [(image.shape[1], image.shape[0]) for image in images]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    shape = (len(images), height, width, 3)
    pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=stream is not None)
    places = pixels.numpy()
    for place, image in zip(places, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    if stream is None:
        return Packed(pixels, sizes)
    with torch.cuda.stream(stream):
        on_device = pixels.to(stream.device, non_blocking=True)
        return Packed(on_device, sizes, stream.record_event())


def cut_to_size(packed: Packed, inputs: Preprocess) -> Tensor:
    """The test view "clip" of B pictures: (B, S, S, 3) of 8 bits, on their device.

    The resize mode of ``inputs`` is "shortest" or "squash".
    """
    pixels, size = packed.pixels, inputs.image_size
    if packed.ready is not None:
        stream = torch.cuda.current_stream(pixels.device)
        stream.wait_event(packed.ready)
        pixels.record_stream(stream)
    # (B, 4): from width and height, to width and height; (B, 2): left and top of what is kept
    squash = inputs.resize_mode == "squash"
    to = [(size, size) if squash else short_side_to(size, *sides) for sides in packed.sizes]
    kept = [centre_of(size, *sides) for sides in to]
    numbers = torch.tensor([packed.sizes, to, kept], dtype=torch.float32)
    if pixels.is_cuda:
        numbers = numbers.pin_memory()
    numbers = numbers.to(pixels.device, non_blocking=True)
    kind = torch.float16 if pixels.is_cuda else torch.float32
    rows, height, width, _ = pixels.shape
    planes = pixels.permute(0, 3, 1, 2).to(kind, memory_format=torch.contiguous_format)
    across, down = (
        _weights(*numbers[:, :, axis], size, length, inputs.interpolation).to(kind)
        for axis, length in enumerate((width, height))
    )
    lines = planes.view(rows, 3 * height, width) @ across.transpose(1, 2)
    lines = lines.round_().clamp_(0, 255).view(rows, 3, height, size)
    cut = (down[:, None] @ lines).round_().clamp_(0, 255)
    return cut.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)


def _weights(
    sides: Tensor, to: Tensor, first: Tensor, size: int, length: int, interpolation: str
) -> Tensor:
    """What each of ``length`` pixels adds to each of ``size``, for B pictures: (B, size, length).

    Args:
        sides: (B,) pixels of the picture along this axis.
        to: (B,) pixels after the resize.
        first: (B,) the first of them that is kept.
        size: how many are kept.
        length: pixels that there are; those from ``sides`` on weigh nothing.
        interpolation: "bicubic" or "bilinear".

    Source: Pillow, ``precompute_coeffs`` and ``bicubic_filter`` (a = -0.5) of Resample.c.
    """
    steps = (sides / to)[:, None, None]
    kept = torch.arange(size, device=sides.device)[:, None] + 0.5
    pixels = torch.arange(length, device=sides.device) + 0.5
    centres = (first[:, None, None] + kept) * steps
    far = ((pixels - centres) / steps.clamp(min=1)).abs_()
    if interpolation == "bilinear":
        weights = (1 - far).clamp_(min=0)
    else:
        near = (1.5 * far - 2.5) * far * far + 1
        outer = ((-0.5 * far + 2.5) * far - 4) * far + 2
        weights = torch.where(far < 1, near, torch.where(far < 2, outer, 0))
    weights = weights * (pixels < sides[:, None, None])
    return weights / weights.sum(-1, keepdim=True)
