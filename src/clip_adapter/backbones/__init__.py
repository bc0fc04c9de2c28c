"""Frozen CLIP models by name. Importing this does not import open_clip."""

from clip_adapter.backbones.base import Backbone, Preprocess, resolve_device
from clip_adapter.backbones.names import list_backbones, load_backbone

__all__ = ["Backbone", "Preprocess", "list_backbones", "load_backbone", "resolve_device"]
