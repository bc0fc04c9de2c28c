"""``Views`` and ``Pictures``: samples as pixels. All that looks at a picture comes through here."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor

from clip_adapter.backbones.base import Preprocess
from clip_adapter.backbones.own import OwnPreprocess
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import decode, is_plain
from clip_adapter.datasets.transforms import Transform, make_transform, view_seed
from clip_adapter.features.packed import GpuCutter, has_nvjpeg
from clip_adapter.threads import cores

Decode = Literal["auto", "exact", "fast"]
View = int | None
"""The number of a random view; None is the plain one, of tests."""

# JPEG files with sides of at least this many sizes of the input are decoded to fewer pixels.
_DRAFT = 2
# A GPU decodes JPEG files itself that have sides of at most this many sizes of the input, and of
# at least so many where not every pixel has a colour of its own.
_LARGEST, _SMALLEST = 4, 1.45


class Views:
    """A picture as a backbone sees it: plainly, or in random views.

    Args:
        inputs: of the backbone: size, mean, standard deviation.
        preprocess: "clip" or "coop".
        seed: of the random views.
        decode: "exact": the pixels of Pillow, to the bit. "fast", for plain views of JPEG files: a
            GPU decodes them and cuts them to size itself; those that are much too large are decoded
            to fewer pixels. "auto": fast on a GPU.
        device: of the backbone.
    """

    def __init__(
        self,
        inputs: Preprocess,
        preprocess: str = "clip",
        seed: int = 0,
        decode: Decode = "exact",
        device: str = "cpu",
    ) -> None:
        self._inputs, self._preprocess, self._seed = inputs, preprocess, seed
        self._plain = make_transform(inputs, preprocess)
        on_gpu = device.startswith("cuda")
        fast = (decode == "fast" or (decode == "auto" and on_gpu)) and not (
            preprocess == "coop" or isinstance(inputs, OwnPreprocess)
        )
        self._draft = _DRAFT * inputs.image_size if fast else 0
        cuts = fast and on_gpu and inputs.resize_mode in ("shortest", "squash")
        self._gpu = GpuCutter(inputs, device) if cuts and has_nvjpeg(device) else None
        self.on_gpu = self._gpu is not None

    @functools.cached_property
    def _random(self) -> Transform:
        # Not every backbone has random views.
        return make_transform(self._inputs, self._preprocess, train=True)

    def identity(self) -> dict[str, Any]:
        """All that decides the pixels, besides the contents, as JSON types."""
        test, train = self._plain.describe(), self._random.describe()
        return {"test": test, "train": train, "seed": self._seed}

    def describe(self, view: View) -> dict[str, Any]:
        """All that decides the pixels of a view, besides the picture's content, as JSON types."""
        if view is not None:
            seeded = {"number": view, "seed": self._seed}
            return {"transform": self._random.describe(), "view": seeded}
        decoder = {"decoder": "draft" if self._gpu is None else "nvjpeg"} if self._draft else {}
        return {"transform": self._plain.describe(), "view": "test", **decoder}

    def cut(self, data: bytes, name: str, digest: str, views: Sequence[View]) -> dict[View, Tensor]:
        """Each of ``views`` of a picture, (S, S, 3) of 8 bits; :meth:`finish` makes inputs of them.

        Raises:
            DecodeError: it cannot be decoded.
        """
        drafts = {0 if view is not None else self._draft for view in views}
        images = {draft: decode(data, name, draft=draft) for draft in drafts}
        return {
            view: self._plain.cut(images[self._draft])
            if view is None
            else self._random.cut(images[0], view_seed(digest, view, self._seed))
            for view in views
        }

    def for_gpu(self, data: bytes) -> Tensor | None:
        """The bytes of a picture for :meth:`cut_on_gpu`, or None where :meth:`cut` must do it."""
        size = self._inputs.image_size
        if self._gpu is None or not is_plain(data, _LARGEST * size, round(_SMALLEST * size)):
            return None
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def cut_on_gpu(self, files: Sequence[Tensor]) -> list[Tensor | None]:
        """The plain views of what :meth:`for_gpu` gave, on the GPU; None where :meth:`cut` must."""
        assert self._gpu is not None  # noqa: S101 - for_gpu looked
        return self._gpu.cut(files)

    def finish(self, pixels: Tensor) -> Tensor:
        """Pixels (B, S, S, 3) as inputs of the backbone, (B, 3, S, S) float32, where they are."""
        return self._plain.finish(pixels)

    def fill(self, images: Tensor, cuts: Sequence[Tensor]) -> None:
        """Write the inputs (B, 3, S, S) of B pictures of 8 bits, on the CPU, into ``images``."""
        self._plain.fill(images, cuts)


class Pictures:
    """Row i is the picture of row i of the training features.

    Args:
        samples: N pictures, in the order of the features.
        digests: N content digests (hex), which decide the random views.
        inputs: of the backbone: size, mean, standard deviation.
        preprocess: "clip" or "coop".
        seed: of the random views.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        digests: Iterable[str],
        inputs: Preprocess,
        preprocess: str = "clip",
        seed: int = 0,
    ) -> None:
        self._samples, self._digests = list(samples), list(digests)
        self._views = Views(inputs, preprocess, seed)

    def __len__(self) -> int:
        return len(self._samples)

    def subset(self, rows: Sequence[int]) -> Pictures:
        """The pictures ``rows``, in that order."""
        some = copy.copy(self)
        some._samples = [self._samples[i] for i in rows]
        some._digests = [self._digests[i] for i in rows]
        return some

    def identity(self) -> dict[str, Any]:
        """All that decides the pixels, as JSON types: contents, preprocessing, random views."""
        return {"digests": self._digests, **self._views.identity()}

    def batch(self, rows: Sequence[int] | Tensor, view: View = None) -> Tensor:
        """Pixels (B, 3, S, S) of ``rows``: the test view, or random view number ``view``.

        The same row and view give the same pixels, whatever else is in the batch.

        Raises:
            DecodeError: a picture cannot be read any more.
        """
        with decoders() as pool:
            cuts = pool.map(functools.partial(self._cut, view=view), torch.as_tensor(rows).tolist())
            return self._views.finish(torch.stack(list(cuts)))

    def _cut(self, row: int, view: View) -> Tensor:
        sample = self._samples[row]
        return self._views.cut(sample.read(), sample.name, self._digests[row], [view])[view]


def decoders() -> ThreadPoolExecutor:
    """Threads that read and decode pictures."""
    return ThreadPoolExecutor(cores() + 1)
