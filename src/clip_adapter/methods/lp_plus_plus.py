"""LP++: a linear probe whose class weights are image prototypes plus a learnt share of the text.

    logits = f (W + diag(alpha) T)^T        f, T of unit length; W (C, D) and alpha (C,) are learnt

Source: Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024
(arXiv 2404.02285), with the released code. Full-batch block coordinate
Majorize-Minimize descent on the cross entropy; no learning rate is searched:

    step of W      4 N / largest eigenvalue of F^T F
    step of alpha  N / (4 max_k sum_i (f_i . t_k)^2)
    start          w_k = sum of the features of class k; alpha_k = 250 x the mean over the classes
                   of the mean cosine between a class's pictures and its text

It differs from the released code in this:

* The largest eigenvalue is that of the mean feature, which all CLIP features share and which tells
  no classes apart; it holds the steps back in all other directions. So W moves on features from
  which their mean is taken away, f - m, from the same start (the score of the mean stays that of
  the start). The formula then allows steps about 13 times as long, so tens of steps stand for the
  code's 300.
* The code keeps the one of its 300 steps that is best on validation pictures, as many per class as
  shots; here the number of steps is chosen on the shots, and is 15 where each class has one.
* Momentum is 0.7 in the place of 0.9, since the steps are longer.
* The code trains a bias per class beside W, from PyTorch's random start of a layer. Here there is
  none of its own: the bias is what the mean feature scores.
* Every tenth step the code moves alpha as well as W, and along the sum of all gradients since the
  start, which it never clears. Here that step is one of alpha alone, along its gradient, so that
  without momentum no step can raise the loss.
* The code learns from one random view of each picture; here from the mean of the task's views.
"""

import functools
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Method, Sizes, register
from clip_adapter.methods.cache import unit_keys
from clip_adapter.nn import normalize
from clip_adapter.reporting import track
from clip_adapter.threads import suited_threads
from clip_adapter.training import Fold, choose, log_prior

# Numbers of steps; 0 is the start, which is near zero-shot. All come from one descent. From 30 on
# the accuracy no longer rose on the validation set of Caltech101 and on shots of ImageNet that were
# set aside.
STEPS = (0, 5, 10, 15, 20, 30)
# One shot leaves nothing to hold out. Chosen on the validation set of Caltech101 and on shots of
# ImageNet that were set aside.
ONE_SHOT_STEPS = 15
# Every tenth step is one of alpha.
ALPHA_EVERY = 10
# alpha starts at this many times the mean cosine (released code).
ALPHA_START = 250.0


class Blocks:
    """The two blocks of variables and their steps.

    Args:
        features: (N, D) of unit length.
        labels: (N,).
        text: T (C, D) of unit length.

    Attributes:
        weights: W (C, D).
        alpha: (C,).
        weights_step, alpha_step: the step sizes.
    """

    def __init__(self, features: Tensor, labels: Tensor, text: Tensor) -> None:
        count, classes = len(features), len(text)
        self.labels, self.text = labels, text
        self.mean = features.mean(0)
        self.centred = features - self.mean
        size = torch.bincount(labels, minlength=classes)
        # A class without pictures keeps its text, at the weight that all start with.
        self.present = (size > 0).float()
        means = torch.zeros_like(text).index_add_(0, labels, features) / size.clamp(min=1)[:, None]
        # As long as if the pictures were shared out evenly.
        self.weights = means * (count / self.present.sum())
        self.prior = log_prior(labels, [torch.arange(count)], classes)[0]
        start = ALPHA_START * (means * text).sum(1).sum() / self.present.sum()
        self.alpha = start.clamp(min=0).expand(classes).clone()
        self.offset = self.weights @ self.mean
        self._velocity = torch.zeros_like(text)
        largest = torch.linalg.eigvalsh(self.centred.T @ self.centred)[-1].clamp(min=1e-6)
        self.weights_step = float(4 * count / largest)
        sums = ((text @ (features.T @ features)) * text).sum(1)
        self.alpha_step = float(count / (4 * sums.max().clamp(min=1e-6)))

    def logits(self) -> Tensor:
        """(N, C) of the training pictures, with the logarithm of how many a class has."""
        blended = self.weights + self.alpha[:, None] * self.text
        offset = self.offset + self.alpha * (self.text @ self.mean)
        return torch.addmm(offset + self.prior, self.centred, blended.T)

    def loss(self) -> Tensor:
        """The mean cross entropy that both blocks minimise."""
        return F.cross_entropy(self.logits(), self.labels)

    def _error(self) -> Tensor:
        """(N, C): the gradient of the loss in the logits."""
        error = self.logits().softmax(1)
        error[torch.arange(len(error)), self.labels] -= 1
        return error.div_(len(error)).mul_(self.present)

    def step_weights(self, momentum: float) -> None:
        """One step of W; without momentum it cannot raise the loss."""
        self._velocity.mul_(momentum).add_(self._error().T @ self.centred)
        self.weights.sub_(self._velocity, alpha=self.weights_step)

    def step_alpha(self) -> None:
        """One step of alpha; it cannot raise the loss."""
        error = self._error()
        features_sum = error.T @ self.centred + error.sum(0)[:, None] * self.mean
        self.alpha.sub_((features_sum * self.text).sum(1), alpha=self.alpha_step)

    def step(self, number: int, momentum: float) -> None:
        """Step ``number`` (from 1 on) of the descent."""
        if number % ALPHA_EVERY == 0:
            self.step_alpha()
        else:
            self.step_weights(momentum)

    def descent(self, steps: int, momentum: float) -> Iterator[tuple[Tensor, Tensor]]:
        """(C, D) weights and (C,) biases for features of unit length after 0, 1, ... steps."""
        for number in range(steps + 1):
            if number:
                self.step(number, momentum)
            blended = self.weights + self.alpha[:, None] * self.text
            yield blended, self.offset - self.weights @ self.mean


