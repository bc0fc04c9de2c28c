"""Frozen CLIP models by name. Importing this imports neither torch nor open_clip."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_adapter.backbones.base import Backbone, Preprocess, has_made, resolve_device
    from clip_adapter.backbones.load import load_backbone
    from clip_adapter.backbones.names import list_backbones

_HOME = {
    "Backbone": "base",
    "Preprocess": "base",
    "has_made": "base",
    "list_backbones": "names",
    "load_backbone": "load",
    "resolve_device": "base",
}

__all__ = [
    "Backbone",
    "Preprocess",
    "has_made",
    "list_backbones",
    "load_backbone",
    "resolve_device",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
