"""``FewShotTask``: all that a method may see, and how large and where it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from clip_adapter.errors import DataError, Offer, lacking
from clip_adapter.features.feature_set import FeatureNorm, FeatureSet
from clip_adapter.heads import Head, Mixture, check_numbers, score_rows
from clip_adapter.nn.cosine import normalize
from clip_adapter.options import Compute

if TYPE_CHECKING:
    from clip_adapter.backbones.base import Backbone
    from clip_adapter.features.pixels import Pictures


T = TypeVar("T")


def check_two_named(class_names: Sequence[str]) -> None:
    """Check that there are two classes or more.

    Raises:
        DataError: there is only one.
    """
    if len(class_names) < 2:
        raise DataError(
            f"There is only one class, {class_names[0]!r}: nothing can be told apart.",
            allowed="two classes or more",
            hint="Add a folder for a second class, for instance 'something else'.",
        )


def _there(part: T | None, offer: Offer, method: str) -> T:
    if part is None:
        raise lacking(offer, method)
    return part


@dataclass(frozen=True)
class FewShotTask:
    """All that a method may see. There is no test split in it.

    Attributes:
        train: features of the shots, (V, N, D).
        text_weights: (C, D) text weights, scaled to unit length here; None where there is
            no text.
        logit_scale: 1/tau of the backbone, about 100.
        seed: the only source of randomness.
        backbone: the frozen CLIP, for methods that run one of its towers; else None.
        pictures: pixels of the shots, row by row as ``train``, for methods that read them.
        templates: prompt templates with ``{}``, for methods that write prompts.
        compute: where and how it is trained; methods that read features look at the device alone,
            and keep small trainings on the CPU.
    """

    train: FeatureSet
    text_weights: Tensor | None
    logit_scale: float = 100.0
    seed: int = 1
    backbone: Backbone | None = None
    pictures: Pictures | None = None
    templates: Sequence[str] = ()
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        if len(self.train) == 0:
            raise DataError("There is no training picture.", hint="Add pictures to the classes.")
        check_two_named(self.class_names)
        if not 0 < self.logit_scale < math.inf:
            raise DataError(f"logit_scale = {self.logit_scale}.", allowed="a number above 0")
        if self.text_weights is not None:
            object.__setattr__(self, "text_weights", self._unit_rows(self.text_weights))

    def _unit_rows(self, weights: Tensor) -> Tensor:
        """``weights`` (C, D), checked, at unit length: those that have it stay to the bit."""
        expected = (len(self.class_names), self.train.dim)
        if tuple(weights.shape) != expected:
            raise DataError(
                f"Text weights of shape {tuple(weights.shape)}.",
                allowed=f"(classes, dimension of the features) = {expected}",
                hint="Give one row per class, of the backbone that made the features.",
            )
        if not torch.isfinite(weights).all():
            raise DataError("The text weights hold NaN or infinite values.")
        if (empty := (weights == 0).all(1).nonzero().flatten()).numel():
            raise DataError(
                f"The text weights of {self.class_names[int(empty[0])]!r} are all 0.",
                allowed="a direction for each class",
                hint="Embed the names of the classes anew.",
            )
        unit = bool(((weights.float().norm(dim=-1) - 1).abs() < 1e-5).all())
        return weights if unit else normalize(weights.float())

    @property
    def class_names(self) -> list[str]:
        """C names in label order."""
        return self.train.class_names

    @property
    def shots(self) -> int:
        """K: pictures of the class that has the most."""
        return int(torch.bincount(self.train.labels).max())

    @property
    def mean_shots(self) -> float:
        """Pictures of the classes that have any, on average: what rates and penalties go by."""
        return len(self.train) / len(self.train.labels.unique())

    def require_text(self, method: str) -> Tensor:
        """The text weights (C, D).

        Raises:
            MissingTextError: the task has none; says how to supply them.
        """
        return _there(self.text_weights, "text", method)

    def check_two_classes(self, method: str) -> None:
        """Check that the pictures are of two classes: nothing but text tells others from one.

        Raises:
            DataError: all are of one class.
        """
        present = self.train.labels.unique()
        if len(present) < 2:
            raise DataError(
                f"{method} needs pictures of two classes; all {len(self.train)} are of "
                f"{self.class_names[int(present[0])]!r}.",
                hint="Add pictures of another class, or give text weights and take a method that "
                "starts from them, such as zero-shot.",
            )

    def require_backbone(self, method: str) -> Backbone:
        """The backbone.

        Raises:
            UsageError: the task has none; says how to supply it.
        """
        return _there(self.backbone, "backbone", method)

    def require_pictures(self, method: str) -> Pictures:
        """The pixels of the shots.

        Raises:
            UsageError: the task has features only.
        """
        return _there(self.pictures, "pixels", method)


@dataclass(frozen=True)
class HeldOutLogits:
    """What the chosen candidate said of the shots that were held out.

    Attributes:
        logits: (n, C).
        rows: (n,) which shots they are, as rows of the training set; one may come in two folds.
        weight: (n,) how much each counts; None: all alike.
    """

    logits: Tensor
    rows: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Fitted:
    """What a method found. ``fitting`` makes a classifier of it, with the record of how.

    Attributes:
        head: features (N, D) to logits (N, C); frozen here, in eval mode.
        hyperparameters: those it was trained with, resolved, as JSON types.
        trained_parameters: how many numbers were trained.
        selection: the record of each choice made on the shots, see
            :class:`~clip_adapter.training.selection.Selection`.
        held_out: what the chosen setting said of the shots that were held out, where any were.
        tower_adapter: what was trained inside the visual tower, or None.
        feature_norm: "raw" or "unit", the features that ``head`` takes; None: those of the task.
        details: more for the record, as JSON types.

    Raises:
        ClassifierError: a learnt number, a scale or a share is NaN or infinite.
    """

    head: Head | Mixture
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    trained_parameters: int = 0
    selection: Sequence[Mapping[str, Any]] = ()
    held_out: HeldOutLogits | None = None
    tower_adapter: nn.Module | None = None
    feature_norm: FeatureNorm | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.head.cpu()  # wherever it was trained
        check_numbers(self.head, self.tower_adapter)
        self.head.eval().requires_grad_(False)

    def logits(self, features: FeatureSet) -> Tensor:
        """(n, C) scores of the plain views of ``features``, which are of the task's kind."""
        return score_rows(
            self.head, features.plain_view, self.feature_norm or features.feature_norm
        )


