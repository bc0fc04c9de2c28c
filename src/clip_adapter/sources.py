"""``Source``: pictures or ready-made features, opened the same way by ``fit`` and ``evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_adapter.backbones import Backbone
from clip_adapter.datasets.coverage import thin_classes
from clip_adapter.datasets.dataset import UNSPLIT
from clip_adapter.datasets.descriptions import Descriptions, read_descriptions
from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.datasets.open import is_feature_spec, load_dataset, takes_root
from clip_adapter.datasets.templates import resolve_templates
from clip_adapter.errors import DataError, MissingTextError, UsageError
from clip_adapter.features.embed import BadPicture, extract
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features
from clip_adapter.features.pixels import Pictures
from clip_adapter.features.text import text_weights
from clip_adapter.nn import normalize
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import log
from clip_adapter.wording import listed


class PictureSource:
    """A folder, a table or a hub data set, seen through a backbone."""

    # By the notes on the data, and on pictures that cannot be read.
    names_empty_classes = True

    def __init__(self, spec: str, options: SourceOptions) -> None:
        self._options = options
        ignored = ["feature_norm"]
        if not takes_root(spec, options.root):
            ignored.append("root")
        refuse(spec, "pictures", ignored, options)
        self._data = load_dataset(
            spec,
            root=options.root,
            class_names=options.class_names,
            prompts=list(options.prompts) or None,
        )
        for note in self._data.notes:
            log.info(note)
        self.name = self._data.name
        self.class_names = self._data.class_names
        self.descriptions = _descriptions(self.class_names, options)
        alone = self.descriptions is not None and not options.prompts
        self.templates = [] if alone else self._data.templates
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
        self,
        split: str,
        rows: Sequence[int] | None = None,
        views: int = 1,
        other: Backbone | None = None,
    ) -> tuple[FeatureSet, list[BadPicture]]:
        """Features of ``split``, or of its ``rows`` in that order, and the skipped pictures.

        With ``other`` they are of that backbone, and nothing is said of the pictures again.
        """
        samples = self._data.pool(split)
        chosen = samples if rows is None else [samples[i] for i in rows]
        features, skipped = extract(
            other or self.backbone,
            chosen,
            self.class_names,
            store=self._options.store(),
            style=self._options.style,
            views=views,
            batch_size=self._options.batch_size,
            strict=self._options.strict,
        )
        if other is None and split in ("train", UNSPLIT):
            before, names = [s.label for s in chosen], self.class_names
            for note in thin_classes(
                before, features.labels.tolist(), names, drawn=rows is not None
            ):
                log.info(note)
        return features, skipped

    def check_pictures(self, method: str) -> None:
        """Nothing: there are pictures."""

    def check_backbone(self, method: str, runs_tower: bool) -> None:
        """Nothing: the backbone reads the pictures."""

    def tower(self) -> Backbone:
        """The backbone, for methods that run it."""
        return self.backbone

    def pictures(
        self, split: str, rows: Sequence[int] | None, skipped: set[str], digests: Sequence[str]
    ) -> Pictures:
        """Pixels of the pictures whose features :meth:`features` gave, in that order.

        Args:
            split: as given there.
            rows: as given there.
            skipped: names of the pictures that it skipped.
            digests: content digests of the others.
        """
        samples = self._data.pool(split)
        chosen = samples if rows is None else [samples[i] for i in rows]
        kept = [s for s in chosen if s.name not in skipped]
        return Pictures(kept, digests, self.backbone.preprocess, self._options.style)

    def text_weights(self) -> Tensor | None:
        """(C, D) of unit length; None where the backbone encodes pictures only."""
        return _embed_classes(self.backbone, self, self._options)

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
            **({"descriptions": self.descriptions.facts()} if self.descriptions else {}),
        }


class FeatureSource:
    """One set of a feature file; its splits are the sets that the user names with ``#``."""

    has_splits = True
    names_empty_classes = False

    def __init__(self, spec: str, options: SourceOptions) -> None:
        self._options = options
        refuse(spec, "features", ("class_names", "views", "style", "root"), options)
        self._file = load_features(spec, feature_norm=options.feature_norm)
        if self._file.text is not None:
            refuse(spec, "text weights", ("prompts", "descriptions"), options)
        elif options.backbone is None:
            refuse(spec, "features, and no backbone is named", ("descriptions",), options)
        for note in self._file.notes:
            log.info(note)
        self.name = spec
        self.class_names = self._file.feature_set.class_names
        self.descriptions = _descriptions(self.class_names, options)
        alone = self.descriptions is not None and not options.prompts
        self.templates = [] if alone else resolve_templates(list(options.prompts) or None)
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
        check_opening(self.name)
        features = self._file.feature_set
        if rows is None:
            return features, []
        drawn = features.subset(list(rows))
        labels = drawn.labels.tolist()
        for note in thin_classes(labels, labels, self.class_names, drawn=True):
            log.info(note)
        return drawn, []

    def check_pictures(self, method: str) -> None:
        """Stops.

        Raises:
            UsageError: features are no pictures.
        """
        raise UsageError(
            f"{method} trains inside the backbone and reads pictures; {self.name} holds features.",
            hint="Give the pictures, or take a method that reads features: "
            "'clip-adapter ls methods' tells which.",
        )

    def pictures(
        self, split: str, rows: Sequence[int] | None, skipped: set[str], digests: Sequence[str]
    ) -> Pictures:
        """Stops, as :meth:`check_pictures`."""
        self.check_pictures("This")
        raise AssertionError

    def tower(self) -> Backbone | None:
        """The backbone that the user named, loaded at the first use, if any.

        Raises:
            DataError: the file was made by other weights than the backbone's.
        """
        if self._backbone is None and self._options.backbone is not None:
            backbone = self._options.load_backbone()
            self._check(backbone)
            self._backbone = backbone
        return self._backbone

    def check_backbone(self, method: str, runs_tower: bool) -> None:
        """Stops where a backbone is named and ``method`` would make no use of it.

        Raises:
            UsageError: the file holds text weights, and ``method`` runs no tower.
        """
        named = self._options.backbone
        if named is not None and self._file.text is not None and not runs_tower:
            raise UsageError(
                f"--backbone {named}: the file {self.name} holds text weights, so nothing would "
                f"be made by the backbone: {method} reads features.",
                hint="Leave --backbone away.",
            )

    def text_weights(self) -> Tensor | None:
        """(C, D) from the file, else from the class names and the backbone, else None.

        Raises:
            DataError: the file was made by other weights than the backbone's.
        """
        if self._file.text is not None:
            return normalize(self._file.text)
        backbone = self.tower()
        return None if backbone is None else _embed_classes(backbone, self, self._options)

    def _check(self, backbone: Backbone) -> None:
        """Whether ``backbone`` can have made the features, as far as the file tells."""
        told, dim = self._file.backbone, self._file.feature_set.dim
        if dim != backbone.embed_dim:
            raise DataError(
                f"{self.name} holds features of {dim} numbers; those of {backbone.name} have "
                f"{backbone.embed_dim}.",
                hint="Name the backbone that made the features.",
            )
        if self.fingerprint is not None:
            if self.fingerprint != backbone.fingerprint:
                raise DataError(
                    f"{self.name} was made by {told or 'a backbone'} with the weights "
                    f"{self.fingerprint[:12]}; {backbone.name} has {backbone.fingerprint[:12]}.",
                    hint="Name the backbone that made the features.",
                )
        elif told and told not in (backbone.name, self._options.backbone):
            log.info(
                f"Warning: {self.name} says that {told!r} made its features; the class names are "
                f"embedded by {backbone.name!r}. If these are not the same, scores mean nothing."
            )

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the backbone that made the features, where the file tells it."""
        return self._file.meta.get("backbone_fingerprint")

    @property
    def set_name(self) -> str:
        """The set inside the file."""
        return self._file.set_name

    @property
    def logit_scale(self) -> float:
        """1/tau as the file tells it, or as the backbone has it."""
        return self._file.logit_scale if self._backbone is None else self._backbone.logit_scale

    def facts(self) -> dict[str, Any]:
        """What a classifier must remember of the source."""
        meta, made = self._file.meta, self._backbone
        return {
            "data": self.name,
            # Only what is known: the backbone that was named counts once it made the text.
            "backbone": self._file.backbone if made is None else made.name,
            "backbone_fingerprint": self.fingerprint if made is None else made.fingerprint,
            "dtype": meta.get("dtype", "float32"),
            "preprocess": meta.get("preprocess", "clip"),
            "templates": list(self.templates) if self._file.text is None else [],
            **({"descriptions": self.descriptions.facts()} if self.descriptions else {}),
        }


def refuse(spec: str, holds: str, names: Sequence[str], options: SourceOptions) -> None:
    """Stops at options that would be ignored.

    Args:
        spec: the source, to show.
        holds: what it holds, to show.
        names: fields of ``options`` that have no meaning here.
        options: as the user chose them.

    Raises:
        UsageError: one of ``names`` is not at its default.
    """
    plain = SourceOptions()
    given = [name for name in names if getattr(options, name) != getattr(plain, name)]
    if given:
        flags = ["--" + name.removesuffix("s" if name == "prompts" else "") for name in given]
        raise UsageError(
            f"{spec} holds {holds}: {', '.join(given)} "
            f"({', '.join(flags).replace('_', '-')}) would change nothing.",
            hint="Leave it away." if len(given) == 1 else "Leave them away.",
        )


def _descriptions(class_names: list[str], options: SourceOptions) -> Descriptions | None:
    """The sentences on the classes, if the user gave any; says what of the file is left over."""
    if options.descriptions is None:
        return None
    found = read_descriptions(options.descriptions, class_names)
    if found.others:
        log.info(f"{found.name} also describes other classes: {listed(found.others)}.")
    return found


def _embed_classes(backbone: Backbone, source: Source, options: SourceOptions) -> Tensor | None:
    """Text weights (C, D) through the store; None where the backbone encodes pictures only.

    Raises:
        MissingTextError: so it does, and prompts or descriptions were given.
    """
    sentences = None if source.descriptions is None else source.descriptions.sentences
    try:
        return text_weights(
            backbone,
            source.class_names,
            source.templates,
            descriptions=sentences,
            store=options.store(),
        )
    except MissingTextError:
        if options.prompts or sentences:
            raise
        return None


Source = PictureSource | FeatureSource


def open_source(spec: str | Path, options: SourceOptions) -> Source:
    """Pictures or features, told by the name.

    Args:
        spec: see ``clip_adapter.datasets.open.FORMS``.
        options: how to read it.
    """
    if is_feature_spec(spec):
        return FeatureSource(str(spec), options)
    return PictureSource(str(spec), options)
