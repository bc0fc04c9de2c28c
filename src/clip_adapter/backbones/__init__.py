"""Frozen CLIP models by name. Importing this does not import open_clip."""

from clip_adapter.backbones.base import Backbone, Preprocess
from clip_adapter.backbones.registry import list_backbones, load_backbone, resolve_device

__all__ = ["Backbone", "Preprocess", "list_backbones", "load_backbone", "resolve_device"]
