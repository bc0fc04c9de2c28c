"""Linear probe: logistic regression on the un-normalised image features.

    logits = f @ W.T + b        W, b minimise cross entropy + |W|^2 / (2 C)

Source: Radford et al. 2021 (arXiv 2103.00020), appendix A.3: L-BFGS, at most 1,000 iterations, C
swept over 1e-6 ... 1e6 and then by bisection in log space. They sweep on validation data; we hold
out shots, and the test split is never read. They learn from plain pictures, and so does the code
that CLIP-Adapter's figures compare with (CoOp's ``lpclip``); random views, where the task has
several, are as many more pictures.
"""

import functools
import math
import warnings
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from clip_adapter.methods.base import (
    ABSENT,
    Bounds,
    FewShotTask,
    Fitted,
    Head,
    HeldOutLogits,
    Method,
    Sizes,
    register,
)
from clip_adapter.reporting import tracking
from clip_adapter.threads import SMALL
from clip_adapter.training import (
    Choice,
    Selection,
    folds_of,
    gathered,
    held_out_scores,
    mean,
    score,
)

COARSE = (1e-6, 1e-4, 1e-2, 1e0, 1e2, 1e4, 1e6)
BISECTIONS = 8
# CLIP's own C on ImageNet, for features of length 10; without a picture to hold out it is all
# that is known. The penalty is on weights that shrink as features grow, hence the square.
PUBLISHED_C, PUBLISHED_LENGTH = 0.316, 10.0


@register(
    name="linear-probe",
    summary="logistic regression on image features",
    citation="Radford et al. 2021, arXiv 2103.00020",
    trains="a linear layer on image features",
    needs_text=False,
    uses_text=False,
)
class LinearProbe(Method):
    """Logistic regression by scikit-learn.

    Attributes:
        C: inverse strength of the penalty, or "auto": cross-validation on the shots.
        max_iter: bound on the L-BFGS iterations.
        fit_intercept: learn a bias for each class. The paper's count of 1.02 M parameters on
            ImageNet (Table 1) is that of the weights alone.
    """

    C: Annotated[float | Literal["auto"], Bounds(above=0)] = "auto"
    max_iter: Annotated[int, Bounds(least=1)] = 1000
    fit_intercept: bool = True

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.classes * (sizes.dim + int(self.fit_intercept))

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        task.check_two_classes(self.name)
        choice = self._choose(task)
        head = self._solve(task, None, float(choice.value))
        return Fitted(
            head,
            hyperparameters={
                "C": choice.value,
                "max_iter": self.max_iter,
                "fit_intercept": self.fit_intercept,
            },
            trained_parameters=head.weights.numel() + len(head.weights) * self.fit_intercept,
            selection=choice.record,
            held_out=choice.held_out,
        )

    def _solve(self, task: FewShotTask, rows: Tensor | None, c: float) -> Head:
        """The regression on all views of ``rows`` (all when None, as they are to the bit)."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        train = task.train if rows is None else task.train.subset(rows)
        x, classes = train.features.reshape(-1, train.dim).numpy(), len(task.class_names)
        uneven = len(train.labels.unique(return_counts=True)[1].unique()) > 1
        model = LogisticRegression(
            C=c,
            max_iter=self.max_iter,
            fit_intercept=self.fit_intercept,
            class_weight="balanced" if uneven else None,
        )
        threads = 1 if x.size * classes < SMALL else None
        with warnings.catch_warnings(), threadpool_limits(threads):
            # The bound on the iterations is the published one; large C rarely converge within it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # One shot of each class is no regression problem, as scikit-learn suspects.
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(x, train.labels.repeat(train.views).numpy())
        own, biases = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(model.classes_) == 2:  # one row is kept: the log odds of the second class
            own = np.concatenate([-own, own]) / 2
            biases = np.concatenate([-biases, biases]) / 2
        weights, bias = torch.zeros(classes, train.dim), torch.full((classes,), ABSENT)
        index = torch.as_tensor(model.classes_, dtype=torch.long)
        weights[index] = torch.as_tensor(own).float()
        bias[index] = torch.as_tensor(biases).float()
        return Head(weights, None, bias, task.logit_scale, kind="linear")

    def _choose(self, task: FewShotTask) -> Choice:
        """What was given, or the published search with held-out shots for validation data."""
        if self.C != "auto":
            return Choice(self.C, Selection("C", [self.C], chosen=self.C))
        folds = folds_of(task.train, task.seed, text=False)
        if not folds:
            length = task.train.features.norm(dim=-1).mean().item()
            c = PUBLISHED_C * (PUBLISHED_LENGTH / max(length, 1e-6)) ** 2
            rule = "no class has a picture to hold out: CLIP's C for features of this length"
            return Choice(c, Selection("C", [], chosen=c, rule=rule))
        rows, weight = gathered(folds)
        logits: dict[float, Tensor] = {}

        @functools.cache
        def quality(c: float) -> tuple[float, float]:
            """Accuracy, then minus the loss to break ties."""
            heads = [self._solve(task, f.fit, c) for f in folds]
            logits[c] = torch.cat(held_out_scores(heads, folds, task.train.plain_view))
            hits, losses = score(logits[c], task.train.labels[rows], weight)
            tracker.advance()
            return 100 * mean(hits, weight), -mean(losses, weight)

        with tracking("Training", len(COARSE) + 2 + BISECTIONS) as tracker:
            best = max(COARSE, key=quality)
            left, right = best / 10, best * 10
            for _ in range(BISECTIONS):
                middle = math.sqrt(left * right)
                if quality(left) < quality(right):
                    left = middle
                else:
                    right = middle
        candidates, pictures = sorted(logits), len(rows.unique())
        chosen = max(candidates, key=quality)
        selection = Selection(
            "C",
            candidates,
            accuracy=[quality(c)[0] for c in candidates],
            loss=[-quality(c)[1] for c in candidates],
            pictures=pictures,
            chosen=chosen,
            rule=f"most of {pictures} held-out pictures right, then lowest loss on them",
        )
        return Choice(chosen, selection, HeldOutLogits(logits[chosen], rows, weight))
