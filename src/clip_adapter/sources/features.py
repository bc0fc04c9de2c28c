"""``FeatureSource``: features that were made before, with or without text weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from clip_adapter.backbones.base import Backbone, has_made
from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.datasets.open import DataSpec
from clip_adapter.datasets.templates import resolve_templates
from clip_adapter.errors import DataError
from clip_adapter.features.embed import BadPicture
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features
from clip_adapter.nn import normalize
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import log
from clip_adapter.sources.base import Source, refuse
from clip_adapter.wording import told_apart


class FeatureSource(Source):
    """One set of a feature file; its splits are the sets that the user names with ``#``."""

    IGNORES = ("class_names", "views", "preprocess", "root", "runtime")

    def __init__(self, spec: DataSpec, options: SourceOptions) -> None:
        refuse(spec, "features", self.IGNORES, options)
        file = load_features(spec, feature_norm=options.feature_norm)
        self._features, self._text, self._scale = file.feature_set, file.text, file.logit_scale
        self.holds, self.set_name = frozenset(), file.set_name
        self.other_splits = [name for name in file.sets if name != file.set_name]
        templates = resolve_templates(list(options.prompts) or None)
        if file.text is not None:
            refuse(spec, "text weights", ("prompts", "descriptions"), options)
            self.holds, self.idle_backbone = frozenset({"text"}), options.backbone or ""
            templates = []
        elif options.backbone is None:
            refuse(spec, "features, and no backbone is named", ("descriptions",), options)
        stated = {"dtype": "float32", **file.meta}
        super().__init__(
            spec.text, self._features.class_names, templates, options, file.notes, stated
        )

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
        if self.fingerprint is not None and not has_made(backbone, self.fingerprint):
            then, now = told_apart(self.fingerprint, backbone.fingerprint)
            raise DataError(
                f"{self.name} was made by {stated or 'a backbone'} with the weights "
                f"{then}; {backbone.name} has {now}.",
                hint=hint,
            )
        if self.fingerprint is None and stated not in (None, backbone.name, self._options.backbone):
            log.warning(
                f"{self.name} says that {stated!r} made its features; the class names are "
                f"embedded by {backbone.name!r}. If these are not the same, scores mean nothing."
            )
        return backbone

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
