"""The one gradient loop on cached features. It trains R independent runs at once.

Every parameter has a leading dimension R, the losses of the runs are summed, and the optimisers
work element by element, so no run sees another: R ratios, folds or seeds cost one loop.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from clip_adapter.reporting import track
from clip_adapter.task import FewShotTask
from clip_adapter.threads import suited_threads

# Multiply-adds of a step which a core has done, gradients included, by the time that the step's
# operations are only called: half a millisecond on one AMD EPYC core (benchmarks/speed/heads.py).
WORTH_A_CARD = 5_000_000


@dataclass(frozen=True)
class Schedule:
    """How to train. Exactly one of ``epochs`` and ``steps`` is set.

    ``warmup`` counts epochs when ``epochs`` is set (constant at ``warmup_lr``) and is a share of
    the steps when ``steps`` is set (linear). After it the rate falls to 0 along a cosine; by epochs
    the cosine spans all of them from the end of the warm-up on, as in Dassl, so its end is cut
    off. With ``constant`` it stays at ``lr``. "adam" adds the weight decay to the gradient, as
    "sgd" does; "adamw" takes it off the parameters. ``epsilon`` is the one of their denominator.
    The gradient of a run, of all its parameters together, is cut to the length ``max_norm``.
    """

    optimizer: Literal["sgd", "adam", "adamw"]
    lr: float
    weight_decay: float
    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    warmup: float = 0.0
    warmup_lr: float = 0.0
    epsilon: float = 1e-8
    constant: bool = False
    max_norm: float | None = None

    @property
    def record(self) -> dict[str, Any]:
        """All that is set, for the record of a classifier."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


