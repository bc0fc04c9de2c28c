"""What a training on pixels is given and gives back, and how its pixels are read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """

    pictures: Pictures
    labels: Tensor
    rows: Tensor
    held_out: Tensor | None
    schedule: PixelSchedule
    seed: int
    compute: Compute
    digest: str

    @property
    def state_file(self) -> Path | None:
        """Where the state of the training is kept, if it is."""
        return self.compute.checkpoint and self.compute.checkpoint / "training.pt"

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; its remainder is left out, as in the loop on features."""
        return max(len(self.rows) // self.schedule.batch_size, 1)

    @property
    def steps(self) -> int:
        """All steps."""
        if self.schedule.epochs is not None:
            return self.schedule.epochs * self.per_epoch
        return int(self.schedule.steps or 0)

    def batch(self, step: int) -> tuple[Tensor, int | None]:
        """The rows (B,) of ``step`` and their view."""
        epoch, place = divmod(step, self.per_epoch)
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        size = self.schedule.batch_size
        return order[place * size : (place + 1) * size], epoch if self.schedule.augment else None


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


class Loader:
    """Pixels, read one batch after the other in the only thread of ``pool``."""

    def __init__(self, job: Job, pool: Executor) -> None:
        self._job, self._pool = job, pool
        self._plain: dict[int, Tensor] = {}

    def load(self, rows: Tensor, view: int | None) -> Future[Tensor]:
        """Pixels (B, 3, S, S) of ``rows``, soon."""
        return self._pool.submit(self._read, rows, view)

    def batches(self, first: int, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each step from ``first`` on: all rows, this process's, and the pixels of these.

        The next step's pixels are read meanwhile.
        """

        def ask(step: int) -> tuple[Tensor, Tensor, Future[Tensor]]:
            rows, view = self._job.batch(step)
            own = rows[rank::world] if len(rows) > rank else rows[:1]
            return rows, own, self.load(own, view)

        asked = map(ask, range(first, self._job.steps))
        following = next(asked, None)
        while following is not None:
            (rows, own, pixels), following = following, next(asked, None)
            yield rows, own, pixels.result()

    def _read(self, rows: Tensor, view: int | None) -> Tensor:
        pictures, index = self._job.pictures, rows.tolist()
        if view is not None:
            return pictures.batch(rows, view)
        known = self._plain
        if missing := [i for i in index if i not in known]:
            known = known | dict(zip(missing, pictures.batch(missing), strict=True))
        images = torch.stack([known[i] for i in index])
        if images[0].nbytes * len(pictures) <= KEPT_PIXELS:
            self._plain = known
        return images
