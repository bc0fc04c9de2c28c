"""A training on several devices: one process each, started here, without a launcher of its own.

The user's script is not read again in them, so it needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import torch
from torch import distributed, nn

from clip_adapter.errors import CancelledError, ClipAdapterError, UsageError
from clip_adapter.finetuning.job import Job, Trained, trainable
from clip_adapter.finetuning.loop import run
from clip_adapter.reporting import Stage, Tracker, listening, log, tracking

# Files of a training: where the processes meet, what they print, and the first one's parameters.
_MEETING, _PRINTS, _RESULT = "meeting", "prints.txt", "result.pt"
SPAWN = multiprocessing.get_context("spawn")
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
    kind, count = torch.device(job.compute.device).type, job.compute.devices
    present = {"cpu": count, "cuda": torch.cuda.device_count()}.get(kind, 1)
    if count > present:
        raise UsageError(f"devices = {count} of {kind}.", allowed=f"1 to {present}")
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
    processes: dict[Connection, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:  # readable by its owner alone
        folder = Path(scratch)
        (folder / _PRINTS).touch()
        try:
            # Unseen by multiprocessing, which would run the user's script in every process.
            script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                for rank in range(count):
                    receiver, sender = SPAWN.Pipe(duplex=False)
                    process = SPAWN.Process(
                        target=_work, args=(rank, folder, task, sender), daemon=True
                    )
                    process.start()
                    processes[receiver] = process
                    sender.close()  # the process has its own: where that is closed, it has ended
            finally:
                sys.modules["__main__"] = script
            with tracking("Training", job.steps) as tracker:
                trained = _listen(processes, folder, tracker)
        except (CancelledError, KeyboardInterrupt):
            # The first process keeps its state at the end of its step; the others wait for it.
            for process in itertools.islice(processes.values(), 1):
                os.kill(process.pid, signal.SIGINT)
                process.join(_GRACE)
            raise
        finally:
            for process in processes.values():
                process.kill()
                process.join()
        model.load_state_dict(torch.load(folder / _RESULT, weights_only=True), strict=False)
    model.eval()
    return trained


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
            except EOFError as error:
                prints = (folder / _PRINTS).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"A process of the training ended early.\n{prints}") from error
            match message:
                case Stage():
                    tracker.at(message.done, note=message.note)
                case Trained():
                    trained = message
                    running.remove(receiver)
                case logging.LogRecord():
                    log.log(message.levelno, message.getMessage())
                case error:
                    raise error
    return trained


def _work(rank: int, folder: Path, task: bytes, sender: Connection) -> None:
    """One process of a training."""
    with open(folder / _PRINTS, "a") as prints:
        os.dup2(prints.fileno(), 1)
        os.dup2(prints.fileno(), 2)
    if rank == 0:
        log.addHandler(QueueHandler(cast("Any", SimpleNamespace(put_nowait=sender.send))))
        log.setLevel(logging.INFO)
    else:  # Ctrl-C reaches all: the first process decides when it ends
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    model, job, threads = pickle.loads(task)  # noqa: S301 - from the process that started this one
    torch.set_num_threads(max(threads // job.compute.devices, 1))
    on_cards = torch.device(job.compute.device).type == "cuda"
    if on_cards:
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if on_cards else "gloo",
        init_method=(folder / _MEETING).as_uri(),
        rank=rank,
        world_size=job.compute.devices,
    )
    try:
        with listening(sender.send):  # the first process alone counts its steps
            trained = run(model, job)
    except ClipAdapterError as error:
        sender.send(error)
        time.sleep(_GRACE)  # ended by then: those who miss this process fail with less to say
    else:
        if rank == 0:
            torch.save({k: p.detach().cpu() for k, p in trainable(model).items()}, folder / _RESULT)
        sender.send(trained)
