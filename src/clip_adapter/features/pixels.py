"""``Views`` and ``Pictures``: samples as pixels. All that looks at a picture comes through here."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(eq=False)
class Views:
    """A picture as a backbone sees it: plainly, or in random views.

    Attributes:
        inputs: of the backbone: size, mean, standard deviation.
        preprocess: "clip" or "coop".
        seed: of the random views.
        decode: "exact": the pixels of Pillow, to the bit. "fast", for plain views of JPEG files: a
            GPU decodes them and cuts them to size itself; those that are much too large are decoded
            to fewer pixels. "auto": fast on a GPU.
        device: of the backbone.
    """

    inputs: Preprocess
    preprocess: str = "clip"
    seed: int = 0
    decode: Decode = "exact"
    device: str = "cpu"

    @functools.cached_property
    def plain(self) -> Transform:
        """The plain view, which also makes inputs of the backbone of what :meth:`cut` gave."""
        return make_transform(self.inputs, self.preprocess)

    @functools.cached_property
    def _random(self) -> Transform:
        # Not every backbone has random views.
        return make_transform(self.inputs, self.preprocess, train=True)

    @functools.cached_property
    def _draft(self) -> int:
        """The side that is enough of a large JPEG file; 0 where all of it is decoded."""
        fast = self.decode == "fast" or (self.decode == "auto" and self.device.startswith("cuda"))
        own = self.preprocess == "coop" or isinstance(self.inputs, OwnPreprocess)
        return _DRAFT * self.inputs.image_size if fast and not own else 0

    @functools.cached_property
    def _gpu(self) -> GpuCutter | None:
        cuts = self._draft and self.inputs.resize_mode in ("shortest", "squash")
        on_gpu = cuts and self.device.startswith("cuda") and has_nvjpeg(self.device)
        return GpuCutter(self.inputs, self.device) if on_gpu else None

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU decodes and cuts, for the stream that is current when it is first asked."""
        return self._gpu is not None

    def identity(self) -> dict[str, Any]:
        """All that decides the pixels, besides the contents, as JSON types."""
        test, train = self.plain.describe(), self._random.describe()
        return {"test": test, "train": train, "seed": self.seed}

    def describe(self, view: View) -> dict[str, Any]:
        """All that decides the pixels of a view, besides the picture's content, as JSON types."""
        if view is not None:
            seeded = {"number": view, "seed": self.seed}
            return {"transform": self._random.describe(), "view": seeded}
        decoder = {"decoder": "draft" if self._gpu is None else "nvjpeg"} if self._draft else {}
        return {"transform": self.plain.describe(), "view": "test", **decoder}

    def cut(self, data: bytes, name: str, digest: str, views: Sequence[View]) -> dict[View, Tensor]:
        """Each of ``views`` of a picture, (S, S, 3) of 8 bits; ``plain`` makes inputs of them.

        Raises:
            DecodeError: it cannot be decoded.
        """
        drafts = {0 if view is not None else self._draft for view in views}
        images = {draft: decode(data, name, draft=draft) for draft in drafts}
        return {
            view: self.plain.cut(images[self._draft])
            if view is None
            else self._random.cut(images[0], view_seed(digest, view, self.seed))
            for view in views
        }

    def for_gpu(self, data: bytes) -> Tensor | None:
        """The bytes of a picture for :meth:`cut_on_gpu`, or None where :meth:`cut` must do it."""
        size = self.inputs.image_size
        if self._gpu is None or not is_plain(data, _LARGEST * size, round(_SMALLEST * size)):
            return None
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def cut_on_gpu(self, files: Sequence[Tensor]) -> list[Tensor | None]:
        """The plain views of what :meth:`for_gpu` gave, on the GPU; None where :meth:`cut` must."""
        assert self._gpu is not None  # noqa: S101 - for_gpu looked
        return self._gpu.cut(files)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Row i is the picture of row i of the training features.

    Attributes:
        samples: N pictures, in the order of the features.
        digests: N content digests (hex), which decide the random views.
        inputs: of the backbone: size, mean, standard deviation.
        preprocess: "clip" or "coop".
        seed: of the random views.
    """

    samples: Sequence[Sample]
    digests: Sequence[str]
    inputs: Preprocess
    preprocess: str = "clip"
    seed: int = 0

    @functools.cached_property
    def _views(self) -> Views:
        return Views(self.inputs, self.preprocess, self.seed)

    def __len__(self) -> int:
        return len(self.samples)

    def subset(self, rows: Sequence[int]) -> Pictures:
        """The pictures ``rows``, in that order."""
        samples, digests = ([own[i] for i in rows] for own in (self.samples, self.digests))
        return dataclasses.replace(self, samples=samples, digests=digests)

    def identity(self) -> dict[str, Any]:
        """All that decides the pixels, as JSON types: contents, preprocessing, random views."""
        return {"digests": list(self.digests), **self._views.identity()}

    def batch(self, rows: Sequence[int] | Tensor, view: View = None) -> Tensor:
        """Pixels (B, 3, S, S) of ``rows``: the test view, or random view number ``view``.

        The same row and view give the same pixels, whatever else is in the batch.

        Raises:
            DecodeError: a picture cannot be read any more.
        """
        with decoders() as pool:
            cuts = pool.map(functools.partial(self._cut, view=view), torch.as_tensor(rows).tolist())
            return self._views.plain.finish(torch.stack(list(cuts)))

    def _cut(self, row: int, view: View) -> Tensor:
        sample = self.samples[row]
        return self._views.cut(sample.read(), sample.name, self.digests[row], [view])[view]


def decoders() -> ThreadPoolExecutor:
    """Threads that read and decode pictures."""
    return ThreadPoolExecutor(cores() + 1)
