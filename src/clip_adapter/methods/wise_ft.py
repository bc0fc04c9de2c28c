"""WiSE-FT: the weights half-way between zero-shot and fine-tuned.

    theta = (1 - a) theta_zero_shot + a theta_trained

``wise-ft`` mixes classifier weights over frozen features, ``wise-ft-tower`` those of the whole
visual tower.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models", 2021 (arXiv 2109.01903), and its
code, whose default is a = 0.5. Its linear classifier is a layer on features of unit length that
starts from logit_scale * T, T the text weights; its bias, which starts at 0, is left away. AdamW,
the cosine and gradients cut to length 1 are the code's, weight decay 0.1 the paper's; its rate is
for all of ImageNet, and ours was chosen on the validation set of Caltech101. The cut is a bound for
odd data: on the shots of eight files of CLIP features no gradient was longer than 0.15.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, cast

import torch
from torch import Tensor

from clip_adapter.errors import UsageError
from clip_adapter.methods.base import (
    Bounds,
    FewShotTask,
    Fitted,
    Head,
    Method,
    Sizes,
    get_method,
    make_method,
    method_names,
    register,
)
from clip_adapter.nn import normalize
from clip_adapter.towers import WeightAdapter
from clip_adapter.training import Fold, Schedule, choose, for_large, train_on, training_device

LINEAR = "linear-classifier"
CANDIDATES = tuple(round(0.1 * i, 1) for i in range(11))
PUBLISHED = 0.5
RATE, WEIGHT_DECAY, BATCH, STEPS, EPOCHS_AT_LEAST = 0.03, 0.1, 256, 128, 8
MAX_NORM = 1.0
# Of many shots, see clip_adapter.training.for_large.
LARGE = {"rate": 4.0, "epochs": 5}


@register(
    name="wise-ft",
    summary="classifier weights half-way between the text's and trained ones",
    citation="Wortsman et al. 2021, arXiv 2109.01903",
    trains="classifier weights",
)
class WiseFT(Method):
    """Mixes the classifier weights of a method with the text weights.

    Attributes:
        of: the method whose weights are mixed in, with its defaults: "linear-classifier", the
            paper's, or a method that reads features and gives one weight vector per class.
        mixing: a, the share of the trained weights, 0 to 1, or "auto": cross-validation on the
            shots, 0 included.
    """

    symbols = {"alpha": "mixing"}  # noqa: RUF012

    of: str = LINEAR
    mixing: Annotated[float | Literal["auto"], Bounds(least=0, most=1)] = PUBLISHED

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of == self.name:
            raise UsageError(f"of = {self.of}.", allowed="another method")
        if self.of != LINEAR and not get_method(self.of).one_vector_per_class:
            able = [n for n in method_names() if get_method(n).one_vector_per_class]
            raise UsageError(
                f"of = {self.of}: what it learns cannot be mixed with the text weights.",
                allowed=", ".join([LINEAR, *able]) + " (one weight vector per class)",
                hint="wise-ft-tower mixes the weights of the visual tower.",
            )

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        task.require_text(self.name)
        (trained,) = self._train(task, [torch.arange(len(task.train))])
        choice = choose(
            "mixing",
            self.mixing,
            CANDIDATES,
            one_shot=PUBLISHED,
            task=task,
            evaluate=lambda jobs: self._held_out(task, jobs),
        )
        return Fitted(
            mixed(trained, task, choice.value, self.of),
            hyperparameters={"of": self.of, "mixing": choice.value},
            trained_parameters=trained.trained_parameters,
            selection=choice.record,
            held_out=choice.held_out,
        )

    def parameters(self, sizes: Sizes) -> int | None:  # noqa: D102
        if self.of != LINEAR:
            return make_method(self.of).parameters(sizes)
        return sizes.classes * sizes.dim

    def held_out_logits(self, task: FewShotTask, folds: Sequence[Fold]) -> Iterator[Tensor]:  # noqa: D102
        share = PUBLISHED if self.mixing == "auto" else self.mixing
        yield from self._held_out(task, [(fold, share) for fold in folds])

    def _train(self, task: FewShotTask, rows: list[Tensor]) -> list[Fitted]:
        if self.of == LINEAR:
            return linear_classifiers(task, rows)
        return make_method(self.of).fit_parts(task, rows)

    def _held_out(self, task: FewShotTask, jobs: list[tuple[Fold, float]]) -> Iterator[Tensor]:
        """Logits of every fold and share; a fold is trained once."""
        folds = list(dict.fromkeys(fold for fold, _ in jobs))
        trained = dict(zip(folds, self._train(task, [f.fit for f in folds]), strict=True))
        for fold, share in jobs:
            head = mixed(trained[fold], task, share, self.of)
            yield head(task.train.plain_view[fold.held_out])


@register(
    name="wise-ft-tower",
    summary="a visual tower half-way between CLIP's and a fine-tuned one",
    citation="Wortsman et al. 2021, arXiv 2109.01903",
    trains="visual tower",
    reads="images",
    uses_views=False,
)
class WiseFTTower(Method):
    """Fine-tunes the visual tower and goes back half of the way.

    Attributes:
        mixing: a, the share of the trained weights, 0 to 1.
        lr: learning rate of the fine-tuning.
        batch_size: pictures per step.
        epochs: passes over the shots, at most; it stops early on held-out shots.
    """

    mixing: Annotated[float, Bounds(least=0, most=1)] = PUBLISHED
    lr: Annotated[float, Bounds(above=0)] = 1e-5
    batch_size: Annotated[int, Bounds(least=1)] = 32
    epochs: Annotated[int, Bounds(least=1)] = 20

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        own = {"lr": self.lr, "batch_size": self.batch_size, "epochs": self.epochs}
        fitted = make_method("fine-tune", {"tower": "visual", "adapter": False, **own}).fit(task)
        start = WeightAdapter.start(task.require_backbone(self.name))
        return dataclasses.replace(
            fitted,
            tower_adapter=cast("WeightAdapter", fitted.tower_adapter).blended(start, self.mixing),
            hyperparameters={**fitted.hyperparameters, "mixing": self.mixing},
        )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.visual_parameters


def linear_classifiers(task: FewShotTask, rows: list[Tensor]) -> list[Fitted]:
    """The paper's, one for each tensor of ``rows``, in one pass.

    A layer on features of unit length that starts as zero-shot CLIP.
    """
    start = task.logit_scale * normalize(task.require_text(WiseFT.name))
    module = torch.nn.ParameterDict({"weights": start.repeat(len(rows), 1, 1)})
    schedule = Schedule(
        "adamw",
        # The weights that move are logit_scale long, about 100 for CLIP's own. The gradient's
        # length does not depend on theirs: features are of unit length.
        RATE * task.logit_scale / 100,
        WEIGHT_DECAY,
        BATCH,
        steps=max(STEPS, EPOCHS_AT_LEAST * len(task.train) // BATCH),
        warmup=0.1,
        max_norm=MAX_NORM,
    )
    schedule = for_large(schedule, task.train, **LARGE)
    batch = min(schedule.batch_size, max(len(r) for r in rows))
    work = len(rows) * batch * start.numel()
    module.to(training_device(task, work))

    def logits(x: Tensor) -> Tensor:
        return x @ module["weights"].transpose(-1, -2)

    train_on(
        task,
        module,
        rows,
        schedule,
        work=work,
        logits=logits,
        features=normalize(task.train.features),
    )
    return [
        Fitted(
            Head(weights, logit_scale=task.logit_scale, kind="linear", unit=True),
            trained_parameters=weights.numel(),
        )
        for weights in module["weights"].detach()
    ]


def mixed(trained: Fitted, task: FewShotTask, share: float, of: str = "") -> Head:
    """The head of ``trained`` with its weights mixed with those of zero-shot.

    Rows of a cosine head have no length of their own, so they are of unit length when mixed; a
    linear head on unit features is mixed with the zero-shot weights times the logit scale.

    Raises:
        UsageError: there is more in what was learnt than weights.
    """
    head, text = trained.head, normalize(task.require_text(WiseFT.name))
    if (
        not isinstance(head, Head)
        or head.image_map is not None
        or head.cache is not None
        or trained.tower_adapter is not None
        or head.sees_length
    ):
        raise UsageError(
            f"What {of or 'this method'} learns cannot be mixed with the text weights.",
            allowed="classifiers that are one weight vector per class, on features of unit length "
            "and without a cache or a changed image feature (as linear-classifier); "
            "wise-ft-tower for the weights of the visual tower",
        )
    if head.kind == "cosine":
        weights = (1 - share) * text + share * normalize(head.weights)
    else:
        weights = (1 - share) * task.logit_scale * text + share * head.weights
    bias = None if head.bias is None else share * head.bias
    return Head(weights, None, bias, head.logit_scale, head.kind, unit=head.unit)
