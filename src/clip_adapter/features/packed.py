"""JPEG files, decoded and cut to size together on a GPU.

The resize is Pillow's: the same filters, widened where a picture shrinks, first along the width and
then along the height, each time rounded to 0..255. As a product with a matrix of weights for each
picture it is cheaper on a GPU than to gather the few neighbours that count.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from itertools import chain

import torch
from PIL import Image
from torch import Tensor

from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.decode import no_warnings
from clip_adapter.datasets.transforms import centre_of, short_side_to


@functools.cache
def has_nvjpeg(device: str) -> bool:
    """Whether the GPU ``device`` decodes JPEG files, with what is installed."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        return (
            _decode([torch.frombuffer(file.getbuffer(), dtype=torch.uint8)], device)[0] is not None
        )
    except ImportError:
        return False


def _decode(files: Sequence[Tensor], device: str) -> list[Tensor | None]:
    """Pictures (3, H, W) of 8 bits on the GPU; None where a file cannot be decoded there."""
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        with no_warnings():
            return [*decode_jpeg(list(files), ImageReadMode.RGB, device)]
    except RuntimeError:
        if len(files) == 1:
            return [None]
    # One bad file fails them all.
    half = len(files) // 2
    return _decode(files[:half], device) + _decode(files[half:], device)


class GpuCutter:
    """Decodes plain JPEG files and cuts them to size on a GPU. Several threads may use it at once.

    Args:
        inputs: size, interpolation and resize mode, "shortest" or "squash".
        device: the GPU. What is made is for the stream that is current on it now.
    """

    def __init__(self, inputs: Preprocess, device: str) -> None:
        self._inputs, self._device = inputs, device
        self._user = torch.cuda.current_stream(device)
        # torchvision decodes on a stream of its own into memory of the current one, and waits for
        # nothing that this one still has to do: so nothing else may happen on it. Small steps wait
        # long behind the large ones of a model, unless they go first.
        self._decoding, self._cutting = (torch.cuda.Stream(device, priority=-1) for _ in range(2))

    def cut(self, files: Sequence[Tensor]) -> list[Tensor | None]:
        """The test view "clip" of each of the ``files`` (bytes), None for those that fail.

        Views are (S, S, 3) of 8 bits on the GPU, and ready.
        """
        with torch.cuda.stream(self._decoding):
            decoded = _decode(files, self._device)
        images = [image for image in decoded if image is not None]
        if not images:
            return decoded
        with torch.cuda.stream(self._cutting):
            self._cutting.wait_stream(self._decoding)
            cuts = cut_to_size(images, self._inputs)
            done = torch.cuda.Event(blocking=True)
            done.record()
        cuts.record_stream(self._user)
        done.synchronize()
        ready = iter(cuts.unbind())
        return [None if image is None else next(ready) for image in decoded]


def cut_to_size(images: Sequence[Tensor], inputs: Preprocess) -> Tensor:
    """The test view "clip" of B pictures (3, H, W) of 8 bits: (B, S, S, 3), on their device.

    The resize mode of ``inputs`` is "shortest" or "squash".
    """
    size, device = inputs.image_size, images[0].device
    alike: dict[tuple[int, int], list[int]] = {}
    for place, image in enumerate(images):
        alike.setdefault((image.shape[2], image.shape[1]), []).append(place)
    width, height = (max(sides) for sides in zip(*alike, strict=True))
    kind = torch.float16 if device.type == "cuda" else torch.float32
    # What is beyond a picture weighs nothing, but must be numbers.
    planes = torch.zeros(len(images), 3, height, width, dtype=kind, device=device)
    start = 0
    for (wide, high), places in alike.items():
        rows = slice(start, start := start + len(places))
        planes[rows, :, :high, :wide] = torch.stack([images[place] for place in places])
    squash = inputs.resize_mode == "squash"
    to = [(size, size) if squash else short_side_to(size, *sides) for sides in alike]
    kept = [centre_of(size, *sides) for sides in to]
    # (3, 2 K): sides, sides to reach, and the first that is kept, of K widths and K heights
    numbers = torch.tensor([[*alike], to, kept], dtype=torch.float32).transpose(1, 2).flatten(1)
    which = torch.tensor([i for i, places in enumerate(alike.values()) for _ in places])
    order = torch.tensor(sorted(range(len(images)), key=[*chain(*alike.values())].__getitem__))
    numbers, which, order = _to(device, numbers, which, order)
    sides, reached, first = numbers.unbind()
    longest = max(width, height)
    weights = _weights(sides, reached, first, size, longest, inputs.interpolation).to(kind)
    across, down = weights[: len(alike), :, :width], weights[len(alike) :, :, :height]
    lines = planes.view(len(images), 3 * height, width) @ across[which].transpose(1, 2)
    lines = lines.round_().clamp_(0, 255).view(len(images), 3, height, size)
    cuts = (down[which][:, None] @ lines).round_().clamp_(0, 255)[order]
    return cuts.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)


def _to(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """``tensors`` on a device, without waiting for a GPU."""
    if device.type != "cuda":
        return [*tensors]
    return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]


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
