"""Scores on data that the method has not seen. Only this package opens a test split."""

from clip_adapter.evaluation.evaluate import Report, evaluate, held_out_features, open_for

__all__ = ["Report", "evaluate", "held_out_features", "open_for"]
