"""A training on several devices: one process each, started here, without a launcher of its own.

The processes run ``python -m clip_adapter.finetuning.launch``: the user's script is not read again,
so it needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from clip_adapter.errors import CancelledError, ClipAdapterError, UsageError
from clip_adapter.finetuning.job import Job, Trained, trainable
from clip_adapter.finetuning.loop import run
from clip_adapter.reporting import Stage, Tracker, listening, log, tracking

# Files of a training: what is sent, the first process's messages and result, all errors and prints.
_TASK, _MESSAGES, _RESULT = "task.pickle", "messages.jsonl", "result.pt"
_ERROR, _PRINTS = "error{}.pickle", "prints{}.txt"
# Seconds between two looks at the processes, and those that they have to keep what they reached.
_LOOK, _GRACE = 0.1, 60.0


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
    with tempfile.TemporaryDirectory() as scratch:  # readable by its owner alone
        folder = Path(scratch)
        (folder / _TASK).write_bytes(_pickled(model, job))
        (folder / _MESSAGES).touch()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = [_start(folder, rank, count, port) for rank in range(count)]
        try:
            with tracking("Training", job.steps) as tracker:
                codes = _wait(processes, folder, tracker)
        except (CancelledError, KeyboardInterrupt):
            # The first process keeps its state at the end of its step; the others wait for it.
            processes[0].send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                processes[0].wait(_GRACE)
            raise
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if any(codes):
            raise _error(folder, count)
        result = torch.load(folder / _RESULT, weights_only=True)
    model.load_state_dict(result["parameters"], strict=False)
    model.eval()
    return Trained(**result["trained"])


def _pickled(model: nn.Module, job: Job) -> bytes:
    before = next(model.parameters()).device
    try:
        return pickle.dumps((model.cpu(), job, torch.get_num_threads()))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"This training cannot be sent to other processes: {error}.",
            hint="Train on one device (devices=1).",
        ) from error
    finally:
        model.to(before)


def _start(folder: Path, rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(count),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    with (folder / _PRINTS.format(rank)).open("w") as output:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "clip_adapter.finetuning.launch", str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _wait(
    processes: list[subprocess.Popen[bytes]], folder: Path, tracker: Tracker
) -> list[int | None]:
    """Exit codes, once all have ended or one has failed; meanwhile messages are passed on.

    Where one fails, the others would wait for it, some for half an hour.
    """
    rest = ""
    with (folder / _MESSAGES).open(encoding="utf-8") as messages:
        while True:
            codes = [process.poll() for process in processes]
            *lines, rest = (rest + messages.read()).split("\n")
            for message in map(json.loads, lines):
                if "done" in message:
                    tracker.at(**message)
                else:
                    log.log(**message)
            if any(codes) or None not in codes:
                return codes
            time.sleep(_LOOK)


def _error(folder: Path, count: int) -> Exception:
    """What the first process that failed raised."""
    for path in (folder / _ERROR.format(rank) for rank in range(count)):
        if path.exists():
            return pickle.loads(path.read_bytes())  # noqa: S301 - our own process wrote it
    prints = "".join((folder / _PRINTS.format(rank)).read_text() for rank in range(count))
    return RuntimeError(f"A process of the training ended early.\n{prints[-2000:]}")


class _ToParent(logging.Handler):
    """Sends lines and progress to the process that started this one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        self._send(level=record.levelno, msg=record.getMessage())

    def report(self, stage: Stage) -> None:
        self._send(done=stage.done, note=stage.note)

    def _send(self, **message: object) -> None:
        print(json.dumps(message), file=self._file, flush=True)


def main(folder: Path) -> None:
    """One process of the training that lies in ``folder``."""
    rank = int(os.environ["LOCAL_RANK"])
    model, job, threads = pickle.loads((folder / _TASK).read_bytes())  # noqa: S301
    torch.set_num_threads(max(threads // job.compute.devices, 1))
    parent = _ToParent(folder / _MESSAGES)
    if rank == 0:
        log.addHandler(parent)
        log.setLevel(logging.INFO)
    else:  # Ctrl-C reaches all: the first process decides when it ends
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening(parent.report):
            trained = run(model, job)
    except ClipAdapterError as error:
        (folder / _ERROR.format(rank)).write_bytes(pickle.dumps(error))
        raise
    if rank == 0:
        parameters = {k: p.detach().cpu() for k, p in trainable(model).items()}
        torch.save({"parameters": parameters, "trained": vars(trained)}, folder / _RESULT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
