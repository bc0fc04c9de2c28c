"""Labelled pictures: where they come from, how they are decoded, drawn and prepared."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_adapter.data.benchmarks.base import benchmark_names, get_benchmark
    from clip_adapter.data.benchmarks.readers import load_benchmark
    from clip_adapter.data.check import check_benchmark
    from clip_adapter.data.class_names import name_classes
    from clip_adapter.data.dataset import Dataset, Sample
    from clip_adapter.data.decode import decode
    from clip_adapter.data.get import fetch_benchmark
    from clip_adapter.data.load import is_feature_spec, load_dataset
    from clip_adapter.data.splits import FewShotSplit, sample_few_shot
    from clip_adapter.data.templates import TEMPLATES, resolve_templates
    from clip_adapter.data.transforms import make_transform, view_seed

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
    "benchmark_names": "benchmarks.base",
    "check_benchmark": "check",
    "decode": "decode",
    "fetch_benchmark": "get",
    "get_benchmark": "benchmarks.base",
    "is_feature_spec": "load",
    "load_benchmark": "benchmarks.readers",
    "load_dataset": "load",
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
