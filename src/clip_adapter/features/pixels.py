"""``Pictures``: the pixels of labelled pictures, for methods that train inside the backbone."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.transforms import make_transform, view_seed


class Pictures:
    """Row i is the picture of row i of the training features.

    Args:
        samples: N pictures, in the order of the features.
        digests: N content digests (hex), which decide the random views.
        preprocess: of the backbone.
        style: "clip" or "coop".
        seed: of the random views.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        digests: Sequence[str],
        preprocess: Preprocess,
        style: str = "clip",
        seed: int = 0,
    ) -> None:
        self._samples, self._digests, self._seed = list(samples), list(digests), seed
        self._plain = make_transform(preprocess, style)
        self._random = make_transform(preprocess, style, train=True)

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

    def batch(self, rows: Sequence[int] | Tensor, view: int | None = None) -> Tensor:
        """Pixels (B, 3, S, S) of ``rows``: the test view, or random view number ``view``.

        The same row and view give the same pixels, whatever else is in the batch.

        Raises:
            DecodeError: a picture cannot be read any more.
        """
        index = torch.as_tensor(rows).tolist()
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
            return torch.stack(list(pool.map(lambda i: self._load(i, view), index)))

    def _load(self, row: int, view: int | None) -> Tensor:
        sample = self._samples[row]
        picture = decode(sample.read(), sample.name)
        if view is None:
            return self._plain(picture)
        return self._random(picture, view_seed(self._digests[row], view, self._seed))
