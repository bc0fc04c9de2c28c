"""``Source``: pictures or ready-made features, opened the same way by ``fit`` and ``evaluate``."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from clip_adapter.backbones import Backbone
from clip_adapter.datasets.coverage import thin_classes
from clip_adapter.datasets.dataset import UNSPLIT, Sample
from clip_adapter.datasets.descriptions import read_descriptions
from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.datasets.open import is_feature_spec, load_dataset, takes_root
from clip_adapter.datasets.templates import resolve_templates
from clip_adapter.errors import DataError, MissingTextError, UsageError
from clip_adapter.features.embed import BadPicture, embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features
from clip_adapter.features.pixels import Pictures
from clip_adapter.features.text import text_weights
from clip_adapter.nn import normalize
from clip_adapter.options import SourceOptions, changed, flag_of
from clip_adapter.reporting import log
from clip_adapter.wording import listed

Offer = Literal["text", "pixels", "backbone"]


class Source(ABC):
    """Labelled pictures or features.

    Attributes:
        name: what it is called.
        class_names: C names in label order.
        templates: the prompts; none where descriptions stand alone.
        descriptions: the sentences on the classes that the user gave, or None.
        offers: what a method can have of it: "text" (text weights), "pixels", "backbone".
        has_splits: whether training and test pictures are separate.
        set_name: the set inside a feature file; None for pictures.
        fingerprint: of the backbone that made ready-made features, where the file states it.
        idle_backbone: a named backbone that only a method which runs one of its towers would use;
            "" for none.
        names_empty_classes: whether its notes name the classes without pictures.
    """

    IGNORES: ClassVar[tuple[str, ...]] = ()
    """Fields of the options that have no meaning for it."""
    name: str
    offers: frozenset[Offer] = frozenset({"text", "pixels", "backbone"})
    has_splits: bool = True
    set_name: str | None = None
    fingerprint: str | None = None
    idle_backbone: str = ""
    names_empty_classes: bool = False
    _backbone: Backbone | None = None

    def __init__(
        self, class_names: list[str], templates: list[str], options: SourceOptions
    ) -> None:
        self.class_names, self._options = class_names, options
        self.descriptions = None
        if options.descriptions is not None:
            self.descriptions = read_descriptions(options.descriptions, class_names)
            if others := self.descriptions.others:
                name = self.descriptions.name
                log.warning(f"{name} also describes other classes: {listed(others)}.")
        alone = self.descriptions is not None and not options.prompts
        self.templates = [] if alone else templates

    @property
    @abstractmethod
    def backbone(self) -> Backbone | None:
        """The backbone, loaded at the first use; None for features of which none was named."""

    def use(self, backbone: Backbone) -> None:
        """Take ``backbone`` in place of the one that the options name."""
        self._backbone = backbone

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """1/tau of the backbone."""

    @abstractmethod
    def labels(self, split: str) -> list[int]:
        """Label of every picture of ``split``."""

    @abstractmethod
    def splits(self) -> list[str]:
        """Names of the splits that hold pictures."""

    @abstractmethod
    def _read(
        self, split: str, rows: Sequence[int] | None, views: int, other: Backbone | None
    ) -> tuple[FeatureSet, list[BadPicture]]: ...

    def features(
        self,
        split: str,
        rows: Sequence[int] | None = None,
        views: int = 1,
        other: Backbone | None = None,
    ) -> tuple[FeatureSet, list[BadPicture]]:
        """Features of ``split``, or of its ``rows`` in that order, and the skipped pictures.

        With ``other`` they are of that backbone, and notes on the pictures are not repeated.
        """
        features, skipped = self._read(split, rows, views, other)
        if other is None and split in ("train", UNSPLIT):
            labels = self.labels(split)
            before = labels if rows is None else [labels[i] for i in rows]
            after, drawn = features.labels.tolist(), rows is not None
            for note in thin_classes(before, after, self.class_names, drawn=drawn):
                log.warning(note)
        return features, skipped

    def pictures(
        self, split: str, rows: Sequence[int] | None, skipped: set[str], digests: Sequence[str]
    ) -> Pictures:
        """Pixels of the pictures whose features :meth:`features` gave, in that order.

        Args:
            split: as given there.
            rows: as given there.
            skipped: names of the pictures that it skipped.
            digests: content digests of the others.

        Raises:
            UsageError: it offers no pixels.
        """
        raise UsageError(f"{self.name} holds no pictures.", hint="Give the pictures.")

    def text_weights(self) -> Tensor | None:
        """(C, D) of unit length, from the class names and the backbone.

        None where there is no backbone, or one that encodes pictures only.

        Raises:
            MissingTextError: the backbone encodes pictures only, and prompts or descriptions were
                given.
        """
        if self.backbone is None:
            return None
        try:
            return text_weights(
                self.backbone,
                self.class_names,
                self.templates,
                descriptions=self.descriptions and self.descriptions.sentences,
                store=self._options.store(),
            )
        except MissingTextError:
            if self._options.prompts or self.descriptions:
                raise
            return None

    @abstractmethod
    def made_by(self) -> dict[str, Any]:
        """What its features and text are made by.

        These are ``backbone, backbone_fingerprint, dtype, preprocess, templates``.
        """

    def facts(self) -> dict[str, Any]:
        """What a classifier must remember of the source."""
        described = {"descriptions": self.descriptions.facts()} if self.descriptions else {}
        return {"data": self.name, **self.made_by(), **described}


class PictureSource(Source):
    """A folder, a table or a hub data set, seen through a backbone."""

    IGNORES = ("feature_norm",)
    # By the notes on the data, and on pictures that cannot be read.
    names_empty_classes = True

    def __init__(self, spec: str, options: SourceOptions) -> None:
        root = () if takes_root(spec, options.root) else ("root",)
        refuse(spec, "pictures", (*self.IGNORES, *root), options)
        self._data = load_dataset(
            spec,
            root=options.root,
            class_names=options.class_names,
            prompts=list(options.prompts) or None,
        )
        for note in self._data.notes:
            log.warning(note)
        self.name, self.has_splits = self._data.name, self._data.has_splits
        super().__init__(self._data.class_names, self._data.templates, options)

    @property
    def backbone(self) -> Backbone:
        """The backbone, loaded at the first use."""
        if self._backbone is None:
            self._backbone = self._options.load_backbone()
        return self._backbone

    @property
    def logit_scale(self) -> float:
        """1/tau of the backbone."""
        return self.backbone.logit_scale

    def labels(self, split: str) -> list[int]:
        """Label of every picture of ``split``."""
        return [sample.label for sample in self._data.pool(split)]

    def splits(self) -> list[str]:
        """Names of the splits that hold pictures."""
        return [split for split, samples in self._data.splits.items() if samples]

    def _samples(self, split: str, rows: Sequence[int] | None) -> list[Sample]:
        pool = self._data.pool(split)
        return pool if rows is None else [pool[i] for i in rows]

    def _read(
        self, split: str, rows: Sequence[int] | None, views: int, other: Backbone | None
    ) -> tuple[FeatureSet, list[BadPicture]]:
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

    def made_by(self) -> dict[str, Any]:
        """What its features and text are made by."""
        return {
            "backbone": self.backbone.name,
            "backbone_fingerprint": self.backbone.fingerprint,
            "dtype": self.backbone.dtype,
            "preprocess": self._options.preprocess,
            "templates": list(self.templates),
        }


class FeatureSource(Source):
    """One set of a feature file; its splits are the sets that the user names with ``#``."""

    IGNORES = ("class_names", "views", "preprocess", "root")

    def __init__(self, spec: str, options: SourceOptions) -> None:
        refuse(spec, "features", self.IGNORES, options)
        self._file = load_features(spec, feature_norm=options.feature_norm)
        has_text = self._file.text is not None
        if has_text:
            refuse(spec, "text weights", ("prompts", "descriptions"), options)
            self.idle_backbone = options.backbone or ""
        elif options.backbone is None:
            refuse(spec, "features, and no backbone is named", ("descriptions",), options)
        for note in self._file.notes:
            log.warning(note)
        self.name, self.set_name = spec, self._file.set_name
        self.fingerprint = self._file.meta.get("backbone_fingerprint")
        named = options.backbone is not None
        offers: dict[Offer, bool] = {"text": has_text or named, "backbone": named}
        self.offers = frozenset(offer for offer, there in offers.items() if there)
        templates = resolve_templates(list(options.prompts) or None)
        super().__init__(self._file.feature_set.class_names, templates, options)
        if unlabelled := int((self._file.feature_set.labels < 0).sum()):
            raise DataError(f"{spec}: {unlabelled} rows have no label.", hint="Label them.")

    @property
    def backbone(self) -> Backbone | None:
        """The backbone that the user named, loaded at the first use, if any.

        Raises:
            DataError: the file was made by other weights than the backbone's.
        """
        if self._backbone is None and self._options.backbone is not None:
            self._backbone = self._checked(self._options.load_backbone())
        return self._backbone

    def _checked(self, backbone: Backbone) -> Backbone:
        """``backbone``, if the file does not say that another one made its features.

        Raises:
            DataError: the size of the features or the fingerprint is another one.
        """
        stated = self._file.backbone
        if (dim := self._file.feature_set.dim) != backbone.embed_dim:
            raise DataError(
                f"{self.name} holds features of {dim} numbers; those of {backbone.name} have "
                f"{backbone.embed_dim}.",
                hint="Name the backbone that made the features.",
            )
        if self.fingerprint is None and stated not in (None, backbone.name, self._options.backbone):
            log.warning(
                f"Warning: {self.name} says that {stated!r} made its features; the class names are "
                f"embedded by {backbone.name!r}. If these are not the same, scores mean nothing."
            )
        if self.fingerprint not in (None, backbone.fingerprint):
            raise DataError(
                f"{self.name} was made by {stated or 'a backbone'} with the weights "
                f"{self.fingerprint[:12]}; {backbone.name} has {backbone.fingerprint[:12]}.",
                hint="Name the backbone that made the features.",
            )
        return backbone

    @property
    def logit_scale(self) -> float:
        """1/tau of the loaded backbone, else of the file."""
        return self._file.logit_scale if self._backbone is None else self._backbone.logit_scale

    def labels(self, split: str) -> list[int]:
        """Label of every row, whatever the split: the set was named by the user."""
        return self._file.feature_set.labels.tolist()

    def splits(self) -> list[str]:
        """The name of the set."""
        return [self._file.set_name]

    def _read(
        self, split: str, rows: Sequence[int] | None, views: int, other: Backbone | None
    ) -> tuple[FeatureSet, list[BadPicture]]:
        check_opening(self.name)
        features = self._file.feature_set
        return features if rows is None else features.subset(list(rows)), []

    def text_weights(self) -> Tensor | None:
        """(C, D) from the file, else from the class names and the backbone, else None."""
        return super().text_weights() if self._file.text is None else normalize(self._file.text)

    def made_by(self) -> dict[str, Any]:
        """What its features and text were made by, as far as it is known.

        That is the file's own statement, or the named backbone once it was loaded.
        """
        meta, used = self._file.meta, self._backbone
        return {
            "backbone": self._file.backbone if used is None else used.name,
            "backbone_fingerprint": self.fingerprint if used is None else used.fingerprint,
            "dtype": meta.get("dtype", "float32"),
            "preprocess": meta.get("preprocess", "clip"),
            "templates": list(self.templates) if self._file.text is None else [],
        }


def refuse(spec: str, holds: str, names: Sequence[str], options: SourceOptions) -> None:
    """Stop at options that would be ignored.

    Args:
        spec: the source, to show.
        holds: what it holds, to show.
        names: fields of ``options`` that have no meaning here.
        options: as the user chose them.

    Raises:
        UsageError: one of ``names`` is not at its default.
    """
    if given := [name for name in names if name in changed(options)]:
        flags = [flag_of(SourceOptions, name) for name in given]
        raise UsageError(
            f"{spec} holds {holds}: {', '.join(given)} ({', '.join(flags)}) would change nothing.",
            hint="Leave it away." if len(given) == 1 else "Leave them away.",
        )


def open_source(spec: str | Path, options: SourceOptions, **preferred: Any) -> Source:
    """The source that ``spec`` names: pictures or features.

    Args:
        spec: see ``clip_adapter.datasets.open.FORMS``.
        options: how to read it.
        **preferred: values that replace fields of ``options``; those that the kind of source
            ignores are left out.
    """
    kind = FeatureSource if is_feature_spec(spec) else PictureSource
    read = {name: value for name, value in preferred.items() if name not in kind.IGNORES}
    return kind(str(spec), dataclasses.replace(options, **read))
