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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_adapter.backbones.memory import is_out_of_memory
from clip_adapter.errors import BackboneError, CancelledError, MissingExtraError, UsageError
from clip_adapter.finetuning.checkpoint import State, read_state, state_file, write_state
from clip_adapter.finetuning.job import Job, Loader, Trained, mixed_seed, trainable
from clip_adapter.options import Compute
from clip_adapter.reporting import Tracker, log, tracking
from clip_adapter.training.loop import learning_rate

# Seconds between two checkpoints; the towers are large, and writing them takes its time.
CHECKPOINT_EVERY = 30.0
EVALUATION_BATCH = 64


def run(model: nn.Module, job: Job) -> Trained:
    """Trains ``model`` in place, in this process (one of ``job.compute.devices``).

    Args:
        model: pictures to logits.
        job: what it is trained on, and how.

    Raises:
        UsageError: a checkpoint of another training, or a precision that the device has not.
        BackboneError: memory runs out.
    """
    fabric = _fabric(job.compute)
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with _quiet(), torch.random.fork_rng(devices=cuda), Loader(job) as loader:
        try:
            return _Run(model, job, fabric, loader).all()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise BackboneError(
                f"Memory runs out with batches of {job.recipe.batch_size} pictures in "
                f"{job.compute.accumulate} parts.",
                hint="Cut the batch into more parts (accumulate; the result stays the same), "
                "take a lower precision, or a smaller backbone.",
            ) from error


