"""Scores on data that the method has not seen. Only this package opens a test split."""

from clip_adapter.evaluation.evaluate import evaluate, held_out_features, open_for
from clip_adapter.evaluation.report import Answer, Report

__all__ = ["Answer", "Report", "evaluate", "held_out_features", "open_for"]
