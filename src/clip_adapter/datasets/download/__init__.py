"""Fetching and checking the paper's data sets."""

from clip_adapter.datasets.download.check import check_benchmark
from clip_adapter.datasets.download.get import fetch_benchmark

__all__ = ["check_benchmark", "fetch_benchmark"]
