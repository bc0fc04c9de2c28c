"""A training on several devices: one process each, started here, without a launcher of its own.

The user's script is not read again in them, so it needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Iterable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import distributed, nn

from clip_adapter.errors import CancelledError, ClipAdapterError, UsageError
from clip_adapter.finetuning.job import Job, Trained, trainable
from clip_adapter.finetuning.loop import run
from clip_adapter.reporting import Stage, Tracker, listening, log, tracking

# Files of a training: where the processes meet, what they print, and the first one's parameters.
_MEETING, _PRINTS, _RESULT = "meeting", "prints.txt", "result.pt"
_GRACE = 60.0  # seconds that a process has to keep what it reached


def run_on_several(model: nn.Module, job: Job) -> Trained:
    """Train ``model`` in place, in ``job.compute.devices`` processes.

    Args:
        model: as in :func:`~clip_adapter.finetuning.loop.run`.
        job: what it is trained on, and how.

    Raises:
        UsageError: there are fewer devices, or the model or the pictures cannot be sent.
        ClipAdapterError: what a process raised.
    """
    device, count = torch.device(job.compute.device), job.compute.devices
    present = {"cpu": count, "cuda": torch.cuda.device_count()}.get(device.type, 1)
    if count > present:
        raise UsageError(f"devices = {count} of {device.type}.", allowed=f"1 to {present}")
    before = next(model.parameters()).device
    try:
        # As bytes: multiprocessing itself would share every tensor by an open file.
        task = pickle.dumps((model.cpu(), job, torch.get_num_threads()))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"This training cannot be sent to other processes: {error}.",
            hint="Train on one device (devices=1).",
        ) from error
    finally:
        model.to(before)
    with tempfile.TemporaryDirectory() as scratch:  # readable by its owner alone
        processes: dict[Connection, Any] = {}
        try:
            for rank in range(count):
                receiver, process = _start(rank, Path(scratch), task)
                processes[receiver] = process
            with tracking("Training", job.steps) as tracker:
                trained = _listen(processes, Path(scratch), tracker)
        except (CancelledError, KeyboardInterrupt):
            # The first process keeps its state at the end of its step; the others wait for it.
            first = next(iter(processes.values()))
            os.kill(first.pid, signal.SIGINT)
            first.join(_GRACE)
            raise
        finally:
            for process in processes.values():
                process.kill()
                process.join()
        parameters = torch.load(Path(scratch, _RESULT), weights_only=True)
    model.load_state_dict(parameters, strict=False)
    model.eval()
    return trained


def _start(rank: int, folder: Path, task: bytes) -> tuple[Connection, Any]:
    """Process number ``rank``, and what it says."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(rank, folder, task, sender), daemon=True)
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:  # without the user's script, which multiprocessing would run in the process
        process.start()
    finally:
        sys.modules["__main__"] = script
        sender.close()  # the process has its own: where that is closed, it has ended
    return receiver, process


def _listen(receivers: Iterable[Connection], folder: Path, tracker: Tracker) -> Trained:
    """What the training came to; what the processes say meanwhile is passed on.

    Raises:
        ClipAdapterError: what a process raised.
        RuntimeError: one ended early. The others would wait for it, some for half an hour.
    """
    trained, running = Trained(), [*receivers]
    while running:
        for receiver in cast("list[Connection]", wait(running)):
            try:
                message = receiver.recv()
            except EOFError:
                prints = (folder / _PRINTS).read_text(errors="replace")
                raise RuntimeError(
                    f"A process of the training ended early.\n{prints[-2000:]}"
                ) from None
            match message:
                case Stage():
                    tracker.at(message.done, note=message.note)
                case Trained():
                    trained = message
                    running.remove(receiver)
                case (level, line):
                    log.log(level, line)
                case error:
                    raise error
    return trained


class _ToParent(logging.Handler):
    """Sends lines to the process that started this one."""

    def __init__(self, sender: Connection) -> None:
        super().__init__()
        self.sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self.sender.send((record.levelno, record.getMessage()))


def _work(rank: int, folder: Path, task: bytes, sender: Connection) -> None:
    """One process of a training."""
    with open(folder / _PRINTS, "a") as prints:
        os.dup2(prints.fileno(), 1)
        os.dup2(prints.fileno(), 2)
    if rank == 0:
        log.addHandler(_ToParent(sender))
        log.setLevel(logging.INFO)
    else:  # Ctrl-C reaches all: the first process decides when it ends
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    model, job, threads = pickle.loads(task)  # noqa: S301 - from the process that started this one
    torch.set_num_threads(max(threads // job.compute.devices, 1))
    if job.compute.device.startswith("cuda"):
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if job.compute.device.startswith("cuda") else "gloo",
        init_method=(folder / _MEETING).as_uri(),
        rank=rank,
        world_size=job.compute.devices,
    )
    try:
        with listening(sender.send):  # the first process alone counts its steps
            trained = run(model, job)
    except ClipAdapterError as error:
        sender.send(error)
        return
    if rank == 0:
        parameters = {k: p.detach().cpu() for k, p in trainable(model).items()}
        torch.save(parameters, folder / _RESULT)
    sender.send(trained)
