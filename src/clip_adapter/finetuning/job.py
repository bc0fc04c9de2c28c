"""What a training on pixels is given and gives back, and how its pixels are read ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clip_adapter.options import Compute
from clip_adapter.training.loop import Schedule, log_prior

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
        recipe: optimiser and schedule.
        seed: the only source of randomness.
        compute: where and how.
        digest: of everything that decides the result.
    """

    pictures: Pictures
    labels: Tensor
    rows: Tensor
    held_out: Tensor | None
    recipe: PixelSchedule
    seed: int
    compute: Compute
    digest: str

    def prior(self, classes: int) -> Tensor:
        """(C,): what is added to the scores in training, as in the loop on features."""
        return log_prior(self.labels, [self.rows], classes)[0]

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; its remainder is left out, as in the loop on features."""
        return max(len(self.rows) // self.recipe.batch_size, 1)

    @property
    def steps(self) -> int:
        """All steps."""
        if self.recipe.epochs is not None:
            return self.recipe.epochs * self.per_epoch
        return int(self.recipe.steps or 0)

    def batch(self, step: int) -> tuple[Tensor, int | None]:
        """The rows (B,) of ``step`` and their view."""
        epoch, place = divmod(step, self.per_epoch)
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        size = self.recipe.batch_size
        return order[place * size : (place + 1) * size], epoch if self.recipe.augment else None


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
    """Pixels, read ahead in a thread while the model computes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Tensor]] | None = None
        self._plain: dict[int, Tensor] = {}

    def load(self, rows: Tensor, view: int | None) -> Future[Tensor]:
        """Pixels (B, 3, S, S) of ``rows``, soon."""
        return self._pool.submit(self._read, rows, view)

    def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        """This process's (rows, pixels) of ``step``; the next step's are fetched meanwhile."""
        own, view = self._own(step, rank, world)
        ready = self._next if self._next is not None and self._next[0] == step else None
        future = self.load(own, view) if ready is None else ready[1]
        self._next = None
        if step + 1 < self._job.steps:
            self._next = (step + 1, self.load(*self._own(step + 1, rank, world)))
        return own, future.result()

    def _own(self, step: int, rank: int, world: int) -> tuple[Tensor, int | None]:
        rows, view = self._job.batch(step)
        own = rows[rank::world]
        return (own if len(own) else rows[:1]), view

    def _read(self, rows: Tensor, view: int | None) -> Tensor:
        pictures = self._job.pictures
        if view is not None:
            return pictures.batch(rows, view)
        index = rows.tolist()
        missing = [i for i in index if i not in self._plain]
        new = dict(zip(missing, pictures.batch(missing), strict=True)) if missing else {}
        images = torch.stack([new[i] if i in new else self._plain[i] for i in index])
        kept = images[0].numel() * images.element_size() * len(pictures)
        if kept <= KEPT_PIXELS:
            self._plain |= new
        return images

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
