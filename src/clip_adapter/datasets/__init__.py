"""Labelled pictures: where they come from, how they are decoded, drawn and prepared."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_adapter.datasets.catalog.base import benchmark_names, get_benchmark
    from clip_adapter.datasets.catalog.readers import load_benchmark
    from clip_adapter.datasets.class_names import name_classes
    from clip_adapter.datasets.dataset import Dataset, Sample
    from clip_adapter.datasets.decode import decode
    from clip_adapter.datasets.download.check import check_benchmark
    from clip_adapter.datasets.download.get import fetch_benchmark
    from clip_adapter.datasets.open import is_feature_spec, load_dataset
    from clip_adapter.datasets.splits import FewShotSplit, sample_few_shot
    from clip_adapter.datasets.templates import TEMPLATES, resolve_templates
    from clip_adapter.datasets.transforms import make_transform, view_seed

__all__ = [
    "TEMPLATES",
    "Dataset",
    "FewShotSplit",
    "Sample",
    "benchmark_names",
    "check_benchmark",
    "decode",
    "fetch_benchmark",
    "get_benchmark",
    "is_feature_spec",
    "load_benchmark",
    "load_dataset",
    "make_transform",
    "name_classes",
    "resolve_templates",
    "sample_few_shot",
    "view_seed",
]

# Looked up on first use: transforms need torch, which takes most of a second to import.
_HOME = {
    "TEMPLATES": "templates",
    "Dataset": "dataset",
    "FewShotSplit": "splits",
    "Sample": "dataset",
    "benchmark_names": "catalog.base",
    "check_benchmark": "download.check",
    "decode": "decode",
    "fetch_benchmark": "download.get",
    "get_benchmark": "catalog.base",
    "is_feature_spec": "open",
    "load_benchmark": "catalog.readers",
    "load_dataset": "open",
    "make_transform": "transforms",
    "name_classes": "class_names",
    "resolve_templates": "templates",
    "sample_few_shot": "splits",
    "view_seed": "transforms",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
