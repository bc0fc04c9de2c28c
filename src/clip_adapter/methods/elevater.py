"""ELEVATER's three baselines: a linear head on CLIP, started at random or from the text.

    logits = g @ W.T + c          g = (x - m) / sqrt(v + 1e-5)
    R-2P: x = f, W random         L-2P: x = f, W = T          L-1P: x = trunk, W = T P^T

f are CLIP's image features (two projections: CLIP's and the head), T (C, D) the text weights, P
(trunk, D) CLIP's projection, merged into the head in L-1P. m and v are means and variances of the
channels of x over the pictures that a head is trained on.

Source: Li et al., "ELEVATER: A Benchmark and Toolkit for Evaluating Language-Augmented Visual
Models", 2022 (arXiv 2204.08790), and its toolkit: the normalisation of channels without
trained numbers before the head, no scale on the logits (its logit scale is exp(0)), PyTorch's start
of a linear layer, a bias of 0 beside a head from text, SGD with momentum 0.9 at a constant rate,
batches of 64, 50 epochs. It searches rates of 1e-6 to 1e-1 and weight decays on held-out data by
trainings of 10 epochs; here the weight decay is its default, and the rates that learn anything in
that time are compared on held-out shots by trainings as long as the final one. Where it uses
running statistics of its batches, the statistics of the shots that a head is trained on are used
here, so the normalisation is folded into W and c. CLIP-Adapter (arXiv 2110.04544), Table 4,
compares with these.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

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
from clip_adapter.nn import linear_init
from clip_adapter.towers import TrunkAdapter, projection, trunk_features
from clip_adapter.training import (
    Schedule,
    choose_and_train,
    folds_of,
    train_on,
)

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
EPSILON = 1e-5
# 50 epochs of 600 pictures; larger tasks keep as many steps, so that they take seconds.
MAX_STEPS = 500


class LinearHeads(nn.Module):
    """R linear heads: (R, B, X) -> (R, B, C), each over channels that its own pictures normalise.

    Args:
        weights: (C, X), the start of all of them.
        bias: (C,).
        features: (V, N, X).
        rows: R tensors of the rows that a head is trained on.
    """

    def __init__(
        self, weights: Tensor, bias: Tensor, features: Tensor, rows: Sequence[Tensor]
    ) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights.repeat(len(rows), 1, 1))
        self.bias = nn.Parameter(bias.repeat(len(rows), 1, 1))
        flat = [features[:, r].flatten(0, 1) for r in rows]
        self.mean = torch.stack([x.mean(0, keepdim=True) for x in flat])  # (R, 1, X)
        variances = [x.var(0, unbiased=False, keepdim=True) for x in flat]
        self.deviation = (torch.stack(variances) + EPSILON).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return (x - self.mean) / self.deviation @ self.weights.transpose(-1, -2) + self.bias

    def merged(self) -> list[tuple[Tensor, Tensor]]:
        """W (C, X) and c (C,) of each head, with the normalisation in them."""
        every = (self.weights.detach() / self.deviation, self.bias.detach()[:, 0], self.mean[:, 0])
        return [(w, c - w @ mean) for w, c, mean in zip(*every, strict=True)]


@dataclass
class _LinearHead(Method):
    """A linear head trained on features, or on what is below CLIP's projection.

    Attributes:
        lr: constant learning rate, or "auto": cross-validation on the shots.
        weight_decay: of SGD, 0 or more.
        batch_size: pictures per step.
        epochs: passes over the shots, or "auto": 50, but at most 500 steps.
    """

    citation: ClassVar[str] = "Li et al. 2022, arXiv 2204.08790"
    trains: ClassVar[str] = "a linear head on image features"
    # One shot leaves nothing to hold out. Chosen on the validation sets of Caltech101 and (random
    # head) Flowers102 at one shot.
    one_shot_rate: ClassVar[float] = 1e-3

    lr: Annotated[float | Literal["auto"], Bounds(above=0)] = "auto"
    weight_decay: Annotated[float, Bounds(least=0)] = 1e-4
    batch_size: Annotated[int, Bounds(least=1)] = 64
    epochs: Annotated[int | Literal["auto"], Bounds(least=1)] = "auto"

    def parameters(self, sizes: Sizes) -> int:
        return sizes.classes * (sizes.dim + 1)

    def _fit(
        self,
        task: FewShotTask,
        features: Tensor,
        plain: Tensor,
        start: tuple[Tensor, Tensor],
        adapter: TrunkAdapter | None = None,
    ) -> Fitted:
        """A head on ``features``.

        Args:
            task: labels and seed.
            features: (V, N, X), to learn from.
            plain: (N, X), to score held-out shots on.
            start: weights (C, X) and bias (C,).
            adapter: what makes the visual tower give X channels; None for features of the task.
        """
        choice, head = choose_and_train(
            "lr",
            self.lr,
            RATES,
            one_shot=self.one_shot_rate,
            task=task,
            folds=folds_of(task.train, task.seed, text=self.needs_text),
            train=functools.partial(self._train, task, features, start),
            plain=plain,
        )
        return Fitted(
            head,
            hyperparameters={
                "lr": choice.value,
                "weight_decay": self.weight_decay,
                "batch_size": self.batch_size,
                "epochs": self._epochs(len(task.train)),
            },
            trained_parameters=start[0].numel() + start[1].numel(),
            selection=choice.record,
            held_out=choice.held_out,
            tower_adapter=adapter,
            feature_norm=None if adapter is None else "raw",
        )

    def _epochs(self, pictures: int) -> int:
        auto = min(50, max(MAX_STEPS // max(pictures // self.batch_size, 1), 1))
        return auto if self.epochs == "auto" else self.epochs

    def _train(
        self,
        task: FewShotTask,
        features: Tensor,
        start: tuple[Tensor, Tensor],
        rows: list[Tensor],
        rate: float,
    ) -> list[Head]:
        """A head for each tensor of ``rows``, trained in one batched pass."""
        heads = LinearHeads(*start, features, rows)
        batch = min(self.batch_size, max(len(r) for r in rows))
        epochs, work = self._epochs(len(task.train)), len(rows) * batch * start[0].numel()
        schedule = Schedule("sgd", rate, self.weight_decay, batch, epochs=epochs, constant=True)
        train_on(task, heads, rows, schedule, work=work, logits=heads, features=features)
        merged = heads.merged()
        if not self.needs_text:
            # The random row of a class without a picture means nothing.
            for (_, bias), used in zip(merged, rows, strict=True):
                bias[torch.bincount(task.train.labels[used], minlength=len(bias)) == 0] = ABSENT
        return [Head(w, None, bias, task.logit_scale, kind="linear") for w, bias in merged]


@register(
    name="r-2p",
    summary="a linear head on image features, from random numbers",
    needs_text=False,
    uses_text=False,
)
class RandomTwoProjections(_LinearHead):
    """R-2P: the head starts from random numbers and needs no text.

    Attributes:
        lr: constant learning rate, or "auto": cross-validation on the shots.
        weight_decay: of SGD, 0 or more.
        batch_size: pictures per step.
        epochs: passes over the shots, or "auto": 50, but at most 500 steps.
    """

    one_shot_rate: ClassVar[float] = 1e-2

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        task.check_two_classes(self.name)
        generator = torch.Generator().manual_seed(task.seed)
        dim, classes = task.train.dim, len(task.class_names)
        shapes = ((classes, dim), (1, classes))
        weights, bias = (linear_init(shape, dim, generator) for shape in shapes)
        return self._fit(task, task.train.features, task.train.plain_view, (weights, bias[0]))


@register(
    name="l-2p",
    summary="a linear head on image features, from the text weights",
)
class LanguageTwoProjections(_LinearHead):
    """L-2P: the head starts from the text weights.

    Attributes:
        lr: constant learning rate, or "auto": cross-validation on the shots.
        weight_decay: of SGD, 0 or more.
        batch_size: pictures per step.
        epochs: passes over the shots, or "auto": 50, but at most 500 steps.
    """

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        text = task.require_text(self.name)
        return self._fit(
            task, task.train.features, task.train.plain_view, (text, torch.zeros(len(text)))
        )


@register(
    name="l-1p",
    summary="CLIP's projection and a head from the text weights, as one layer",
    trains="a linear head below the projection of the visual tower",
    reads="images",
)
class LanguageOneProjection(_LinearHead):
    """L-1P: CLIP's projection and a head from the text weights, merged and trained as one.

    Attributes:
        lr: constant learning rate, or "auto": cross-validation on the shots.
        weight_decay: of SGD, 0 or more.
        batch_size: pictures per step.
        epochs: passes over the shots, or "auto": 50, but at most 500 steps.
    """

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        weights, pictures = task.require_text(self.name), task.require_pictures(self.name)
        task.compute.refuse(self.name)
        backbone = task.require_backbone(self.name)
        matrix, bias = projection(backbone)
        below = torch.zeros(len(weights)) if bias is None else weights @ bias
        features, plain = trunk_features(backbone, pictures, task.train.views)
        return self._fit(task, features, plain, (weights @ matrix.T, below), TrunkAdapter())

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.classes * (sizes.trunk + 1)
