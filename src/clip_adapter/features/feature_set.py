"""``FeatureSet``: the features of labelled pictures, and all that is known about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from clip_adapter.errors import DataError
from clip_adapter.nn.cosine import normalize

_AT_ONCE = 8192  # rows
FeatureNorm = Literal["raw", "unit"]


@dataclass
class FeatureSet:
    """Features of N labelled pictures under V views.

    Attributes:
        features: (V, N, D) float32. One view is the plain one, as at test time; of several, all
            are random ones to learn from.
        labels: (N,) int64, indices into ``class_names``; -1 where unknown.
        class_names: C names in label order.
        names: N display names (paths), in the order of the rows.
        digests: N content digests (hex); they tell whether a picture was seen in training.
        feature_norm: "raw" as the backbone made them, or "unit" (every row has length 1). A model
            of one is not a model of the other; a classifier remembers which it was trained on.
        plain: (N, D) the plain view beside several random ones, where it is known. Feature files
            do not keep it.
    """

    features: Tensor
    labels: Tensor
    class_names: list[str]
    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    feature_norm: FeatureNorm = "raw"
    plain: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim == 2:
            self.features = self.features.unsqueeze(0)
        self.features = self.features.float()
        self.labels = self.labels.long()
        if self.features.ndim != 3 or self.features.shape[1] != len(self.labels):
            raise DataError(
                f"Features of shape {tuple(self.features.shape)} with {len(self.labels)} labels.",
                allowed="features (V, N, D) or (N, D) with N labels",
            )
        if self.plain is not None:
            self.plain = self.plain.float()
            if self.plain.shape != self.features.shape[1:]:
                raise DataError(
                    f"A plain view of shape {tuple(self.plain.shape)} beside features of shape "
                    f"{tuple(self.features.shape)}.",
                    allowed="(N, D) beside (V, N, D)",
                )
        # In parts: the test takes more memory than what it tests.
        parts = chain(self.features.split(_AT_ONCE, 1), self.plain_view.split(_AT_ONCE))
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise DataError(
                "The features hold NaN or infinite values.",
                hint="Make them again, and remove the rows that cannot be embedded.",
            )
        strange = self.labels[(self.labels < -1) | (self.labels >= len(self.class_names))]
        if len(strange):
            raise DataError(
                f"Label {int(strange[0])} with {len(self.class_names)} class names.",
                allowed=f"labels 0 to {len(self.class_names) - 1}, or -1 for unknown",
            )
        if self.feature_norm == "unit":
            self.features = normalize(self.features)
            self.plain = None if self.plain is None else normalize(self.plain)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dim(self) -> int:
        """D, the size of one feature."""
        return int(self.features.shape[-1])

    @property
    def views(self) -> int:
        """V, the number of views."""
        return int(self.features.shape[0])

    @property
    def plain_view(self) -> Tensor:
        """(N, D): the pictures as they are scored: the plain view where it is known, else view 0.

        Random views are for learning; a crop of a held-out picture may miss what it shows.
        """
        return self.features[0] if self.plain is None else self.plain

    def parts(self) -> Iterator[FeatureSet]:
        """The rows in order, some thousands at a time; of none, one part."""
        for start in range(0, max(len(self), 1), _AT_ONCE):
            yield self.subset(torch.arange(start, min(start + _AT_ONCE, len(self))))

    def subset(self, indices: list[int] | Tensor) -> FeatureSet:
        """The rows ``indices`` (n,), in that order."""
        index = torch.as_tensor(indices, dtype=torch.long)
        rows = index.tolist()
        return FeatureSet(
            self.features[:, index],
            self.labels[index],
            self.class_names,
            [self.names[i] for i in rows] if self.names else [],
            [self.digests[i] for i in rows] if self.digests else [],
            self.feature_norm,
            None if self.plain is None else self.plain[index],
        )
