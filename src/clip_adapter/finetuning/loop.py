"""The loop behind :func:`clip_adapter.finetuning.train.train_pixels`: one process of a training.

Everything that a step does follows from the seed and the number of the step, so a training that
was interrupted goes on to the very bits that it would have reached. Its checkpoints are tensors and
plain values, read with ``weights_only=True``: a file from elsewhere cannot run code.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from clip_adapter.backbones.memory import is_out_of_memory
from clip_adapter.errors import BackboneError, CancelledError, DataError, UsageError
from clip_adapter.files import not_permitted, replacing, writing
from clip_adapter.finetuning.job import Job, Trained, mixed_seed, trainable
from clip_adapter.reporting import log, tracking
from clip_adapter.training.loop import learning_rate, log_prior

# Seconds between two checkpoints; the towers are large, and writing them takes its time.
CHECKPOINT_EVERY = 30.0
EVALUATION_BATCH = 64
MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
# What reading a damaged checkpoint can raise.
DAMAGE = (
    OSError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, EOFError,
    UnpicklingError,
)  # fmt: skip


def run(model: nn.Module, job: Job) -> Trained:
    """Train ``model`` in place, in this process (one of ``job.compute.devices``).

    Where there are several, each has joined the process group of torch before.

    Args:
        model: pictures to logits.
        job: what it is trained on, and how.

    Raises:
        UsageError: a checkpoint of another training, or a precision that the device has not.
        BackboneError: memory runs out.
    """
    device = torch.device(job.compute.device)
    if job.compute.precision == "16-mixed" and device.type != "cuda":
        raise UsageError(
            f"precision = 16-mixed on {job.compute.device}.",
            allowed="32-true, bf16-mixed; 16-mixed on cuda",
        )
    rank = distributed.get_rank() if job.compute.devices > 1 else 0
    if device.type == "cuda":
        device = torch.device("cuda", rank or device.index or 0)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            return _Run(model, job, device, rank).all()
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
    """The state of a training, and its steps.

    Attributes:
        rank: the number of this process, of ``world``.
        trained: what the training came to so far.
        best: the parameters with the best held-out accuracy, or None.
        done: whether a checkpoint brought the whole result.
    """

    def __init__(self, model: nn.Module, job: Job, device: torch.device, rank: int) -> None:
        self.model, self.job, self.device, self.rank = model.to(device), job, device, rank
        self.world, schedule = job.compute.devices, job.schedule
        self.parameters = trainable(model)
        rates = {name: schedule.rate(name) for name in self.parameters}
        groups = [
            {"params": [p for n, p in self.parameters.items() if rates[n] == rate], "rate": rate}
            for rate in dict.fromkeys(rates.values())
        ]
        own = {"momentum": 0.9} if schedule.optimizer == "sgd" else {"eps": schedule.epsilon}
        self.optimizer: torch.optim.Optimizer = OPTIMIZERS[schedule.optimizer](
            groups, schedule.lr, weight_decay=schedule.weight_decay, **own
        )
        self.mixed = MIXED.get(job.compute.precision)
        self.autocast = (
            torch.autocast(device.type, self.mixed) if self.mixed else contextlib.nullcontext()
        )
        # Without float16 it does nothing.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.mixed is torch.float16)
        self.trained, self.best, self.done = Trained(), None, False
        self.last_saved = time.monotonic()
        self.file = job.compute.checkpoint and job.compute.checkpoint / "training.pt"
        if self.file and (state := read_state(self.file, job.digest, job.steps)):
            self._resume(state)
        self.wrapped: Any = model
        if self.world > 1:
            # The processes wait for each other here, so none writes before all have read. An
            # adapter may leave parameters of some blocks without a gradient at its start.
            self.wrapped = nn.parallel.DistributedDataParallel(
                model, find_unused_parameters=True, broadcast_buffers=False
            )

    def all(self) -> Trained:
        """Every step that is still to be done."""
        if not self.done:
            self._train()
        if self.best is not None:
            self.model.load_state_dict(self.best, strict=False)
        self.model.eval()
        if not self.done:
            self._save(done=True)
        return self.trained

    def _train(self) -> None:
        job, trained = self.job, self.trained
        # Steps without a better accuracy after which it stops.
        patience = job.schedule.patience if job.held_out is not None else None
        enough = math.inf if patience is None else patience * job.per_epoch
        if job.held_out is not None and trained.steps == 0:
            self._evaluate()
        with (
            ThreadPoolExecutor(1) as pool,
            _interrupts(self.file is not None) as interrupted,
            tracking("Training", job.steps) as tracker,
        ):
            batches = self._batches(pool)
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
                        self._save()
                    if self.rank == 0:
                        note = f"loss {trained.loss:.3f}"
                        for latest in trained.history[-1:] if job.held_out is not None else ():
                            note += f", held out {latest['val_accuracy']:.1f} % right"
                        tracker.at(trained.steps, note=note)
                except (CancelledError, KeyboardInterrupt):
                    self._save()
                    raise
        if job.held_out is None:
            trained.best_step = trained.steps

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each step: all rows, this process's, and the pixels of these.

        The next step's pixels are read meanwhile, in the thread of ``pool``.
        """

        def read(step: int) -> tuple[Tensor, Tensor, Tensor]:
            rows, view = self.job.batch(step)
            own = rows[self.rank :: self.world] if len(rows) > self.rank else rows[:1]
            return rows, own, self.job.pixels(own, view)

        ahead = (pool.submit(read, i) for i in range(self.trained.steps, self.job.steps))
        for batch, _ in itertools.pairwise(itertools.chain(ahead, [Future()])):
            yield batch.result()

    def _step(self, step: int, rows: Tensor, own: Tensor, pixels: Tensor) -> float:
        """The loss of ``rows``, of which this process takes ``own`` with their ``pixels``."""
        job = self.job
        # Dropout, where a method has it, draws from the global generator (kept by the caller).
        seed = mixed_seed(job.seed + 1 + self.rank, step)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)
        by_steps = replace(job.schedule, epochs=None, steps=job.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate(by_steps, step, job.steps, job.per_epoch)
        # A process without a picture of its own takes part with weight 0.
        share = 0.0 if len(rows) <= self.rank else self.world / len(rows)
        count = job.compute.accumulate
        parts = list(zip(own.chunk(count), pixels.chunk(count), strict=True))
        total = torch.zeros((), device=self.device)
        for i, (index, images) in enumerate(parts, 1):
            # Gradients of the processes are joined once a step.
            alone = self.world > 1 and i < len(parts)
            with self.wrapped.no_sync() if alone else contextlib.nullcontext():
                scores = self._scores(self.wrapped, images.to(dtype=self.mixed))
                # as in the loop on features
                prior = log_prior(job.labels, [job.rows], scores.shape[-1])[0].to(self.device)
                target = job.labels[index].to(self.device)
                loss = share * F.cross_entropy(scores + prior, target, reduction="sum")
                self.scaler.scale(loss).backward()
            total += loss.detach()
        if job.schedule.max_norm is not None:
            self.scaler.unscale_(self.optimizer)
            every = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(every, job.schedule.max_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return float(self._summed(total)) / self.world

    def _scores(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, C) in float32, whatever the precision that they are computed in."""
        with self.autocast:
            return model(images.to(self.device)).float()

    def _summed(self, numbers: Tensor) -> Tensor:
        """The sum of the ``numbers`` of all processes."""
        if self.world > 1:
            distributed.all_reduce(numbers)
        return numbers

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Note the accuracy on the held-out pictures, and keep the best parameters."""
        job, trained = self.job, self.trained
        loss = trained.loss if trained.steps else None
        entry: dict[str, Any] = {"step": trained.steps, "loss": loss}
        trained.history.append(entry)
        if job.held_out is None:
            return
        sums = torch.zeros(2, dtype=torch.float64)
        training = [m for m in self.model.modules() if m.training]
        self.model.eval()
        for index in job.held_out[self.rank :: self.world].split(EVALUATION_BATCH):
            scores, target = self._scores(self.model, job.pixels(index)).cpu(), job.labels[index]
            sums[0] += (scores.argmax(-1) == target).sum()
            sums[1] += F.cross_entropy(scores, target, reduction="sum").double()
        for module in training:
            module.training = True
        sums = self._summed(sums.to(self.device, torch.float32))
        hits, loss = (float(x) / len(job.held_out) for x in sums)
        entry |= {"val_accuracy": 100 * hits, "val_loss": loss}
        # The accuracy decides, then the lower loss.
        if max(trained.history, key=lambda e: (e["val_accuracy"], -e["val_loss"])) is entry:
            trained.best_step, trained.val_accuracy = trained.steps, 100 * hits
            self.best = {k: p.detach().clone() for k, p in self.parameters.items()}

    def _save(self, done: bool = False) -> None:
        """Write the state, whole or not at all; what is finished needs its parameters alone."""
        if self.file is None or self.rank:
            return
        state = {
            "digest": self.job.digest,
            "done": done,
            "parameters": {k: p.detach() for k, p in self.parameters.items()},
            "trained": vars(self.trained),
            "best": None if done else self.best,
            "optimizer": {} if done else self.optimizer.state_dict(),
            "precision": {} if done else self.scaler.state_dict(),
        }
        with writing(self.file), replacing(self.file) as temporary:
            torch.save(state, temporary)
        self.last_saved = time.monotonic()

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["parameters"], strict=False)
        self.trained, self.done = Trained(**state["trained"]), state["done"]
        if state["best"] is not None:
            self.best = {k: v.to(self.device) for k, v in state["best"].items()}
        if not self.done:
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["precision"])