@register(
    name="lp++",
    summary="a linear probe that blends in the text by learnt class-wise shares",
    citation="Huang et al. 2024, arXiv 2404.02285",
    trains="a linear layer on image features and one text share per class",
    one_vector_per_class=True,
)
class LPPlusPlus(Method):
    """The text-aware linear probe.

    Attributes:
        steps: 0 or more, or "auto": cross-validation on the shots among 0 to 30.
        momentum: 0 (plain Majorize-Minimize, where no step can raise the loss) up to below 1.
            The released code has 0.9; steps on centred features need less (0.7 was chosen on the
            validation set of Caltech101 and on shots of ImageNet that were set aside).
    """

    steps: Annotated[int | Literal["auto"], Bounds(least=0)] = "auto"
    momentum: Annotated[float, Bounds(least=0, below=1)] = 0.7

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.classes * (sizes.dim + 1)

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        text = normalize(task.require_text(self.name))
        with suited_threads(len(task.train) * text.numel()):
            choice = choose(
                "steps",
                self.steps,
                STEPS,
                one_shot=ONE_SHOT_STEPS,
                task=task,
                evaluate=lambda jobs: self._held_out(task, text, jobs),
            )
            blocks = Blocks(unit_keys(task.train.features), task.train.labels, text)
            start, steps = float(blocks.alpha[0]), int(choice.value)
            *_, (weights, bias) = track(
                blocks.descent(steps, self.momentum), "Training", total=steps + 1
            )
        return Fitted(
            Head(weights, bias=bias, logit_scale=task.logit_scale, kind="linear", unit=True),
            hyperparameters={
                "steps": steps,
                "momentum": self.momentum,
                "alpha_start": start,
                "weights_step": blocks.weights_step,
                "alpha_step": blocks.alpha_step,
            },
            trained_parameters=blocks.weights.numel() + blocks.alpha.numel(),
            selection=choice.record,
            held_out=choice.held_out,
        )

    def _held_out(
        self, task: FewShotTask, text: Tensor, jobs: list[tuple[Fold, int]]
    ) -> Iterator[Tensor]:
        """Logits of every fold and number of steps; the numbers of a fold are of one descent."""
        features, labels = unit_keys(task.train.features), task.train.labels
        scored = unit_keys(task.train.plain_view[None])
        stops = {steps for _, steps in jobs}

        @functools.cache
        def logits(fold: Fold) -> dict[int, Tensor]:
            descent = Blocks(features[fold.fit], labels[fold.fit], text).descent
            return {
                number: scored[fold.held_out] @ weights.T + bias
                for number, (weights, bias) in enumerate(descent(max(stops), self.momentum))
                if number in stops
            }

        for fold, steps in jobs:
            yield logits(fold)[steps]
