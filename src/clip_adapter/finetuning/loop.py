"""The loop behind :func:`clip_adapter.finetuning.train.train_pixels`: one process of a training.

Everything that a step does follows from the seed and the number of the step, so a training that
was interrupted goes on to the very bits that it would have reached.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_adapter.backbones.memory import is_out_of_memory
from clip_adapter.errors import BackboneError, CancelledError, MissingExtraError, UsageError
from clip_adapter.finetuning.checkpoint import State, read_state, write_state
from clip_adapter.finetuning.job import Job, Loader, Trained, mixed_seed, trainable
from clip_adapter.options import Compute
from clip_adapter.reporting import tracking
from clip_adapter.training.loop import learning_rate, log_prior

# Seconds between two checkpoints; the towers are large, and writing them takes its time.
CHECKPOINT_EVERY = 30.0
EVALUATION_BATCH = 64


def run(model: nn.Module, job: Job) -> Trained:
    """Train ``model`` in place, in this process (one of ``job.compute.devices``).

    Args:
        model: pictures to logits.
        job: what it is trained on, and how.

    Raises:
        UsageError: a checkpoint of another training, or a precision that the device has not.
        BackboneError: memory runs out.
    """
    fabric = _fabric(job.compute)
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with _quiet(), torch.random.fork_rng(devices=cuda), ThreadPoolExecutor(1) as pool:
        try:
            return _Run(model, job, fabric, Loader(job, pool)).all()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise BackboneError(
                f"Memory runs out with batches of {job.schedule.batch_size} pictures in "
                f"{job.compute.accumulate} parts.",
                hint="Cut the batch into more parts (accumulate; the result stays the same), "
                "take a lower precision, or a smaller backbone.",
            ) from error


class _Run:
    """The state of a training, and its steps."""

    def __init__(self, model: nn.Module, job: Job, fabric: Any, loader: Loader) -> None:
        self.model, self.job, self.fabric, self.loader = model, job, fabric, loader
        self.trained = Trained()
        self.best: dict[str, Tensor] | None = None
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.wrapped, self.optimizer = fabric.setup(model, self._optimizer())
        # after the set-up, which moves the model to its device
        self.parameters = trainable(model)
        self.last_saved = time.monotonic()

    def _optimizer(self) -> torch.optim.Optimizer:
        schedule, by_rate = self.job.schedule, defaultdict(list)
        for name, parameter in trainable(self.model).items():
            by_rate[schedule.rate(name)].append(parameter)
        groups: Any = [{"params": group, "rate": rate} for rate, group in by_rate.items()]
        decay = schedule.weight_decay
        if schedule.optimizer == "sgd":
            return torch.optim.SGD(groups, schedule.lr, momentum=0.9, weight_decay=decay)
        kind = torch.optim.Adam if schedule.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, schedule.lr, eps=schedule.epsilon, weight_decay=decay)

    def all(self) -> Trained:
        """Every step that is still to be done."""
        finished = self._resume()
        if not finished:
            self._train()
        if self.best is not None:
            self.model.load_state_dict(self.best, strict=False)
        self.model.eval()
        if not finished:
            self._save(done=True)
        return self.trained

    def _train(self) -> None:
        job, trained = self.job, self.trained
        if job.held_out is not None and trained.steps == 0:
            self._evaluate()
        # Steps without a better accuracy after which it stops.
        enough = math.inf
        if job.held_out is not None and job.schedule.patience is not None:
            enough = job.schedule.patience * job.per_epoch
        batches = self.loader.batches(trained.steps, self.rank, self.world)
        with (
            _interrupts(job.state_file is not None) as interrupted,
            tracking("Training", job.steps) as tracker,
        ):
            while trained.steps < job.steps and trained.steps - trained.best_step < enough:
                trained.loss = self._step(trained.steps, *next(batches))
                trained.steps += 1
                if trained.steps % job.per_epoch == 0 or trained.steps == job.steps:
                    self._evaluate()
                if not math.isfinite(trained.loss):
                    break
                try:
                    if interrupted.is_set():
                        raise KeyboardInterrupt(
                            f"The training is kept at step {trained.steps} of {job.steps} in "
                            f"{job.compute.checkpoint}: the same command goes on."
                        )
                    if time.monotonic() - self.last_saved >= CHECKPOINT_EVERY:
                        self._save(done=False)
                    if self.rank == 0:
                        tracker.at(trained.steps, note=self._note())
                except (CancelledError, KeyboardInterrupt):
                    self._save(done=False)
                    raise
        if job.held_out is None:
            trained.best_step = trained.steps

    def _step(self, step: int, rows: Tensor, own: Tensor, pixels: Tensor) -> float:
        """The loss of ``rows``, of which this process takes ``own`` with their ``pixels``."""
        job = self.job
        # Dropout, where a method has it, draws from the global generator (kept by the caller).
        seed = mixed_seed(job.seed + 1 + self.rank, step)
        torch.default_generator.manual_seed(seed)
        if self.fabric.device.type == "cuda":
            with torch.cuda.device(self.fabric.device):
                torch.cuda.manual_seed(seed)
        by_steps = replace(job.schedule, epochs=None, steps=job.steps)
        for group in self.optimizer.param_groups:
            now = learning_rate(by_steps, step, job.steps, job.per_epoch)
            group["lr"] = group["rate"] * now
        # A process without a picture of its own takes part with weight 0.
        share = 0.0 if len(rows) <= self.rank else self.world / len(rows)
        count = job.compute.accumulate
        parts = list(zip(own.chunk(count), pixels.chunk(count), strict=True))
        total = torch.zeros((), device=self.fabric.device)
        for i, (index, images) in enumerate(parts, 1):
            target = job.labels[index].to(self.fabric.device)
            with self.fabric.no_backward_sync(self.wrapped, enabled=i < len(parts)):
                scores = self.wrapped(images.to(self.fabric.device))
                # as in the loop on features
                prior = log_prior(job.labels, [job.rows], scores.shape[-1])[0].to(scores.device)
                loss = share * F.cross_entropy(scores.float() + prior, target, reduction="sum")
                self.fabric.backward(loss)
            total += loss.detach()
        if (longest := job.schedule.max_norm) is not None:
            self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=longest, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(self.fabric.all_reduce(total, reduce_op="mean"))

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Note the accuracy on the held-out pictures, and keep the best parameters."""
        job, trained = self.job, self.trained
        entry: dict[str, Any] = {
            "step": trained.steps,
            "loss": trained.loss if trained.steps else None,
        }
        trained.history.append(entry)
        if job.held_out is None:
            return
        sums = torch.zeros(2, dtype=torch.float64)
        training = [m for m in self.model.modules() if m.training]
        self.model.eval()
        for index in job.held_out[self.rank :: self.world].split(EVALUATION_BATCH):
            images = self.loader.load(index, None).result().to(self.fabric.device)
            with self.fabric.autocast():
                scores = self.model(images).float().cpu()
            target = job.labels[index]
            sums[0] += (scores.argmax(-1) == target).sum()
            sums[1] += F.cross_entropy(scores, target, reduction="sum").double()
        for module in training:
            module.training = True
        reduced = self.fabric.all_reduce(sums.to(torch.float32), reduce_op="sum")
        hits, loss = (float(x) / len(job.held_out) for x in reduced)
        entry |= {"val_accuracy": 100 * hits, "val_loss": loss}
        if max(trained.history, key=_quality) is entry:
            trained.best_step, trained.val_accuracy = trained.steps, 100 * hits
            self.best = {k: p.detach().clone() for k, p in self.parameters.items()}

    def _note(self) -> str:
        accuracy = self.trained.history[-1].get("val_accuracy") if self.trained.history else None
        words = "" if accuracy is None else f", held out {accuracy:.1f} % right"
        return f"loss {self.trained.loss:.3f}{words}"

    def _save(self, done: bool) -> None:
        path = self.job.state_file
        if path is None or self.rank:
            return
        state = State(
            digest=self.job.digest,
            done=done,
            parameters={k: p.detach() for k, p in self.parameters.items()},
            trained=vars(self.trained),
            # What is finished needs no more than its parameters.
            best=None if done else self.best,
            optimizer={} if done else self.optimizer.state_dict(),
            precision={} if done else self.fabric.strategy.precision.state_dict(),
        )
        write_state(path, state)
        self.last_saved = time.monotonic()

    def _resume(self) -> bool:
        """Take up the state that was saved, if any; whether nothing is left to do."""
        path, job = self.job.state_file, self.job
        state = read_state(path, job.digest, job.steps) if path is not None else None
        # No process may write before all have read.
        self.fabric.barrier()
        if state is None:
            return False
        self.model.load_state_dict(state.parameters, strict=False)
        self.trained = Trained(**state.trained)
        if state.best is not None:
            self.best = {k: v.to(self.fabric.device) for k, v in state.best.items()}
        if not state.done:
            self.optimizer.load_state_dict(state.optimizer)
            self.fabric.strategy.precision.load_state_dict(state.precision)
        return state.done


