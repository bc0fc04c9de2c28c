"""GDA: one Gaussian per class with a shared covariance, in closed form, added to zero-shot.

    logits = logit_scale f T^T + a (f W^T + b)      f, T of unit length
    W = M P        b = log(1/C) - diag(M P M^T) / 2        M: class means (C, D)
    P = D inverse((n - 1) S + r trace(S) I)                S: covariance within classes, r = 1

Source: Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024
(arXiv 2402.04087): the precision P is the empirical-Bayes ridge estimator of
Kubokawa and Srivastava (2008). All views of the pictures are counted as pictures and the classes
are taken as equally frequent, as in the released code. That code searches a on validation data (on
ImageNet, on the pictures it reports); here it is chosen on the shots.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from torch import Tensor

from clip_adapter.errors import UsageError
from clip_adapter.methods.base import (
    ABSENT,
    Bounds,
    FewShotTask,
    Fitted,
    Head,
    Method,
    Sizes,
    register,
)
from clip_adapter.nn import normalize
from clip_adapter.training import Choice, Fold, choose, folds_of

# The published search goes from 1e-4 to 100 in powers of ten; the best value of a falls as the
# features grow more numerous, and lies within this narrower and finer range.
WEIGHTS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0, 10.0)
SHRINKAGES = (1.0, 0.1, 0.3, 3.0, 10.0, 30.0)
# What is taken where nothing can be held out, and in doubt. Beside text the weight is for Gaussians
# as wide as the unbiased covariance (Gaussians.spread), settled on the tuning part of the zoo
# (benchmarks/zoo); without text it only decides how sure the probabilities are.
MILD_WEIGHT, WEIGHT_ALONE = 0.008, 0.1
SMALLEST_RIDGE = 1e-12  # of the trace


@dataclass(frozen=True)
class Gaussians:
    """Class means and a shared scatter matrix of unit-length features, in double precision.

    Attributes:
        means: M (C, D); a class without pictures has the mean of all.
        present: (C,) whether the class has pictures.
        scatter: (D, D): (n - 1) S.
        count: n, pictures times views.
        within: False where every class has one picture, which says nothing of the spread within
            classes: the scatter is then that of all pictures around their mean.
    """

    means: Tensor
    present: Tensor
    scatter: Tensor
    count: int
    within: bool

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, classes: int) -> Self:
        """From features (V, N, D) of any length with labels (N,)."""
        x = normalize(features).flatten(0, 1).double()
        y = labels.repeat(len(features))
        size = torch.bincount(y, minlength=classes)
        means = torch.zeros(classes, x.shape[1], dtype=x.dtype).index_add_(0, y, x)
        means = means / size.clamp(min=1)[:, None]
        present = size > 0
        centre = x.mean(0) if bool((size == size.max()).all()) else means[present].mean(0)
        # The mean of few pictures lies farther out than it should beside that of many.
        trust = size / (size + len(features))
        drawn = centre + (trust / trust.max()).double()[:, None] * (means - centre)
        within = bool((size > 1).any())
        centred = x - (means[y] if within else x.mean(0))
        return cls(drawn, present, centred.T @ centred, len(x), within)

    @property
    def spread(self) -> float:
        """How many times wider P's Gaussians are than the unbiased covariance, by their traces.

        P leaves its scale to a, and the scale grows with n. A weight that is chosen on a part of
        the shots is therefore carried over to all of them in proportion to the spread.
        """
        groups = int(self.present.sum()) if self.within else 1
        return max(self.count - groups, 1) * (1 / self.means.shape[1] + 1 / max(self.count - 1, 1))

    def weights(self, shrinkage: float = 1.0) -> tuple[Tensor, Tensor]:
        """W (C, D) and b (C,), float32, with the ridge ``shrinkage`` times the published one."""
        classes, dim = self.means.shape
        trace = float(self.scatter.trace())
        # Below the floor the matrix of few pictures cannot be inverted any more.
        ridge = max(shrinkage * trace / max(self.count - 1, 1), SMALLEST_RIDGE * trace)
        # Without any spread (equal pictures) the precision is the identity: the nearest mean.
        matrix = self.scatter + (ridge or 1.0) * torch.eye(dim, dtype=torch.float64)
        w = dim * torch.linalg.solve(matrix, self.means.T).T
        b = -math.log(classes) - (w * self.means).sum(1) / 2
        return w.float(), b.float()


@register(
    name="gda",
    summary="Gaussian discriminant analysis in closed form, beside any text",
    citation="Wang et al. 2024, arXiv 2402.04087",
    trains="a linear layer on image features, fitted in closed form",
    one_vector_per_class=True,
    needs_text=False,
)
class GDA(Method):
    """Gaussian discriminant analysis with the text weights, or alone where there is no text.

    Attributes:
        gaussian_weight: a, the weight of the Gaussian scores: 0 (zero-shot) or above, or "auto":
            cross-validation on the shots. Without text it only decides how sure the
            probabilities are.
        shrinkage: the ridge of the covariance: "published", a number above 0 (that many times
            the published ridge; Ledoit-Wolf's share of the identity is then r D / (r D + n - 1)),
            or "auto": chosen on the shots together with the weight. On validation data of three
            sets with 1 to 16 shots nothing between 0.1 and 100 beat the published one by more
            than the noise, so that is the default.
    """

    gaussian_weight: Annotated[float | Literal["auto"], Bounds(least=0)] = "auto"
    shrinkage: Annotated[float | Literal["published", "auto"], Bounds(above=0)] = "published"

    def parameters(self, sizes: Sizes) -> int:
        """The fitted numbers of W and b."""
        return sizes.classes * (sizes.dim + 1)

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        text = task.text_weights
        if text is None:
            if self.gaussian_weight == 0:
                raise UsageError(
                    "gaussian_weight = 0 without text weights leaves nothing to classify by.",
                    allowed="a number above 0, or auto",
                )
            task.check_two_classes(f"{self.name} without text")
        gaussians = _gaussians(task)
        choice = self._choose(task, gaussians)
        w, b = gaussians.weights(choice.value["shrinkage"])
        w, b = choice.value["gaussian_weight"] * w, choice.value["gaussian_weight"] * b
        if text is None:
            b[~gaussians.present] = ABSENT
        else:
            w = w + task.logit_scale * normalize(text)
        return Fitted(
            Head(w, bias=b, logit_scale=task.logit_scale, kind="linear", unit=True),
            {
                **choice.value,
                "covariance": "within classes" if gaussians.within else "around the mean of all",
            },
            trained_parameters=w.numel() + b.numel(),
            selection=choice.record,
            held_out=choice.held_out,
        )

    def _choose(self, task: FewShotTask, gaussians: Gaussians) -> Choice:
        """The weight and the shrinkage."""
        text, spread = task.text_weights, gaussians.spread
        weights, mild, shrinkages = [self.gaussian_weight], self.gaussian_weight, [self.shrinkage]
        if self.gaussian_weight == "auto":
            weights = WEIGHTS if text is None else [0.0, *WEIGHTS]
            mild = WEIGHT_ALONE if text is None else f"{MILD_WEIGHT * spread:.2g}"
        if isinstance(self.shrinkage, str):
            shrinkages = SHRINKAGES if self.shrinkage == "auto" else [1.0]
        # A fold with one picture of each class has another covariance than all the shots.
        folds = {
            fold: own
            for fold in folds_of(task.train, task.seed, text=text is not None)
            if (own := _gaussians(task, fold.fit)).within == gaussians.within
        }

        @functools.cache  # what candidates of one fold have in common is computed once
        def zero_shot(fold: Fold) -> Tensor | float:
            features = normalize(task.train.plain_view[fold.held_out])
            return 0.0 if text is None else task.logit_scale * features @ normalize(text).T

        @functools.cache
        def scores(fold: Fold, shrinkage: float) -> Tensor:
            w, b = folds[fold].weights(shrinkage)
            if text is None:
                b[~folds[fold].present] = ABSENT
            return normalize(task.train.plain_view[fold.held_out]) @ w.T + b

        def evaluate(jobs: list[tuple[Fold, dict[str, float]]]) -> Iterator[Tensor]:
            for fold, candidate in jobs:
                weight = candidate["gaussian_weight"] * folds[fold].spread / spread
                yield zero_shot(fold) + weight * scores(fold, candidate["shrinkage"])

        return choose(
            "gaussian_weight, shrinkage",
            "auto",
            [
                {"gaussian_weight": float(a), "shrinkage": float(r)}
                for r in shrinkages
                for a in weights
            ],
            one_shot={"gaussian_weight": float(mild), "shrinkage": float(shrinkages[0])},
            task=task,
            folds=list(folds),
            evaluate=evaluate,
        )


def _gaussians(task: FewShotTask, rows: Tensor | None = None) -> Gaussians:
    """Those of all shots, or of ``rows``."""
    train = task.train if rows is None else task.train.subset(rows)
    return Gaussians.fit(train.features, train.labels, len(task.class_names))
