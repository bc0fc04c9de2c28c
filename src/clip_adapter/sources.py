"""``Source``: pictures or ready-made features, opened the same way by ``fit`` and ``evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from clip_adapter.backbones import Backbone, load_backbone
from clip_adapter.backbones.memory import Say, silent
from clip_adapter.data.class_names import ClassNames
from clip_adapter.data.load import is_feature_spec, load_dataset
from clip_adapter.data.templates import resolve_templates
from clip_adapter.errors import DataError
from clip_adapter.features.extract import BadPicture, extract
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.precomputed import load_features
from clip_adapter.features.store import FeatureStore
from clip_adapter.features.text import text_weights

# The smallest of CLIP's own models: good on photographs, and quick on a laptop.
DEFAULT_BACKBONE = "ViT-B-32/openai"


@dataclass(frozen=True)
class SourceOptions:
    """How to read a source.

    Attributes:
        backbone: name; None is ``DEFAULT_BACKBONE`` for pictures and none for features.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "float32", "float16" or "bfloat16", of the backbone.
        prompts: templates, or names of built-in ones; several are an ensemble.
        class_names: a table that rewrites the names of the source.
        root: where relative paths of a table start.
        style: preprocessing, "clip" or "coop".
        views: augmented views of every training picture; 1 is the plain picture.
        cache: folder of the feature store; None is the user's cache folder.
        strict: a picture that cannot be read is an error.
        batch_size: pictures per pass of the backbone.
        feature_norm: of ready-made features.
        say: receives lines for the user.
        progress: shows a bar; None shows it on a terminal.
    """

    backbone: str | None = None
    device: str = "auto"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    prompts: Sequence[str] = ()
    class_names: ClassNames | None = None
    root: str | Path | None = None
    style: Literal["clip", "coop"] = "clip"
    views: int = 1
    cache: str | Path | None = None
    strict: bool = False
    batch_size: int = 64
    feature_norm: Literal["auto", "raw", "unit"] = "auto"
    say: Say = field(default=silent, repr=False)
    progress: bool | None = None

    def load_backbone(self, default: str | None = None) -> Backbone:
        """The backbone named, or ``default``."""
        name = self.backbone or default or DEFAULT_BACKBONE
        return load_backbone(name, device=self.device, dtype=self.dtype, say=self.say)

    def store(self) -> FeatureStore:
        """The feature store."""
        return FeatureStore(self.cache, say=self.say)


class PictureSource:
    """A folder, a table or a hub data set, seen through a backbone."""

    def __init__(self, spec: str, options: SourceOptions, backbone: Backbone | None = None) -> None:
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
        self._given = backbone

    @property
    def backbone(self) -> Backbone:
        """The backbone, loaded at the first use."""
        if self._given is None:
            self._given = self._options.load_backbone()
        return self._given

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
        return text_weights(
            self.backbone,
            self.class_names,
            self.templates,
            store=self._options.store(),
            say=self._options.say,
        )

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
            return torch.nn.functional.normalize(self._file.text, dim=-1)
        if self._options.backbone is None:
            return None
        self._backbone = self._options.load_backbone()
        return text_weights(
            self._backbone,
            self.class_names,
            self.templates,
            store=self._options.store(),
            say=self._options.say,
        )

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


Source = PictureSource | FeatureSource


def open_source(
    spec: str | Path, options: SourceOptions, backbone: Backbone | None = None
) -> Source:
    """Pictures or features, told by the name.

    Args:
        spec: see ``clip_adapter.data.load.FORMS``.
        options: how to read it.
        backbone: one that is loaded already, for pictures.
    """
    if is_feature_spec(spec):
        return FeatureSource(str(spec), options)
    return PictureSource(str(spec), options, backbone)