def _quality(entry: dict[str, Any]) -> tuple[float, float]:
    """What decides which parameters are kept: the accuracy, then the lower loss."""
    return entry["val_accuracy"], -entry["val_loss"]


def _fabric(compute: Compute) -> Any:
    """Lightning's Fabric for this process.

    Raises:
        MissingExtraError: it is not installed.
        UsageError: 16-mixed without CUDA.
    """
    device = torch.device(compute.device)
    if compute.precision == "16-mixed" and device.type != "cuda":
        raise UsageError(
            f"precision = 16-mixed on {compute.device}.",
            allowed="32-true, bf16-mixed; 16-mixed on cuda",
        )
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingExtraError(
            "lightning-fabric", "train", "Training inside the backbone"
        ) from error
    strategy: Any = "auto"
    devices: Any = 1 if device.type == "cpu" else [device.index or 0]
    if compute.devices > 1:
        devices = compute.devices
        # An adapter may leave parameters of some blocks without a gradient at its start.
        strategy = DDPStrategy(
            cluster_environment=LightningEnvironment(),
            find_unused_parameters=True,
            broadcast_buffers=False,
        )
    with _quiet():  # after the import, which sets the levels of its loggers
        fabric = Fabric(
            accelerator=device.type, devices=devices, strategy=strategy, precision=compute.precision
        )
        fabric.launch()
    return fabric


@contextlib.contextmanager
def _interrupts(wait: bool) -> Iterator[threading.Event]:
    """Ctrl-C waits for the end of a step, so that what is saved is whole; it sets the event.

    Elsewhere than in the main thread, or without ``wait``, Python's own way stays.
    """
    pressed = threading.Event()
    if not wait or threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning prints banners and advice; none of it is for the user of this library."""
    loggers = [logging.getLogger(n) for n in ("lightning_fabric", "lightning.fabric", "torch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
