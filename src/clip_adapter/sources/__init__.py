"""Pictures or ready-made features, opened the same way by ``fit`` and ``evaluate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from clip_adapter.datasets.open import DataSpec, parse_spec
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import Notes
from clip_adapter.sources.base import Source, refuse
from clip_adapter.sources.features import FeatureSource
from clip_adapter.sources.pictures import PictureSource

__all__ = ["FeatureSource", "PictureSource", "Source", "open_source", "refuse"]


def open_source(data: str | Path | DataSpec, options: SourceOptions, **preferred: Any) -> Source:
    """The source that ``data`` names: pictures or features.

    Args:
        data: see ``clip_adapter.datasets.open.FORMS``.
        options: how to read it.
        **preferred: values that replace fields of ``options``; those that the kind of source
            ignores are left out.

    Raises:
        UsageError: ``data`` is something else, such as the pictures themselves.
        DataError: there is nothing of that name, or it cannot be read.
    """
    spec = parse_spec(data, options.root)
    kind = FeatureSource if spec.kind == "features" else PictureSource
    heeded = {name: value for name, value in preferred.items() if name not in kind.IGNORES}
    with Notes():
        return kind(spec, dataclasses.replace(options, **heeded))