def read_state(path: Path, digest: str, steps: int) -> dict[str, Any] | None:
    """The state that was saved, on the CPU; None where there is none to go on from.

    A finished state of another training is passed over: nothing is lost when it is replaced.

    Args:
        path: of the file.
        digest: of everything that decides the result of this training.
        steps: all that it takes, for the line that says where it goes on.

    Raises:
        UsageError: an unfinished state of another training.
        DataError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of what torch itself did not write
            state = torch.load(path, map_location="cpu", weights_only=True)
        same, done, step = state["digest"] == digest, state["done"], state["trained"]["steps"]
    except PermissionError as error:
        raise not_permitted(f"The checkpoint {path}") from error
    except DAMAGE as error:
        raise DataError(
            f"The checkpoint {path} cannot be read.",
            hint="Remove it, and the training starts again.",
        ) from error
    if same:
        rest = (
            "was finished: its result is taken" if done else f"goes on from step {step} of {steps}"
        )
        log.info(f"The training in {path.parent} {rest}.")
        return state
    if done:
        log.info(
            f"{path.parent} holds the result of another training: it is replaced by this one's."
        )
        return None
    raise UsageError(
        f"The checkpoint {path} is of another training (step {step}): its "
        "pictures, their preprocessing, text, method, options, seed or backbone differ, or the "
        "version of clip-adapter.",
        hint="Give the same command as then to go on with it, name another folder, or remove it.",
    )


@contextlib.contextmanager
def _interrupts(wait: bool) -> Iterator[threading.Event]:
    """Ctrl-C waits for the end of a step, so that what is saved is whole; it sets the event.

    Elsewhere than in the main thread, or without ``wait``, Python's own way stays.
    """
    pressed = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set()) if wait and main else None
    try:
        yield pressed
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
