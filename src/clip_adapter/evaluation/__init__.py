"""Scores on data that the method has not seen. Only this package opens a test split."""

from clip_adapter.evaluation.evaluate import evaluate
from clip_adapter.evaluation.report import Report

__all__ = ["Report", "evaluate"]
