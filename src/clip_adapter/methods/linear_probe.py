"""Linear probe: logistic regression on the un-normalised image features.

    logits = f @ W.T + b        W, b minimise cross entropy + |W|^2 / (2 C)

Source: Radford et al. 2021 (arXiv 2103.00020), appendix A.3: L-BFGS, at most 1,000 iterations, C
swept over 1e-6 ... 1e6 and then by bisection in log space. They sweep on validation data; we hold
out shots, and the test split is never read. They learn from plain pictures, and so does the code
that CLIP-Adapter's figures compare with (CoOp's ``lpclip``); random views, where the task has
several, are as many more pictures.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.heads import ABSENT, Head
from clip_adapter.methods.base import Method, register
from clip_adapter.reporting import tracking
from clip_adapter.task import FewShotTask, Sizes
from clip_adapter.training.folds import Fold, folds_of
from clip_adapter.training.selection import HeldOutLogits, Selection, gathered, mean, score
from clip_adapter.training.threads import SMALL

COARSE = (1e-6, 1e-4, 1e-2, 1e0, 1e2, 1e4, 1e6)
BISECTIONS = 8
# CLIP's own C on ImageNet, for features of length 10; without a picture to hold out it is all
# that is known. The penalty is on weights that shrink as features grow, hence the square.
PUBLISHED_C, PUBLISHED_LENGTH = 0.316, 10.0


@register
@dataclass
class LinearProbe(Method):
    """Logistic regression by scikit-learn.

    Attributes:
        C: inverse strength of the penalty, or "auto": cross-validation on the shots.
        max_iter: bound on the L-BFGS iterations.
        fit_intercept: learn a bias for each class. The paper's count of 1.02 M parameters on
            ImageNet (Table 1) is that of the weights alone.
    """

    name: ClassVar[str] = "linear-probe"
    summary: ClassVar[str] = "logistic regression on image features"
    citation: ClassVar[str] = "Radford et al. 2021, arXiv 2103.00020"
    trains: ClassVar[str] = "a linear layer on image features"
    needs_text: ClassVar[bool] = False
    uses_text: ClassVar[bool] = False

    C: float | Literal["auto"] = "auto"
    max_iter: int = 1000
    fit_intercept: bool = True

    def __post_init__(self) -> None:
        if self.C != "auto" and not 0 < float(self.C) < math.inf:
            raise UsageError(f"C = {self.C}.", allowed="a number above 0, or auto")
        if self.max_iter < 1:
            raise UsageError(f"max_iter = {self.max_iter}.", allowed="1 or more")

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.classes * (sizes.dim + int(self.fit_intercept))

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        task.check_two_classes(self.name)
        curves, held_out = [], None
        c = self.C
        if c == "auto":
            curve, held_out = self._sweep(task)
            c = curve.chosen
            curves.append(dataclasses.asdict(curve))
        weights, bias = _expand(self._solve(task, None, float(c)), len(task.class_names))
        classifier = Classifier(
            Head(weights, bias=bias, logit_scale=task.logit_scale, kind="linear"),
            task.class_names,
            feature_norm=task.train.feature_norm,
            text_weights=task.text_weights,
            info={
                "hyperparameters": {
                    "C": c,
                    "max_iter": self.max_iter,
                    "fit_intercept": self.fit_intercept,
                },
                "selection": curves,
                "trained_parameters": weights.numel() + bias.numel() * self.fit_intercept,
            },
        )
        classifier.held_out = held_out
        return classifier

    def _solve(self, task: FewShotTask, rows: Tensor | None, c: float) -> Any:
        """A fitted ``LogisticRegression`` on all views of ``rows`` (all of them when None)."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        train = task.train if rows is None else task.train.subset(rows)
        x = train.features.reshape(-1, train.dim).numpy()
        y = train.labels.repeat(train.views).numpy()
        uneven = len(train.labels.unique(return_counts=True)[1].unique()) > 1
        small = x.size * len(task.class_names) < SMALL
        with warnings.catch_warnings(), threadpool_limits(1 if small else None):
            # The bound on the iterations is the published one; large C rarely converge within it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # One shot of each class is no regression problem, as scikit-learn suspects.
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model = LogisticRegression(
                C=c,
                max_iter=self.max_iter,
                fit_intercept=self.fit_intercept,
                class_weight="balanced" if uneven else None,
            )
            return model.fit(x, y)

    def _sweep(self, task: FewShotTask) -> tuple[Selection, HeldOutLogits | None]:
        """The published search, with held-out shots in the place of validation data."""
        curve = Selection("C", [])
        folds = folds_of(task.train, task.seed, text=False)
        if not folds:
            length = task.train.features.norm(dim=-1).mean().item()
            curve.chosen = PUBLISHED_C * (PUBLISHED_LENGTH / max(length, 1e-6)) ** 2
            curve.rule = "no class has a picture to hold out: CLIP's C for features of this length"
            return curve, None
        rows, weight = gathered(folds)
        known: dict[float, tuple[float, float]] = {}
        logits: dict[float, Tensor] = {}

        def value(c: float) -> tuple[float, float]:
            """Accuracy, then minus the loss to break ties."""
            if c not in known:
                logits[c] = self._held_out(task, folds, c)
                hits, losses = score(logits[c], task.train.labels[rows], weight)
                known[c] = 100 * mean(hits, weight), -mean(losses, weight)
                tracker.advance()
            return known[c]

        with tracking("Training", len(COARSE) + 2 + BISECTIONS) as tracker:
            best = max(COARSE, key=value)
            left, right = best / 10, best * 10
            for _ in range(BISECTIONS):
                middle = math.sqrt(left * right)
                if value(left) < value(right):
                    left = middle
                else:
                    right = middle
        curve.candidates = sorted(known)
        curve.accuracy = [known[c][0] for c in curve.candidates]
        curve.loss = [-known[c][1] for c in curve.candidates]
        curve.pictures = len(rows.unique())
        curve.chosen = max(curve.candidates, key=value)
        curve.rule = f"most of {curve.pictures} held-out pictures right, then lowest loss on them"
        return curve, HeldOutLogits(logits[curve.chosen], rows, weight)

    def _held_out(self, task: FewShotTask, folds: Sequence[Fold], c: float) -> Tensor:
        """(n, C) logits of the rows that the folds hold out."""
        parts = []
        for fold in folds:
            solved = self._solve(task, fold.fit, c)
            weights, bias = _expand(solved, len(task.class_names))
            parts.append(task.train.plain_view[fold.held_out] @ weights.T + bias)
        return torch.cat(parts)


def _expand(solved: Any, classes: int) -> tuple[Tensor, Tensor]:
    """(C, D) weights and (C,) biases of a fitted model, also for two and for absent classes."""
    rows, biases = np.asarray(solved.coef_), np.asarray(solved.intercept_)
    if len(solved.classes_) == 2:  # scikit-learn keeps one row: the log odds of the second class
        rows = np.concatenate([-rows, rows]) / 2
        biases = np.concatenate([-biases, biases]) / 2
    weights = torch.zeros(classes, rows.shape[1])
    bias = torch.full((classes,), ABSENT)
    index = torch.as_tensor(solved.classes_, dtype=torch.long)
    weights[index] = torch.as_tensor(rows).float()
    bias[index] = torch.as_tensor(biases).float()
    return weights, bias
