"""``FewShotClassifier``: every feature method as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from numbers import Number
from typing import Any, SupportsFloat

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from clip_adapter.datasets.coverage import coverage
from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import row_digests
from clip_adapter.features.text import alike_note
from clip_adapter.fitting import fit_task
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.nn.cosine import LEAST_SCALE, MOST_SCALE, scale_doubt
from clip_adapter.options import DEFAULT_METHOD
from clip_adapter.reporting import warn
from clip_adapter.wording import counted, listed, shortened, some_of


def _check_present(y: Any) -> None:
    """Check that every row has a label; ``y`` (n,) may be None.

    Raises:
        ValueError: for some there is None, NaN, or the NA of pandas.
    """
    labels = np.array([] if y is None else y, object).ravel()
    kinds = ("NoneType", "NAType")
    absent = [i for i, one in enumerate(labels) if type(one).__name__ in kinds or one != one]
    if absent:
        raise ValueError(
            f"{counted(len(absent), 'row')} of y have no label (None or NaN: "
            f"{some_of(map(str, absent))}). Leave them out of X and y, or name their class."
        )


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """A few-shot classifier over features (n, D), for pipelines and grid searches.

    Args:
        method: a name from ``clip-adapter ls methods``. The default uses
            text weights where it is given any.
        text_weights: text features, for the methods that need them: {label: vector (D,)}, or
            (C, D) with ``class_names``. Without these, (C, D) in the order of ``sorted(set(y))``,
            where labels are numbers. Vectors of labels that are not in ``y`` are left aside.
        logit_scale: 1/tau of the backbone, about 100.
        options: hyper-parameters of the method, by name.
        seed: the only source of randomness.
        class_names: the labels of the rows of ``text_weights``, as they stand in ``y``.

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
        class_names: Any = None,
    ) -> None:
        self.method = method
        self.text_weights = text_weights
        self.logit_scale = logit_scale
        self.options = options
        self.seed = seed
        self.class_names = class_names

    def fit(self, X: Any, y: Any) -> FewShotClassifier:  # noqa: N803 - scikit-learn's names
        """Learn from features X (n, D) and labels y (n,).

        Raises:
            ValueError: fewer than two classes, X and y that do not fit, labels that are missing or
                -1 beside 0, a logit_scale that is hardly 1/tau, or text weights of which it
                is not beyond doubt which row is of which label.
            UsageError: a logit_scale that is no number.
            ClipAdapterError: from the method.
        """
        if not isinstance(self.logit_scale, SupportsFloat):
            raise UsageError(
                f"logit_scale = {self.logit_scale!r}.",
                allowed="a number, 1/tau of the backbone, as CLIP's 100",
            )
        if doubt := scale_doubt(self.logit_scale):
            raise ValueError(
                f"logit_scale is {self.logit_scale:g}: {doubt}. Give 1/tau, {LEAST_SCALE:g} to "
                f"{MOST_SCALE:g}."
            )
        _check_present(y)
        X, y = validate_data(self, X, y, dtype=np.float32)  # noqa: N806
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if {-1, 0} <= {*self.classes_.tolist()}:
            raise ValueError(
                "y holds -1 beside 0: where labels count from 0, -1 is commonly a row of unknown "
                "class. Leave those rows out (X[y != -1], y[y != -1]); if -1 is a class, give the "
                "labels as words (y.astype(str))."
            )
        if len(self.classes_) < 2:
            raise ValueError(
                f"FewShotClassifier needs at least two classes; y has {len(self.classes_)} class."
            )
        text = self._text(X.shape[1])
        if len(empty := np.flatnonzero(~X.any(1))):
            warn(
                f"{counted(len(empty), 'row')} of X are all 0 ({some_of(map(str, empty))}): no "
                "features of a picture are, and no class is near to them."
            )
        features = torch.from_numpy(np.require(X, requirements=["C", "W"]))
        digests = row_digests(features)
        rows, notes, *_ = coverage(labels.tolist(), digests)
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
        if note := alike_note(task.text_weights, task.class_names):
            warn(note)
        self.classifier_ = fit_task(make_method(self.method, self.options), task, {})
        return self

    def _text(self, dim: int) -> np.ndarray | None:
        """The text weights (C, ``dim``) in the order of ``classes_``.

        Raises:
            ValueError: see :meth:`fit`.
        """
        given, names = self.text_weights, self.class_names
        if given is None:
            if names is not None:
                raise ValueError("class_names without text_weights would change nothing.")
            return None
        if isinstance(given, Mapping):
            if names is not None:
                raise ValueError("text_weights is a mapping: it names the labels, not class_names.")
            names, given = list(given), list(given.values())
        try:
            text = np.array([np.asarray(row, np.float32) for row in given])
        except (TypeError, ValueError) as error:
            raise ValueError(f"text_weights are no array of numbers: {error}.") from error
        if names is None:
            if not all(isinstance(label, Number | np.bool_) for label in self.classes_):
                raise ValueError(
                    "text_weights is a bare array, and the labels are no numbers: whether its rows "
                    f"are in their sorted order ({listed(self.classes_)}) cannot be seen. Give "
                    "{label: vector}, or the labels of the rows as class_names=[...]."
                )
            names = self.classes_
        rows = {label: row for row, label in enumerate(names)}
        if text.shape != (len(names), dim):
            raise ValueError(
                f"text_weights has shape {text.shape}; there are {len(names)} classes and X has "
                f"{dim} features."
                + " Where rows stand for labels that are not in y, give {label: vector}, or the "
                "labels of all rows as class_names=[...]."
                * (given is self.text_weights and len(text) != len(names))
            )
        if len(rows) < len(names):
            raise ValueError("class_names holds a label twice.")
        if missing := [label for label in self.classes_ if label not in rows]:
            kinds = {str(row): type(row).__name__ for row in rows}
            twins = [
                f" {one} is of type {type(one).__name__} in y, and {kinds[str(one)]} there."
                for one in missing
                if str(one) in kinds
            ]
            raise ValueError(
                f"text_weights has no row for {listed(missing)}; it has rows for {listed(rows)}. "
                f"Labels are spelled there as in y.{''.join(twins[:1])}"
            )
        return text[[rows[label] for label in self.classes_]]

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:  # noqa: N803
        """What was given; of the text weights their number."""
        plain = type(self)().get_params()
        given = {k: v for k, v in self.get_params().items() if v is not plain[k]}
        if isinstance(text := given.get("text_weights"), Sized):
            given["text_weights"] = f"<{len(text)} vectors>"
        words = (f"{k}={v if k == 'text_weights' else repr(v)}" for k, v in given.items())
        return shortened(f"{type(self).__name__}({', '.join(words)})", N_CHAR_MAX)

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