@dataclass(frozen=True)
class Sizes:
    """A task and a backbone, by their sizes.

    Attributes:
        dim: D.
        classes: C.
        shots: K pictures of every class; where classes have fewer, methods that train a number
            per picture train fewer than is counted.
        trunk: features before CLIP's projection: the width of a vision transformer, or the
            channels of a ResNet's last stage.
        blocks: transformer blocks of the visual tower; 0 for a ResNet.
        stages: channels after the stem and the four stages of a ResNet; () for a transformer.
        text_width: W of the text tower.
        text_blocks: its transformer blocks.
        visual_parameters: numbers in the visual tower.
        text_parameters: numbers in the text tower, the token table and the projection included.
    """

    dim: int
    classes: int
    shots: int
    trunk: int = 0
    blocks: int = 0
    stages: tuple[int, ...] = ()
    text_width: int = 0
    text_blocks: int = 0
    visual_parameters: int = 0
    text_parameters: int = 0


# ImageNet with 16 shots, as in the tables of the paper; the towers are those of OpenAI's models.
VIT_B_16 = Sizes(
    dim=512,
    classes=1000,
    shots=16,
    trunk=768,
    blocks=12,
    text_width=512,
    text_blocks=12,
    visual_parameters=86_192_640,
    text_parameters=63_428_096,
)
RN50 = Sizes(
    dim=1024,
    classes=1000,
    shots=16,
    trunk=2048,
    stages=(64, 256, 512, 1024, 2048),
    text_width=512,
    text_blocks=12,
    visual_parameters=38_316_896,
    text_parameters=63_690_240,
)
