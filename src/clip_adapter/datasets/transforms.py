"""``make_transform``: a decoded picture into the input of a backbone, in the field's two ways.

"clip" is CLIP's own preprocessing, the default; "coop" is that of CoOp's code before its toolbox
Dassl reached version 0.5, with which the numbers of the CLIP-Adapter paper (section 4.1) were made.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip_adapter.backbones.base import Preprocess
from clip_adapter.backbones.own import OwnPreprocess
from clip_adapter.errors import UsageError, unknown_name

PREPROCESSINGS = ("clip", "coop")
# RandomResizedCrop's own range, which CLIP-style CoOp keeps; Tip-Adapter trains on (0.5, 1).
CROP_SCALE = (0.08, 1.0)
# "coop" enlarges by this before every crop: 224 to 252.
_ENLARGE = 1.125
# Pictures normalised in one call (benchmarks/speed/pipeline.py).
_TOGETHER = 16
# Past this many sides of the crop, the long side is cut before it is resized (a 1 x 100000 strip).
_LONGEST = 64


@dataclass(frozen=True)
class Transform:
    """PIL RGB picture -> (3, S, S) float32; with ``train``, one random view per seed.

    ============ ================================================== ============================
    preprocess   test                                               train
    ============ ================================================== ============================
    clip         as the backbone's ``resize_mode`` says: short side random resized crop, flip
                 to S and centre crop S, or squash to S x S, or
                 long side to S on black
    coop         squash to S x S, resize to 1.125 S, centre crop S   squash, flip, translation of
                                                                     up to S/8 (half the time,
                                                                     bilinear), the test's crop
    ============ ================================================== ============================

    Attributes:
        inputs: size, mean, standard deviation, interpolation of the backbone.
        preprocess: "clip" or "coop".
        train: whether views are random.
        scale: the share of the area that a random resized crop takes, from and to, in 0..1.
    """

    inputs: Preprocess
    preprocess: str = "clip"
    train: bool = False
    scale: tuple[float, float] = CROP_SCALE

    def __post_init__(self) -> None:
        if self.preprocess not in PREPROCESSINGS:
            raise unknown_name("preprocess", self.preprocess, PREPROCESSINGS)
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise UsageError(f"Crop scale {low}, {high}.", allowed="0 < low <= high <= 1")

    def __call__(self, image: Image.Image, seed: int | None = None) -> Tensor:
        """The picture as (3, S, S), normalised: :meth:`finish` of what :meth:`cut` gives."""
        return self.finish(self.cut(image, seed)[None])[0]

    def cut(self, image: Image.Image, seed: int | None = None) -> Tensor:
        """The picture cut to size: (S, S, 3), 8 bits a channel.

        Args:
            image: mode RGB, as :func:`~clip_adapter.datasets.decode.decode` gives it.
            seed: names the random view, see :func:`view_seed`; needed only with ``train``.

        Raises:
            UsageError: ``train`` without a seed.
        """
        if self.train and seed is None:
            raise UsageError(
                "A training view without a seed.", hint="Pass view_seed(digest, view)."
            )
        view = (
            self._train_view(image, random.Random(seed)) if self.train else self._test_view(image)
        )
        return torch.from_numpy(np.array(view))

    def finish(self, pixels: Tensor) -> Tensor:
        """Pixels (B, S, S, 3) of 0..255 as (B, 3, S, S) float32, normalised where they are."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return self._normalise(images, out=images)

    def fill(self, images: Tensor, cuts: Sequence[Tensor]) -> None:
        """Write what :meth:`finish` makes of ``cuts``, B of (S, S, 3), into ``images``.

        A few together: a whole batch is larger than the processor's cache, and each call waits for
        the interpreter, which decoding holds.
        """
        for start in range(0, len(cuts), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            self._normalise(torch.stack([*cuts[some]]).permute(0, 3, 1, 2), out=images[some])

    def _normalise(self, pixels: Tensor, out: Tensor) -> Tensor:
        """Numbers 0..255 of (..., 3, S, S), normalised into ``out``, float32."""
        mean, std = (_at(out.device, *three) for three in (self.inputs.mean, self.inputs.std))
        # By a tensor: a GPU multiplies by the inverse of a plain number.
        return torch.div(pixels, _at(out.device, 255.0), out=out).sub_(mean).div_(std)

    def describe(self) -> dict[str, Any]:
        """All that decides the pixels, as JSON types: part of a cached feature's key."""
        # The keys are stored, so they keep their old names.
        return {
            "preprocess": asdict(self.inputs),
            "style": self.preprocess,
            "train": self.train,
            "scale": self.scale,
        }

    def _test_view(self, image: Image.Image) -> Image.Image:
        size, mode = self.inputs.image_size, self.inputs.resize_mode
        if self.preprocess == "coop":
            return self._enlarged_centre(self._resize(image, size, size))
        if mode == "squash":
            return self._resize(image, size, size)
        if mode == "longest":
            ratio = max(image.size) / size
            width, height = (max(1, round(side / ratio)) for side in image.size)
            black = Image.new("RGB", (size, size))
            corner = ((size - width) // 2, (size - height) // 2)
            black.paste(self._resize(image, width, height), corner)
            return black
        image = _without_far_ends(image)
        return _centre(self._resize(image, *short_side_to(size, *image.size)), size)

    def _train_view(self, image: Image.Image, generator: random.Random) -> Image.Image:
        size = self.inputs.image_size
        if self.preprocess == "clip":
            box = _random_box(image.width, image.height, self.scale, generator)
            return _flip(self._resize(image.crop(box), size, size), generator)
        view = _flip(self._resize(image, size, size), generator)
        if generator.random() < 0.5:
            larger = round(size * _ENLARGE)
            left, top = (round(generator.uniform(0, larger - size)) for _ in range(2))
            view = view.resize((larger, larger), Image.Resampling.BILINEAR)
            view = view.crop((left, top, left + size, top + size))
        return self._enlarged_centre(view)

    def _enlarged_centre(self, image: Image.Image) -> Image.Image:
        size = self.inputs.image_size
        enlarged = int(size * _ENLARGE)
        return _centre(self._resize(image, enlarged, enlarged), size)

    def _resize(self, image: Image.Image, width: int, height: int) -> Image.Image:
        bilinear = self.inputs.interpolation == "bilinear"
        kind = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        return image.resize((width, height), kind)


def make_transform(
    inputs: Preprocess,
    preprocess: str = "clip",
    train: bool = False,
    scale: tuple[float, float] = CROP_SCALE,
) -> Transform:
    """The :class:`Transform` of a backbone's ``inputs``.

    Raises:
        UsageError: unknown ``preprocess``, or a scale outside 0..1.
    """
    kind = OwnTransform if isinstance(inputs, OwnPreprocess) else Transform
    return kind(inputs, preprocess, train, scale)


@dataclass(frozen=True)
class OwnTransform(Transform):
    """The preprocessing of a user's own backbone: one function, without random views."""

    def cut(self, image: Image.Image, seed: int | None = None) -> Tensor:
        """The picture as (3, H, W), as the function makes it.

        Raises:
            UsageError: a random view or another preprocessing is asked for.
        """
        assert isinstance(self.inputs, OwnPreprocess)  # noqa: S101 - make_transform looked
        if self.train or self.preprocess != "clip":
            raise UsageError(
                "The preprocessing of this backbone is a function: it has no random views and no "
                "other preprocessing.",
                hint="Give the backbone a Preprocess of sizes and numbers, or leave away what asks "
                "for more.",
            )
        return self.inputs.function(image).float()

    def finish(self, pixels: Tensor) -> Tensor:
        """``pixels``, since the function has done it all."""
        return pixels

    def describe(self) -> dict[str, Any]:
        """That it is a function: which one, the backbone's fingerprint covers."""
        return {"preprocess": "function"}


def view_seed(digest: str, view: int, seed: int = 0) -> int:
    """The seed of random view number ``view`` of the picture with this content ``digest`` (hex).

    The same content gives the same views on every machine, in any order of work.
    """
    text = f"{seed}:{view}:{digest}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


@functools.cache
def _at(device: torch.device, *numbers: float) -> Tensor:
    """A number for each channel, (3, 1, 1), where the pictures are; made once, since it waits."""
    return torch.tensor(numbers, device=device)[:, None, None]


def short_side_to(size: int, width: int, height: int) -> tuple[int, int]:
    """Width and height once the shorter of them is ``size`` pixels."""
    # Rounded down, as torchvision does it; a side that fits already is left alone.
    longer = int(size * max(width, height) / min(width, height))
    return (size, longer) if width <= height else (longer, size)


def centre_of(size: int, width: int, height: int) -> tuple[int, int]:
    """Left and top of the central square of ``size`` pixels."""
    return round((width - size) / 2), round((height - size) / 2)


def _centre(image: Image.Image, size: int) -> Image.Image:
    left, top = centre_of(size, *image.size)
    return image.crop((left, top, left + size, top + size))


def _without_far_ends(image: Image.Image) -> Image.Image:
    """Cut a very long strip to its middle, which holds all that a centre crop can see."""
    longest = _LONGEST * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _flip(image: Image.Image, generator: random.Random) -> Image.Image:
    if generator.random() < 0.5:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def _random_box(
    width: int, height: int, scale: tuple[float, float], generator: random.Random
) -> tuple[int, int, int, int]:
    """A random box of the area's share ``scale`` and aspect 3/4 to 4/3: (left, top, right, bottom).

    Ten tries, then the largest centred box of an allowed aspect, as torchvision's
    RandomResizedCrop does it.
    """
    low, high = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = generator.randint(0, width - w), generator.randint(0, height - h)
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < low:
        h = round(width / low)
    elif width / height > high:
        w = round(height * high)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
