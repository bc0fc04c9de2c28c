"""``Source``: pictures or ready-made features, opened the same way by ``fit`` and ``evaluate``."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from clip_adapter.backbones.base import Backbone, best_device, resolve_device
from clip_adapter.backbones.choice import resolve
from clip_adapter.backbones.names import DEMO, DEMO_WORDS
from clip_adapter.datasets.dataset import UNSPLIT, Sample
from clip_adapter.datasets.descriptions import read_descriptions
from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.datasets.open import is_feature_spec, load_dataset, takes_root
from clip_adapter.datasets.templates import resolve_templates
from clip_adapter.errors import DataError, Offer, UsageError
from clip_adapter.features.embed import BadPicture, embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features
from clip_adapter.features.pixels import Pictures
from clip_adapter.features.text import text_weights
from clip_adapter.nn import normalize
from clip_adapter.options import SourceOptions, changed, flag_of
from clip_adapter.reporting import Notes, log, note, warn_once
from clip_adapter.wording import listed


class Source(ABC):
    """Labelled pictures or features.

    Args:
        name: what it is called.
        class_names: C names in label order.
        templates: the prompts.
        options: how to read it.
        notes: what the user should know of it, a line each.
        stated: what a file states of the features in it, as ``backbone, backbone_fingerprint,
            dtype, preprocess``.

    Attributes:
        name, class_names: as given.
        templates: the prompts; none where descriptions stand alone.
        descriptions: the sentences on the classes that the user gave, or None.
        holds: what is there without a backbone: "pixels", or "text" (text weights) in a file.
        has_splits: whether training and test pictures are separate.
        has_test: whether a split of it is for testing.
        set_name: the set inside a feature file; None for pictures.
        notes: what the user should know of it, a line each.
        fingerprint: of the backbone that made ready-made features, where the file states it.
        idle_backbone: a named backbone that only a method which runs one of its towers would use;
            "" for none.
        shots: how many pictures of a class will be drawn, where that is known.
    """

    IGNORES: ClassVar[tuple[str, ...]] = ()
    """Fields of the options that have no meaning for it."""
    holds: frozenset[Offer] = frozenset({"pixels"})
    has_splits: bool = True
    has_test: bool = False
    set_name: str | None = None
    idle_backbone: str = ""
    shots: int | None = None
    _backbone: Backbone | None = None
    _scale: float = 100.0

    def __init__(
        self,
        name: str,
        class_names: list[str],
        templates: list[str],
        options: SourceOptions,
        notes: Sequence[str],
        stated: Mapping[str, str],
    ) -> None:
        for line in notes:
            # What was understood of pictures may have left some out.
            (note if "pixels" in self.holds else log.warning)(line)
        self.name, self.class_names, self.templates = name, class_names, templates
        self._options, self._stated, self.descriptions = options, stated, None
        self.fingerprint, self.notes = stated.get("backbone_fingerprint"), list(notes)
        if options.descriptions is not None:
            self.descriptions = read_descriptions(options.descriptions, class_names)
            self.templates = templates if options.prompts else []
            if others := self.descriptions.others:
                self.notes.append(
                    f"{self.descriptions.name} also describes other classes: {listed(others)}."
                )
                log.warning(self.notes[-1])

    @property
    def backbone(self) -> Backbone | None:
        """The backbone, loaded at the first use; None for features of which none was named.

        Raises:
            DataError: a file of features was made by other weights than the backbone's.
        """
        return None if self._options.backbone is None else self._loaded()

    def _loaded(self) -> Backbone:
        if self._backbone is None:
            self._backbone = self._options.load_backbone()
        return self._backbone

    @property
    def device(self) -> str:
        """Where to compute: on that of the backbone, where one is loaded."""
        if self._backbone is not None:
            return self._backbone.device
        chosen = self._options.device
        return best_device() if chosen == "auto" else resolve_device(chosen)

    def use(self, backbone: Backbone) -> None:
        """Take ``backbone`` in place of the one that the options name."""
        self._backbone = backbone

    @property
    def offers(self) -> frozenset[Offer]:
        """What a method can have of it: what it holds, and what its backbone makes of that."""
        if self.backbone is None:
            return self.holds
        made: tuple[Offer, ...] = ("backbone", "text")
        return self.holds.union(made if getattr(self.backbone, "encodes_text", True) else made[:1])

    @property
    def logit_scale(self) -> float:
        """1/tau of the backbone; of a file, as long as no backbone was loaded."""
        used = self._loaded() if "pixels" in self.holds else self._backbone
        return self._scale if used is None else used.logit_scale

    @property
    @abstractmethod
    def other_splits(self) -> list[str]:
        """Splits with pictures beside the one to learn from; of a file, its other sets."""

    @abstractmethod
    def labels(self, split: str) -> list[int]:
        """Label of every picture of ``split``."""

    @abstractmethod
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

    def text_weights(self) -> Tensor | None:
        """(C, D) of unit length, from the class names and the backbone.

        None where there is no backbone, or one that encodes pictures only.

        Raises:
            MissingTextError: the backbone encodes pictures only, and prompts or descriptions were
                given.
        """
        asked = bool(self._options.prompts or self.descriptions)
        if self.backbone is None or not (asked or "text" in self.offers):
            return None
        return text_weights(
            self.backbone,
            self.class_names,
            self.templates,
            descriptions=self.descriptions and self.descriptions.sentences,
            store=self._options.store(),
        )

    def made_by(self) -> dict[str, Any]:
        """What its features and text are made by, as far as it is known.

        Of a file that is its own statement, or the named backbone once it was loaded.
        """
        used = self._loaded() if "pixels" in self.holds else self._backbone
        return {
            "backbone": self._stated.get("backbone") if used is None else used.name,
            "backbone_fingerprint": self.fingerprint if used is None else used.fingerprint,
            "dtype": self._stated.get("dtype", "float32" if used is None else used.dtype),
            "preprocess": self._stated.get("preprocess", self._options.preprocess),
            "templates": list(self.templates),
        }

    def facts(self) -> dict[str, Any]:
        """What a classifier must remember of the source."""
        return {
            "data": self.name,
            **self.made_by(),
            **({"descriptions": self.descriptions.facts()} if self.descriptions else {}),
        }


class PictureSource(Source):
    """A folder, a table or a hub data set, seen through a backbone."""

    IGNORES = ("feature_norm",)

    def __init__(self, spec: str, options: SourceOptions) -> None:
        root = () if takes_root(spec, options.root) else ("root",)
        refuse(spec, "pictures", (*self.IGNORES, *root), options)
        names, prompts = options.class_names, list(options.prompts) or None
        data = load_dataset(spec, root=options.root, class_names=names, prompts=prompts)
        self._data = data
        self.has_splits, self.has_test = data.has_splits, data.has_test
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

    @property
    def other_splits(self) -> list[str]:
        """Splits with pictures beside "train"; none where there are no splits."""
        return [split for split in self.splits() if split not in ("train", UNSPLIT)]

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
        """Pixels of the pictures whose features :meth:`features` gave, in that order.

        Args:
            split: as given there.
            rows: as given there.
            skipped: names of the pictures that it skipped.
            digests: content digests of the others.
        """
        kept = [sample for sample in self._samples(split, rows) if sample.name not in skipped]
        return Pictures(kept, digests, self.backbone.preprocess, self._options.preprocess)


class FeatureSource(Source):
    """One set of a feature file; its splits are the sets that the user names with ``#``."""

    IGNORES = ("class_names", "views", "preprocess", "root")

    def __init__(self, spec: str, options: SourceOptions) -> None:
        refuse(spec, "features", self.IGNORES, options)
        file = load_features(spec, feature_norm=options.feature_norm)
        self._features, self._text, self._scale = file.feature_set, file.text, file.logit_scale
        self.holds, self.set_name = frozenset(), file.set_name
        self._others = [name for name in file.sets if name != file.set_name]
        templates = resolve_templates(list(options.prompts) or None)
        if file.text is not None:
            refuse(spec, "text weights", ("prompts", "descriptions"), options)
            self.holds, self.idle_backbone = frozenset({"text"}), options.backbone or ""
            templates = []
        elif options.backbone is None:
            refuse(spec, "features, and no backbone is named", ("descriptions",), options)
        stated = {"dtype": "float32", **file.meta}
        super().__init__(spec, self._features.class_names, templates, options, file.notes, stated)

    def _loaded(self) -> Backbone:
        if self._backbone is not None:
            return self._backbone
        backbone, stated = super()._loaded(), self._stated.get("backbone")
        hint = "Name the backbone that made the features."
        if (dim := self._features.dim) != backbone.embed_dim:
            raise DataError(
                f"{self.name} holds features of {dim} numbers; those of {backbone.name} have "
                f"{backbone.embed_dim}.",
                hint=hint,
            )
        if self.fingerprint not in (None, backbone.fingerprint):
            raise DataError(
                f"{self.name} was made by {stated or 'a backbone'} with the weights "
                f"{self.fingerprint[:12]}; {backbone.name} has {backbone.fingerprint[:12]}.",
                hint=hint,
            )
        if self.fingerprint is None and stated not in (None, backbone.name, self._options.backbone):
            log.warning(
                f"{self.name} says that {stated!r} made its features; the class names are "
                f"embedded by {backbone.name!r}. If these are not the same, scores mean nothing."
            )
        return backbone

    @property
    def other_splits(self) -> list[str]:
        """The other sets of the file."""
        return self._others

    def labels(self, split: str) -> list[int]:
        """Label of every row, whatever the split: the set was named by the user.

        Raises:
            DataError: a row has none.
        """
        if unlabelled := int((self._features.labels < 0).sum()):
            raise DataError(f"{self.name}: {unlabelled} rows have no label.", hint="Label them.")
        return self._features.labels.tolist()

    def features(
        self,
        split: str,
        rows: Sequence[int] | None = None,
        views: int = 1,
        other: Backbone | None = None,
    ) -> tuple[FeatureSet, list[BadPicture]]:
        """The set, or ``rows`` of it; nothing is skipped."""
        check_opening(self.name)
        return self._features if rows is None else self._features.subset(list(rows)), []

    def text_weights(self) -> Tensor | None:
        """(C, D) from the file, else from the class names and the backbone, else None."""
        return super().text_weights() if self._text is None else normalize(self._text)


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
        flags = ", ".join(flag_of(SourceOptions, name) for name in given)
        raise UsageError(
            f"{spec} holds {holds}: {', '.join(given)} ({flags}) would change nothing.",
            hint="Leave it away." if len(given) == 1 else "Leave them away.",
        )


def open_source(spec: str | Path, options: SourceOptions, **preferred: Any) -> Source:
    """The source that ``spec`` names: pictures or features.

    Args:
        spec: see ``clip_adapter.datasets.open.FORMS``.
        options: how to read it.
        **preferred: values that replace fields of ``options``; those that the kind of source
            ignores are left out.

    Raises:
        UsageError: ``spec`` is something else, such as the pictures themselves.
    """
    if not isinstance(spec, str | Path):
        raise UsageError(
            f"The data is given as {type(spec).__name__}.",
            allowed="a path, or the name of a data set",
            hint="Put pictures into one folder per class, features into a file.",
        )
    kind = FeatureSource if is_feature_spec(spec) else PictureSource
    heeded = {name: value for name, value in preferred.items() if name not in kind.IGNORES}
    with Notes():
        return kind(str(spec), dataclasses.replace(options, **heeded))
