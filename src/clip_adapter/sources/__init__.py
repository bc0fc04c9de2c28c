"""Pictures or ready-made features, opened the same way by ``fit`` and ``evaluate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from clip_adapter.datasets.open import is_feature_spec
from clip_adapter.errors import UsageError
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import Notes
from clip_adapter.sources.base import Source, refuse
from clip_adapter.sources.features import FeatureSource
from clip_adapter.sources.pictures import PictureSource

__all__ = ["FeatureSource", "PictureSource", "Source", "open_source", "refuse"]


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
