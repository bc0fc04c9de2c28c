"""The backbones that are worth having: accuracy as published, cost, licence; and what to take.

The figures are in ``table.csv``, which ``tools/backbone_table.py`` fills in. The accuracies are of
the makers and of open_clip; parameters and multiply-adds are counted on the architectures.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from clip_adapter.backbones.catalog import catalog
from clip_adapter.backbones.weights import tokenizer_options

TABLE = Path(__file__).with_suffix(".csv")
COMMERCIAL = ("mit", "apache-2.0")
"""Licences of weights that allow commercial use."""
SOURCES = {
    "open_clip": "https://github.com/mlfoundations/open_clip/blob/"
    "89fb801f1e6087880e951fc8354b8a2077b79c6d/docs/openclip_results.csv",
    "siglip2": "https://github.com/google-research/big_vision/blob/"
    "1659d4297dc62e138a9cd509e3a39855afc6d984/big_vision/configs/proj/image_text/"
    "README_siglip2.md",
    "perception_models": "https://github.com/facebookresearch/perception_models/blob/"
    "039eb0166b1442154cd8d1a220bc9473da421aa1/README.md",
    "mobileclip": "https://github.com/apple/ml-mobileclip/blob/"
    "1140b8d197e4ed7d56b3a92216ded98bb1c2ac87/README.md",
}
"""Where the published accuracies stand."""


@dataclass(frozen=True)
class Row:
    """What is known of a backbone.

    Attributes:
        name: ARCH/TAG.
        imagenet: zero-shot top-1 on ImageNet, percent, as published.
        mean_38: mean zero-shot score on the 38 sets of DataComp, percent, as published; None is
            unpublished.
        parameters: of both towers, millions.
        multiply_adds: of one picture, 10^9.
        licence: of the weights, as their model card or their makers state; "unknown" is that.
        source: of the accuracies, a key of :data:`SOURCES`.
    """

    name: str
    imagenet: float
    mean_38: float | None
    parameters: float
    multiply_adds: float
    licence: str
    source: str

    @property
    def arch(self) -> str:
        """The architecture."""
        return self.name.split("/")[0]

    @functools.cached_property
    def extra(self) -> str:
        """The extra of this package that its texts need; "" for none."""
        return "siglip" if tokenizer_options(catalog().configs[self.arch]) else ""

    @property
    def commercial(self) -> bool:
        """Whether its licence is known to allow commercial use."""
        return self.licence in COMMERCIAL

    def beaten_by(self, other: Row) -> bool:
        """Whether ``other`` is more accurate, costs and needs no more, and may be used by all."""
        return (
            other.commercial
            and other.imagenet > self.imagenet
            and other.multiply_adds <= self.multiply_adds
            and other.extra in ("", self.extra)
        )


@functools.cache
def rows() -> tuple[Row, ...]:
    """All of them, the cheapest first."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    return tuple(
        Row(
            row["name"],
            float(row["imagenet"]),
            float(row["mean_38"]) if row["mean_38"] else None,
            float(row["parameters"]),
            float(row["multiply_adds"]),
            row["licence"],
            row["source"],
        )
        for row in read
    )


@functools.cache
def recommended() -> tuple[Row, ...]:
    """Those of a licence for all uses that none other beats, the cheapest first."""
    return tuple(row for row in rows() if row.commercial and not any(map(row.beaten_by, rows())))


def find(name: str) -> Row | None:
    """The row of the backbone ``name``; None where there is none."""
    return next((row for row in rows() if row.name == name), None)


def better_one(name: str) -> Row | None:
    """The most accurate of those that beat the backbone ``name``; None where there is none."""
    own = find(name)
    better = [row for row in recommended() if own is not None and own.beaten_by(row)]
    return max(better, key=lambda row: row.imagenet, default=None)
