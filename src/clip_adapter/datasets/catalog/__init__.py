"""The paper's eleven data sets and its four shifts of ImageNet: one record each."""

from clip_adapter.datasets.catalog.base import (
    Archive,
    Benchmark,
    HubCopy,
    SideFile,
    benchmark_names,
    get_benchmark,
    known_benchmark,
)

__all__ = [
    "Archive",
    "Benchmark",
    "HubCopy",
    "SideFile",
    "benchmark_names",
    "get_benchmark",
    "known_benchmark",
]
