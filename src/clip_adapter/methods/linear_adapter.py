"""The regularised linear adapter: one matrix on the image feature, held near the identity.

    logits = logit_scale * normalize(f M) @ normalize(W).T          M (D, D) starts at I
    loss = cross entropy + (1 / K) |M - I|^2

Source: Fahes et al., "CLIP's Visual Embedding Projector is a Few-shot Cornucopia", 2024 (arXiv
2410.05270, version 4: RLA), which reads CLIP-Adapter in the light of ProLIP: no bottleneck, no
ReLU, no ratio, and a penalty in the place of all three. K is the mean number of shots of the
classes that have any. Nothing is left to choose. Ours: few and long steps of Adam, and an epsilon
of 1e-2 where the released code of ProLIP has 1e-4. Where zero-shot is sure and right, gradients are
tiny, and a smaller epsilon takes full steps along their noise: two classes lost up to 28 points by
it on the tuning part of the zoo (benchmarks/zoo).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Method, Sizes, register
from clip_adapter.nn import Projection
from clip_adapter.training import Fold, Schedule, held_out_scores, train_on, training_device

STEPS, EPOCHS_AT_LEAST = 40, 4
SCHEDULE = Schedule(
    "adamw", 3e-3, weight_decay=0.0, batch_size=256, steps=STEPS, warmup=0.1, epsilon=1e-2
)


@register(
    name="linear-adapter",
    summary="a linear map of the image feature, held near the identity",
    citation="Fahes et al. 2024, arXiv 2410.05270v4",
    trains="a square matrix on image features",
)
class LinearAdapter(Method):
    """A matrix on the image feature, near the identity.

    Attributes:
        distance_penalty: weight of |M - I|^2, 0 or more, or "auto": 1 over the number of shots.
        lr: learning rate at the start of the cosine.
        steps: of the training; None for 40, or four passes over the shots where those are more.
    """

    distance_penalty: Annotated[float | Literal["auto"], Bounds(least=0)] = "auto"
    lr: Annotated[float, Bounds(above=0)] = SCHEDULE.lr
    steps: Annotated[int | None, Bounds(least=1)] = None

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return sizes.dim**2

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        (head,) = self._train(task, [torch.arange(len(task.train))])
        return Fitted(
            head,
            {"distance_penalty": self._strength(task), **self._schedule(task).record},
            trained_parameters=task.train.dim**2,
        )

    def held_out_logits(self, task: FewShotTask, folds: Sequence[Fold]) -> Iterator[Tensor]:  # noqa: D102
        heads = self._train(task, [f.fit for f in folds])
        yield from held_out_scores(heads, folds, task.train.plain_view)

    def _strength(self, task: FewShotTask) -> float:
        given = self.distance_penalty
        return 1 / task.mean_shots if given == "auto" else float(given)

    def _schedule(self, task: FewShotTask) -> Schedule:
        least = EPOCHS_AT_LEAST * len(task.train) // SCHEDULE.batch_size
        return dataclasses.replace(SCHEDULE, lr=self.lr, steps=self.steps or max(STEPS, least))

    def _train(self, task: FewShotTask, rows: list[Tensor]) -> list[Head]:
        """R heads, one for each tensor of ``rows``."""
        text, dim, schedule = task.require_text(self.name), task.train.dim, self._schedule(task)
        batch = min(schedule.batch_size, max(len(r) for r in rows))
        work = len(rows) * batch * dim * (dim + len(text))
        device, strength = training_device(task, work), self._strength(task)
        identity, scale = torch.eye(dim, device=device), task.logit_scale
        module = Projection(identity.repeat(len(rows), 1, 1))
        head = Head(text, module, logit_scale=scale).to(device)

        def penalty() -> Tensor:
            return strength * (module.matrix - identity).square().sum((-1, -2))

        train_on(task, head, rows, schedule, work=work, logits=head, penalty=penalty)
        return [Head(text, Projection(own), logit_scale=scale).cpu() for own in module.matrix]