class Optimizer:
    """SGD with momentum 0.9, Adam or AdamW, through torch's functional forms.

    The classes of ``torch.optim`` import the compiler at their first use, which takes seconds:
    longer than most trainings here.
    """

    def __init__(self, module: nn.Module, schedule: Schedule) -> None:
        parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        self._module, self._schedule, self._parameters = module, schedule, parameters
        self._momentum: list[Tensor | None] = [None for _ in parameters]
        self._mean = [torch.zeros_like(p) for p in parameters]
        self._square = [torch.zeros_like(p) for p in parameters]
        self._steps = [torch.zeros(()) for _ in parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every parameter along its gradient, then drop the gradients."""
        schedule, parameters = self._schedule, self._parameters
        gradients = [p.grad for p in parameters if p.grad is not None]
        same: dict[str, Any] = {"lr": lr, "weight_decay": schedule.weight_decay, "maximize": False}
        if schedule.max_norm is not None:
            clip(gradients, schedule.max_norm)
        if schedule.optimizer == "sgd":
            more = {"momentum": 0.9, "dampening": 0.0, "nesterov": False}
            sgd(parameters, gradients, self._momentum, **same, **more)
        else:
            update = adam if schedule.optimizer == "adam" else adamw
            state = (self._mean, self._square, [], self._steps)
            more = {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "eps": schedule.epsilon}
            update(parameters, gradients, *state, **same, **more)
        self._module.zero_grad()


def clip(gradients: Sequence[Tensor], max_norm: float) -> None:
    """Shorten ``gradients``, each (R, ...), in place: those of a run together to ``max_norm``."""
    squares = [g.reshape(len(g), -1).square().sum(1) for g in gradients]
    # The small number is that of torch.nn.utils.clip_grad_norm_.
    share = (max_norm / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(share.view(-1, *[1] * (gradient.ndim - 1)))


def batches(
    rows: list[Tensor], batch_size: int, generators: Sequence[torch.Generator]
) -> Iterator[Tensor]:
    """Endless (R, B) row indices: each run goes through its own ``rows`` in shuffled epochs.

    An epoch's remainder is left out, unless the whole epoch is shorter than a batch. All runs
    take as many batches as the one with the most rows; the others go round again.
    """
    size = max(len(r) for r in rows)
    step = min(batch_size, size)
    while True:
        shuffled = [
            r[torch.randperm(len(r), generator=g)] for r, g in zip(rows, generators, strict=True)
        ]
        order = torch.stack([r.repeat(-(-size // len(r)))[:size] for r in shuffled])
        for start in range(0, size - size % step, step):
            yield order[:, start : start + step]


def training_device(task: FewShotTask, work: int | None) -> torch.device:
    """The device of ``task``, where a step of ``work`` multiply-adds is worth it; else the CPU.

    Heads have not been tried on Apple's GPUs: they stay on the CPU there.
    """
    device = torch.device(task.compute.device)
    small = work is not None and work < WORTH_A_CARD
    return torch.device("cpu") if small or device.type == "mps" else device


def train_on(
    task: FewShotTask,
    module: nn.Module,
    rows: list[Tensor],
    schedule: Schedule,
    *,
    work: int | None,
    logits: Callable[[Tensor], Tensor] | None = None,
    features: Tensor | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    penalty: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Train ``module`` in place on the shots of ``task``, on as many threads as a step is worth.

    It runs where ``module`` is, see :func:`training_device`; the shots stay where they are.

    The scores get the logarithm of the class's pictures added while they are trained, and not
    after: a class with many is then no more likely an answer than one with few, and one with none
    stays out of the loss (Menon et al. 2021, arXiv 2007.07314). Even shots are trained as ever.

    Args:
        task: its features and labels.
        module: parameters with a leading dimension R.
        rows: R tensors of row indices, one per run.
        schedule: optimiser, steps and rates.
        work: multiply-adds of one step of all runs; None: many.
        logits: ``features (R, B, D) -> (R, B, C)``, through ``module``; None takes what ``module``
            itself makes of them for cosines, and multiplies it by the logit scale.
        features: (V, N, D), on the CPU, in the place of the task's own; a view is drawn for each
            picture at each step. A batch goes to the device of ``module``.
        generator: the only source of randomness: one that all runs draw from in turn, or one for
            each run, which then draws as if it were alone; None starts one from the task's seed.
        penalty: (R,) what is added to the loss at every step, a function of the parameters.

    Returns:
        (R,) the loss of the last step.
    """
    features = task.train.features if features is None else features
    generator = generator or torch.Generator().manual_seed(task.seed)
    generators = [generator] * len(rows) if isinstance(generator, torch.Generator) else generator
    labels, device = task.train.labels, next(module.parameters()).device
    prior = log_prior(labels, rows, len(task.class_names)).to(device)[:, None]
    views, count, dim = features.shape
    flat, even = features.reshape(views * count, dim), not prior.any()
    size = max(len(r) for r in rows)
    per_epoch = max(size // min(schedule.batch_size, size), 1)
    steps = schedule.epochs * per_epoch if schedule.epochs is not None else int(schedule.steps or 0)
    optimizer, loss = Optimizer(module, schedule), torch.zeros(len(rows))
    stream = itertools.islice(batches(rows, schedule.batch_size, generators), steps)
    with suited_threads(work):
        for step, index in enumerate(track(stream, "Training", total=steps)):
            target = labels[index].to(device)
            if views > 1:
                drawn = [torch.randint(views, index.shape[1:], generator=g) for g in generators]
                index = index + count * torch.stack(drawn)
            x = flat[index].to(device)
            scores = logits(x) if logits else task.logit_scale * module(x)
            scores = scores if even else scores + prior
            loss = F.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none")
            loss = loss.view(target.shape).mean(1)
            if penalty is not None:
                loss = loss + penalty()
            loss.sum().backward()
            optimizer.step(learning_rate(schedule, step, steps, per_epoch))
    return loss.detach()


def log_prior(labels: Tensor, rows: Sequence[Tensor], classes: int) -> Tensor:
    """(R, C): the logarithm of a class's pictures over the most of any; -inf where it has none."""
    counts = torch.stack([torch.bincount(labels[r], minlength=classes) for r in rows])
    return (counts / counts.amax(1, keepdim=True)).log()


def learning_rate(schedule: Schedule, step: int, steps: int, per_epoch: int) -> float:
    """The rate at ``step`` (0-based)."""
    if schedule.constant:
        return schedule.lr
    if schedule.epochs is not None:
        epoch = step // per_epoch
        if epoch < schedule.warmup:
            return schedule.warmup_lr
        since = epoch - schedule.warmup
        return schedule.lr * 0.5 * (1 + math.cos(math.pi * since / schedule.epochs))
    warm = schedule.warmup * steps
    if step + 1 <= warm:
        return schedule.lr * (step + 1) / warm
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * (step + 1 - warm) / (steps - warm + 1)))
