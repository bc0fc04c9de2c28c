"""``Source``: pictures or ready-made features, opened the same way by ``fit`` and ``evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_adapter.backbones import Backbone
from clip_adapter.data.load import is_feature_spec, load_dataset
from clip_adapter.data.templates import resolve_templates
from clip_adapter.errors import DataError
from clip_adapter.features.extract import BadPicture, extract
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.precomputed import load_features
from clip_adapter.features.text import text_weights
from clip_adapter.nn import normalize
from clip_adapter.options import SourceOptions


class PictureSource:
    """A folder, a table or a hub data set, seen through a backbone."""

    def __init__(self, spec: str, options: SourceOptions) -> None:
        self._options = options
        self._data = load_dataset(
            spec,
            root=options.root,
            class_names=options.class_names,
            prompts=list(options.prompts) or None,
        )
        for note in self._data.notes:
            options.say(note)
        self.name = self._data.name
        self.class_names = self._data.class_names
        self.templates = self._data.templates
        self.has_splits = self._data.has_splits
        self._given: Backbone | None = None

    @property
    def backbone(self) -> Backbone:
        """The backbone, loaded at the first use."""
        if self._given is None:
            self._given = self._options.load_backbone()
        return self._given

    def use(self, backbone: Backbone) -> None:
        """Take ``backbone`` in place of the one that the options name."""
        self._given = backbone

    def labels(self, split: str) -> list[int]:
        """Label of every picture of ``split``."""
        return [s.label for s in self._data.pool(split)]

    def splits(self) -> list[str]:
        """Names of the splits that hold pictures."""
        return [k for k, v in self._data.splits.items() if v]

    def features(
        self, split: str, rows: Sequence[int] | None = None, views: int = 1
    ) -> tuple[FeatureSet, list[BadPicture]]:
        """Features of ``split``, or of its ``rows`` in that order, and the skipped pictures."""
        samples = self._data.pool(split)
        return extract(
            self.backbone,
            samples if rows is None else [samples[i] for i in rows],
            self.class_names,
            store=self._options.store(),
            style=self._options.style,
            views=views,
            batch_size=self._options.batch_size,
            strict=self._options.strict,
            say=self._options.say,
            progress=self._options.progress,
        )

    def text_weights(self) -> Tensor:
        """(C, D) of unit length."""
        return _embed_classes(self.backbone, self.class_names, self.templates, self._options)

    @property
    def logit_scale(self) -> float:
        """1/tau of the backbone."""
        return self.backbone.logit_scale

    def facts(self) -> dict[str, Any]:
        """What a classifier must remember of the source."""
        return {
            "data": self.name,
            "backbone": self.backbone.name,
            "backbone_fingerprint": self.backbone.fingerprint,
            "dtype": self.backbone.dtype,
            "preprocess": self._options.style,
            "templates": list(self.templates),
        }


class FeatureSource:
    """One set of a feature file; its splits are the sets that the user names with ``#``."""

    has_splits = True

    def __init__(self, spec: str, options: SourceOptions) -> None:
        self._options = options
        self._file = load_features(spec, feature_norm=options.feature_norm)
        for note in self._file.notes:
            options.say(note)
        self.name = spec
        self.class_names = self._file.feature_set.class_names
        self.templates = resolve_templates(list(options.prompts) or None)
        self._backbone: Backbone | None = None
        unlabelled = int((self._file.feature_set.labels < 0).sum())
        if unlabelled:
            raise DataError(f"{spec}: {unlabelled} rows have no label.", hint="Label them.")

    def labels(self, split: str) -> list[int]:
        """Label of every row, whatever the split: the set was named by the user."""
        return self._file.feature_set.labels.tolist()

    def splits(self) -> list[str]:
        """The name of the set."""
        return [self._file.set_name]

    def features(
        self, split: str, rows: Sequence[int] | None = None, views: int = 1
    ) -> tuple[FeatureSet, list[BadPicture]]:
        """The rows (all, or ``rows``); none is ever skipped."""
        features = self._file.feature_set
        return (features if rows is None else features.subset(list(rows))), []

    def text_weights(self) -> Tensor | None:
        """(C, D) from the file, else from the class names and the backbone, else None."""
        if self._file.text is not None:
            return normalize(self._file.text)
        if self._options.backbone is None:
            return None
        self._backbone = self._options.load_backbone()
        return _embed_classes(self._backbone, self.class_names, self.templates, self._options)

    @property
    def logit_scale(self) -> float:
        """1/tau as the file tells it, or as the backbone has it."""
        return self._file.logit_scale if self._backbone is None else self._backbone.logit_scale

    def facts(self) -> dict[str, Any]:
        """What a classifier must remember of the source."""
        meta = self._file.meta
        return {
            "data": self.name,
            "backbone": self._options.backbone or self._file.backbone,
            "backbone_fingerprint": meta.get("backbone_fingerprint"),
            "dtype": meta.get("dtype", "float32"),
            "preprocess": meta.get("preprocess", "clip"),
            "templates": list(self.templates) if self._file.text is None else [],
        }


def _embed_classes(
    backbone: Backbone, class_names: list[str], templates: list[str], options: SourceOptions
) -> Tensor:
    """Text weights (C, D) through the store."""
    return text_weights(backbone, class_names, templates, store=options.store(), say=options.say)


Source = PictureSource | FeatureSource


def open_source(spec: str | Path, options: SourceOptions) -> Source:
    """Pictures or features, told by the name.

    Args:
        spec: see ``clip_adapter.data.load.FORMS``.
        options: how to read it.
    """
    if is_feature_spec(spec):
        return FeatureSource(str(spec), options)
    return PictureSource(str(spec), options)
