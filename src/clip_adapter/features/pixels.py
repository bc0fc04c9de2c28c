"""``Pictures``: samples as pixels. All that looks at a picture comes through here."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.transforms import Transform, make_transform, view_seed
from clip_adapter.errors import DataError
from clip_adapter.features.store import content_digest


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
        self._samples, self._digests, self._seed = list(samples), list(digests), seed
        self._inputs, self._preprocess = inputs, preprocess
        self._plain = make_transform(inputs, preprocess)

    @functools.cached_property
    def _random(self) -> Transform:
        # Not every backbone has random views.
        return make_transform(self._inputs, self._preprocess, train=True)

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
        return {
            "digests": self._digests,
            "test": self._plain.describe(),
            "train": self._random.describe(),
            "seed": self._seed,
        }

    def name(self, row: int) -> str:
        """What a picture is called."""
        return self._samples[row].name

    def describe(self, view: int | None) -> dict[str, Any]:
        """All that decides the pixels of a view, besides the picture's content, as JSON types.

        The view is random view number ``view``; None is the test view.
        """
        if view is None:
            return {"transform": self._plain.describe(), "view": "test"}
        seeded = {"number": view, "seed": self._seed}
        return {"transform": self._random.describe(), "view": seeded}

    def batch(self, rows: Sequence[int] | Tensor, view: int | None = None) -> Tensor:
        """Pixels (B, 3, S, S) of ``rows``: the test view, or random view number ``view``.

        The same row and view give the same pixels, whatever else is in the batch.

        Raises:
            DecodeError: a picture cannot be read any more.
        """
        index = torch.as_tensor(rows).tolist()
        with decoders() as pool:
            return torch.stack(list(pool.map(lambda row: self.load(row, view), index)))

    def load(self, row: int, view: int | None = None, *, unchanged: bool = False) -> Tensor:
        """Pixels (3, S, S) of one row, as :meth:`batch` gives them.

        Raises:
            OSError: it cannot be read.
            DataError: it is no picture, or with ``unchanged`` its content is another one now.
        """
        sample, digest = self._samples[row], self._digests[row]
        data = sample.read()
        if unchanged and content_digest(data) != digest:
            raise DataError(f"{sample.name}: the file changed while it was read.")
        picture = decode(data, sample.name)
        if view is None:
            return self._plain(picture)
        return self._random(picture, view_seed(digest, view, self._seed))


def decoders() -> ThreadPoolExecutor:
    """Threads that read and decode pictures."""
    return ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1))
