"""What a training on pixels is given and gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from clip_adapter.options import Compute
from clip_adapter.training.loop import Schedule

if TYPE_CHECKING:
    from clip_adapter.features.pixels import Pictures

# Plain views are decoded once where all of them fit into this many bytes.
KEPT_PIXELS = 2**30


@dataclass(frozen=True)
class PixelSchedule(Schedule):
    """How to train on pixels; exactly one of ``epochs`` and ``steps`` is set.

    Attributes:
        warmup: share of the steps over which the rate rises; then it falls to 0 along a cosine.
        augment: a new random view of every picture in each epoch; else the plain view.
        patience: epochs without a better held-out accuracy before it stops; the best parameters
            are restored. None holds nothing out, and the last step is the model.
        rates: (start of a parameter's name, its rate as a multiple of ``lr``); 1 for the others.
    """

    augment: bool = True
    patience: int | None = None
    rates: tuple[tuple[str, float], ...] = ()

    @classmethod
    def adamw(cls, method: Any, **more: Any) -> Self:
        """AdamW at the rate, in the batches and for the epochs that ``method`` has as options."""
        return cls("adamw", method.lr, batch_size=method.batch_size, epochs=method.epochs, **more)

    def rate(self, name: str) -> float:
        """The multiple of ``lr`` that the parameter ``name`` learns at."""
        return next((rate for start, rate in self.rates if name.startswith(start)), 1.0)


@dataclass
class Job:
    """A training without its model, so that it can be sent to other processes.

    Attributes:
        pictures: N pictures.
        labels: (N,).
        rows: (n,) those to train on.
        held_out: (m,) those to stop early by; None where nothing is held out.
        schedule: optimiser and learning rate.
        seed: the only source of randomness.
        compute: where and how.
        digest: of everything that decides the result.
        plain: pixels (3, S, S) of plain views by row, as far as they are kept.
    """

    pictures: Pictures
    labels: Tensor
    rows: Tensor
    held_out: Tensor | None
    schedule: PixelSchedule
    seed: int
    compute: Compute
    digest: str
    plain: dict[int, Tensor] = field(default_factory=dict)

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; its remainder is left out, as in the loop on features."""
        return max(len(self.rows) // self.schedule.batch_size, 1)

    @property
    def steps(self) -> int:
        """All steps."""
        epochs = self.schedule.epochs
        return int(self.schedule.steps or 0) if epochs is None else epochs * self.per_epoch

    def batch(self, step: int) -> tuple[Tensor, int | None]:
        """The rows (B,) of ``step`` and their view."""
        epoch, place = divmod(step, self.per_epoch)
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = torch.randperm(len(self.rows), generator=generator)
        part = order.split(self.schedule.batch_size)[place]
        return self.rows[part], epoch if self.schedule.augment else None

    def pixels(self, rows: Tensor, view: int | None = None) -> Tensor:
        """Pixels (B, 3, S, S) of ``rows``: those of a random view, or the plain ones."""
        if view is not None:
            return self.pictures.batch(rows, view)
        missing = [row for row in rows.tolist() if row not in self.plain]
        read = dict(zip(missing, self.pictures.batch(missing), strict=True)) if missing else {}
        images = torch.stack([read[r] if r in read else self.plain[r] for r in rows.tolist()])
        if images[0].nbytes * len(self.pictures) <= KEPT_PIXELS:
            self.plain.update(read)
        return images


@dataclass
class Trained:
    """What a training came to.

    Attributes:
        steps: steps taken.
        loss: of the last one, nats.
        val_accuracy: percent of the held-out pictures right, of the parameters that were kept;
            None where nothing was held out.
        best_step: the step whose parameters were kept; 0 is the start.
        history: {"step", "loss", "val_accuracy", "val_loss"} after each epoch.
    """

    steps: int = 0
    loss: float = 0.0
    val_accuracy: float | None = None
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def mixed_seed(seed: int, number: int) -> int:
    """A seed for part ``number`` of a training, within what torch takes."""
    return (seed * 1_000_003 + number) % 2**63


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that ask for gradients, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