class _Run:
    """The state of a training, and its steps."""

    def __init__(
        self,
        model: nn.Module,
        job: Job,
        fabric: Any,
        loader: Loader,
    ) -> None:
        self.model, self.job, self.fabric, self.loader = model, job, fabric, loader
        self.trained = Trained()
        self.best: dict[str, Tensor] | None = None
        self.best_key = (-math.inf, -math.inf)
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.wrapped, self.optimizer = fabric.setup(model, self._optimizer())
        # after the set-up, which moves the model to its device
        self.parameters = trainable(model)
        self.last_saved = time.monotonic()

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe, by_rate = self.job.recipe, defaultdict(list)
        for name, parameter in trainable(self.model).items():
            by_rate[recipe.rate(name)].append(parameter)
        groups: Any = [{"params": found, "rate": rate} for rate, found in by_rate.items()]
        decay = recipe.weight_decay
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(groups, recipe.lr, momentum=0.9, weight_decay=decay)
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, recipe.lr, eps=recipe.epsilon, weight_decay=decay)

    def all(self) -> Trained:
        """Every step that is still to be done."""
        job, finished = self.job, self._resume()
        if not finished:
            self._train()
        if self.best is not None:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self.best[name])
        self.model.eval()
        if job.compute.checkpoint is not None and not finished:
            self._save(done=True)
        return self.trained

    def _train(self) -> None:
        job, trained = self.job, self.trained
        if job.held_out is not None and trained.steps == 0:
            self._evaluate()
        with (
            _interrupts(job.compute.checkpoint is not None) as interrupted,
            tracking("Training", job.steps) as tracker,
        ):
            self._steps(interrupted, tracker)
        if job.held_out is None:
            trained.best_step = trained.steps

    def _steps(self, interrupted: Callable[[], bool], tracker: Tracker) -> None:
        job, trained = self.job, self.trained
        for step in range(trained.steps, job.steps):
            if self._patience_is_over():
                break
            trained.loss = self._step(step)
            trained.steps = step + 1
            if (step + 1) % job.per_epoch == 0 or step + 1 == job.steps:
                self._evaluate()
            if not math.isfinite(trained.loss):
                break
            if interrupted():
                self._save(done=False)
                raise KeyboardInterrupt(
                    f"The training is kept at step {step + 1} of {job.steps} in "
                    f"{job.compute.checkpoint}: the same command goes on."
                )
            if time.monotonic() - self.last_saved >= CHECKPOINT_EVERY:
                self._save(done=False)
            if self.rank == 0:
                try:
                    tracker.at(step + 1, note=self._note())
                except CancelledError:
                    self._save(done=False)
                    raise

    def _step(self, step: int) -> float:
        job = self.job
        rows, _ = job.batch(step)
        # Dropout, where a method has it, draws from the global generator (kept by the caller).
        seed = mixed_seed(job.seed + 1 + self.rank, step)
        torch.default_generator.manual_seed(seed)
        if self.fabric.device.type == "cuda":
            with torch.cuda.device(self.fabric.device):
                torch.cuda.manual_seed(seed)
        rate = replace(job.recipe, epochs=None, steps=job.steps)
        for group in self.optimizer.param_groups:
            now = learning_rate(rate, step, job.steps, job.per_epoch)
            group["lr"] = group["rate"] * now
        own, pixels = self.loader.batch(step, self.rank, self.world)
        # A process without a picture of its own takes part with weight 0.
        share = 0.0 if len(rows) <= self.rank else self.world / len(rows)
        count = job.compute.accumulate
        parts = list(zip(own.chunk(count), pixels.chunk(count), strict=True))
        total = torch.zeros((), device=self.fabric.device)
        for i, (index, images) in enumerate(parts):
            target = job.labels[index].to(self.fabric.device)
            last = i + 1 == len(parts)
            with self.fabric.no_backward_sync(self.wrapped, enabled=not last):
                scores = self.wrapped(images.to(self.fabric.device))
                prior = job.prior(scores.shape[-1]).to(scores.device)
                loss = share * F.cross_entropy(scores.float() + prior, target, reduction="sum")
                self.fabric.backward(loss)
            total += loss.detach()
        if job.recipe.max_norm is not None:
            self.fabric.clip_gradients(
                self.wrapped,
                self.optimizer,
                max_norm=job.recipe.max_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(self.fabric.all_reduce(total, reduce_op="mean"))

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Notes the accuracy on the held-out pictures, and keeps the best parameters."""
        job, trained = self.job, self.trained
        noted: dict[str, Any] = {
            "step": trained.steps,
            "loss": trained.loss if trained.steps else None,
        }
        if job.held_out is not None:
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
            noted |= {"val_accuracy": 100 * hits, "val_loss": loss}
            if (hits, -loss) > self.best_key:
                self.best_key, trained.best_step = (hits, -loss), trained.steps
                trained.val_accuracy = 100 * hits
                self.best = {k: p.detach().clone() for k, p in self.parameters.items()}
        trained.history.append(noted)

    def _patience_is_over(self) -> bool:
        patience = self.job.recipe.patience
        if patience is None or self.job.held_out is None:
            return False
        since = self.trained.steps - self.trained.best_step
        return since >= patience * self.job.per_epoch

    def _note(self) -> str:
        seen = self.trained.history[-1].get("val_accuracy") if self.trained.history else None
        accuracy = "" if seen is None else f", held out {seen:.1f} % right"
        return f"loss {self.trained.loss:.3f}{accuracy}"

    def _save(self, done: bool) -> None:
        folder = self.job.compute.checkpoint
        if folder is None or self.rank:
            return
        state = State(
            digest=self.job.digest,
            done=done,
            parameters={k: p.detach() for k, p in self.parameters.items()},
            trained=vars(self.trained),
            # What is finished needs no more than its parameters.
            best=None if done else self.best,
            best_key=self.best_key,
            optimizer={} if done else self.optimizer.state_dict(),
            precision={} if done else self.fabric.strategy.precision.state_dict(),
        )
        write_state(folder, state)
        self.last_saved = time.monotonic()

    def _resume(self) -> bool:
        """Takes up the state that was saved, if any; whether nothing is left to do."""
        folder = self.job.compute.checkpoint
        if folder is None:
            return False
        state, found = read_state(folder, self.job.digest), state_file(folder).exists()
        # No process may write before all have read.
        self.fabric.barrier()
        if self.rank == 0 and found:
            log.info(_taken(folder, state, self.job.steps))
        if state is None:
            return False
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.parameters[name])
        self.trained = Trained(**state.trained)
        self.best_key = state.best_key
        if state.best is not None:
            self.best = {k: v.to(self.fabric.device) for k, v in state.best.items()}
        if not state.done:
            self.optimizer.load_state_dict(state.optimizer)
            self.fabric.strategy.precision.load_state_dict(state.precision)
        return state.done


def _taken(folder: Path, state: State | None, steps: int) -> str:
    """What a training takes from the checkpoint that lies in ``folder``, in words."""
    if state is None:
        return f"{folder} holds the result of another training: it is replaced by this one's."
    if state.done:
        return f"The training in {folder} was finished: its result is taken."
    return f"The training in {folder} goes on from step {state.trained['steps']} of {steps}."


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
    with _quiet():  # after the import, which sets the levels of its loggers
        environment = LightningEnvironment()
        if compute.devices > 1:
            # A change may leave parameters of some blocks without a gradient at its start.
            strategy = DDPStrategy(
                cluster_environment=environment,
                find_unused_parameters=True,
                broadcast_buffers=False,
            )
            devices: Any = compute.devices
        else:
            strategy = "auto"
            devices = 1 if device.type == "cpu" else [device.index or 0]
        fabric = Fabric(
            accelerator=device.type, devices=devices, strategy=strategy, precision=compute.precision
        )
        fabric.launch()
    return fabric


@contextlib.contextmanager
def _interrupts(wait: bool) -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of a step, so that what is saved is whole; asked by calling it.

    Elsewhere than in the main thread, or without ``wait``, Python's own way stays.
    """
    pressed: list[int] = []
    if not wait or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning prints banners and advice; none of it is for the user of this library."""
    loggers = [logging.getLogger(n) for n in ("lightning_fabric", "lightning.fabric", "torch")]
    before = [(logger, logger.level) for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
