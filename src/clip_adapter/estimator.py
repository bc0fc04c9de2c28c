"""``FewShotClassifier``: every feature method as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from clip_adapter.datasets.coverage import coverage
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import row_digests
from clip_adapter.fitting import fit_task
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.options import DEFAULT_METHOD
from clip_adapter.reporting import warn


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """A few-shot classifier over features (n, D), for pipelines and grid searches.

    Args:
        method: a name from ``clip-adapter ls methods``. The default uses
            text weights where it is given any.
        text_weights: (C, D) text features in the order of ``sorted(set(y))``, for the methods that
            need them.
        logit_scale: 1/tau of the backbone, about 100.
        options: hyper-parameters of the method, by name.
        seed: the only source of randomness.

    Attributes:
        classifier_: the fitted :class:`~clip_adapter.Classifier`.
        classes_: the labels, sorted.
    """

    def __init__(
        self,
        method: str = DEFAULT_METHOD,
        text_weights: Any = None,
        logit_scale: float = 100.0,
        options: Mapping[str, Any] | None = None,
        seed: int = 1,
    ) -> None:
        self.method = method
        self.text_weights = text_weights
        self.logit_scale = logit_scale
        self.options = options
        self.seed = seed

    def fit(self, X: Any, y: Any) -> FewShotClassifier:  # noqa: N803 - scikit-learn's names
        """Learn from features X (n, D) and labels y (n,).

        Raises:
            ValueError: fewer than two classes, or X and y that do not fit.
            ClipAdapterError: from the method.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)  # noqa: N806
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"FewShotClassifier needs at least two classes; y has {len(self.classes_)} class."
            )
        try:
            text = None if self.text_weights is None else np.asarray(self.text_weights, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"text_weights are no array of numbers: {error}.") from error
        if text is not None and text.shape != (len(self.classes_), X.shape[1]):
            raise ValueError(
                f"text_weights has shape {text.shape}; y has {len(self.classes_)} classes and X "
                f"{X.shape[1]} features."
            )
        features = torch.from_numpy(np.ascontiguousarray(X))
        digests = row_digests(features)
        rows, notes, _ = coverage(labels.tolist(), digests)
        if notes:
            warn(" ".join(notes))
        train = FeatureSet(
            features, torch.from_numpy(labels), [*map(str, self.classes_)], digests=digests
        )
        task = FewShotTask(
            train.subset(rows),
            None if text is None else torch.from_numpy(text),
            self.logit_scale,
            self.seed,
        )
        self.classifier_ = fit_task(make_method(self.method, self.options), task, {})
        return self

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """Scores (n, C); for two classes (n,), as scikit-learn has it."""
        scores = self._logits(X).numpy()
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities (n, C)."""
        return self._logits(X).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Labels (n,)."""
        best = self.predict_proba(X).argmax(1)  # first: it says where nothing is fitted yet
        return self.classes_[best]

    def _logits(self, X: Any) -> torch.Tensor:  # noqa: N803
        check_is_fitted(self)
        return self.classifier_.logits(validate_data(self, X, dtype=np.float32, reset=False))
