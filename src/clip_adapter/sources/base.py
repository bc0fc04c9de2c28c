"""``Source``: what a source offers to a method, whether it holds pictures or features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from clip_adapter.backbones.base import Backbone, best_device, resolve_device, runtime_entry
from clip_adapter.datasets.descriptions import read_descriptions
from clip_adapter.errors import Offer, UsageError, lacking
from clip_adapter.features.embed import BadPicture
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.pixels import Pictures
from clip_adapter.features.text import text_weights
from clip_adapter.options import SourceOptions, changed, flag_of
from clip_adapter.reporting import log, note
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
        other_splits: splits with pictures beside the one to learn from; of a file, its other sets.
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
    other_splits: Sequence[str] = ()
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

    @property
    def _used(self) -> Backbone | None:
        """What its features are of: that of pictures; of a file's only if it was loaded."""
        return self.backbone if "pixels" in self.holds else self._backbone

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
        return self._scale if self._used is None else self._used.logit_scale

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
            UsageError: there are features only.
        """
        raise lacking("pixels", self.name)

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
        used, runtime = self._used, self._stated.get("runtime")
        return {
            "backbone": self._stated.get("backbone") if used is None else used.name,
            "backbone_fingerprint": self.fingerprint if used is None else used.fingerprint,
            "dtype": self._stated.get("dtype", "float32" if used is None else used.dtype),
            **({"runtime": runtime} if runtime else runtime_entry(used)),
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


def refuse(spec: object, holds: str, names: Sequence[str], options: SourceOptions) -> None:
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
