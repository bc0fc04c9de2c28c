"""``PictureSource``: labelled pictures, seen through a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clip_adapter.backbones.base import Backbone
from clip_adapter.backbones.choice import resolve
from clip_adapter.backbones.names import DEMO, DEMO_WORDS
from clip_adapter.datasets.dataset import UNSPLIT, Dataset, Sample
from clip_adapter.datasets.open import DataSpec, load_dataset
from clip_adapter.features.embed import BadPicture, embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.pixels import Pictures
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import warn_once
from clip_adapter.sources.base import Source, refuse
from clip_adapter.wording import listed


class PictureSource(Source):
    """A folder, a table or a hub data set, seen through a backbone.

    Args:
        spec: what the user named.
        options: how to read it.
        data: what it holds, where it is no data set with classes.
    """

    IGNORES = ("feature_norm",)

    def __init__(self, spec: DataSpec, options: SourceOptions, data: Dataset | None = None) -> None:
        root = () if spec.takes_root else ("root",)
        refuse(spec, "pictures", (*self.IGNORES, *root), options)
        names, prompts = options.class_names, list(options.prompts) or None
        if data is None:
            data = load_dataset(spec, root=options.root, class_names=names, prompts=prompts)
        self._data = data
        self.has_splits, self.has_test = data.has_splits, data.has_test
        self.other_splits = [name for name in self.splits() if name not in ("train", UNSPLIT)]
        super().__init__(data.name, data.class_names, data.templates, options, data.notes, {})

    @property
    def backbone(self) -> Backbone:
        """The backbone, loaded at the first use."""
        return self._loaded()

    def _loaded(self) -> Backbone:
        if first := self._backbone is None:
            count = sum(map(len, self._data.splits.values()))
            drawn = self.shots * len(self.class_names) if isinstance(self.shots, int) else count
            self._options = resolve(self._options, min(count, drawn) * self._options.views)
        backbone = super()._loaded()
        if first and backbone.name == DEMO:
            words = ((name, name.replace("_", " ").lower().split()) for name in self.class_names)
            if strange := [name for name, parts in words if not DEMO_WORDS.issuperset(parts)]:
                warn_once(
                    "The demo backbone knows drawings of coloured shapes alone, and not "
                    f"{listed(strange, 3)}. What it answers on photographs is worth nothing; "
                    "without --backbone demo the real CLIP is taken."
                )
        return backbone

    def facts(self) -> dict[str, Any]:
        """Also the class names that the user gave, by those of the source."""
        return super().facts() | ({"renamed": self._data.renamed} if self._data.renamed else {})

    def labels(self, split: str) -> list[int]:
        """Label of every picture of ``split``."""
        return [sample.label for sample in self._data.pool(split)]

    def splits(self) -> list[str]:
        """Names of the splits that hold pictures."""
        return [split for split, samples in self._data.splits.items() if samples]

    def _samples(self, split: str, rows: Sequence[int] | None) -> list[Sample]:
        pool = self._data.pool(split)
        return pool if rows is None else [pool[i] for i in rows]

    def features(
        self,
        split: str,
        rows: Sequence[int] | None = None,
        views: int = 1,
        other: Backbone | None = None,
    ) -> tuple[FeatureSet, list[BadPicture]]:
        """Features of ``split`` or its ``rows``, and the skipped pictures, see :class:`Source`."""
        return embed(
            other or self.backbone,
            self._samples(split, rows),
            self.class_names,
            store=self._options.store(),
            preprocess=self._options.preprocess,
            views=views,
            batch_size=self._options.batch_size,
            decode=self._options.decode,
            unreadable="return" if other else "stop" if self._options.strict else "skip",
        )

    def pictures(
        self, split: str, rows: Sequence[int] | None, skipped: set[str], digests: Sequence[str]
    ) -> Pictures:
        """Pixels of the pictures whose features :meth:`features` gave, see :class:`Source`."""
        kept = [sample for sample in self._samples(split, rows) if sample.name not in skipped]
        return Pictures(kept, digests, self.backbone.preprocess, self._options.preprocess)
