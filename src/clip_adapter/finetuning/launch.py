"""A training on several devices: one process each, started here, without a launcher of its own.

The processes run ``python -m clip_adapter.finetuning.launch``: the user's script is not read again,
so it needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clip_adapter.errors import ClipAdapterError, UsageError
from clip_adapter.finetuning.job import Job, Trained, trainable
from clip_adapter.finetuning.loop import run
from clip_adapter.reporting import Stage, listening, log, tracking

_TASK, _RESULT, _ERROR, _LOG = "task.pickle", "result.pt", "error{}.pickle", "log{}.txt"


def run_on_several(model: nn.Module, job: Job) -> Trained:
    """Trains ``model`` in place, in ``job.compute.devices`` processes.

    Args:
        model: as in :func:`~clip_adapter.finetuning.loop.run`, and the others too.
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
        _send(model, job, folder)
        processes = [_start(folder, rank, count) for rank in range(count)]
        try:
            threading.Thread(target=_end_together, args=(processes,), daemon=True).start()
            _listen(processes[0], job.steps)
            codes = [process.wait() for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
        if any(codes):
            _raise(folder, count)
        result = torch.load(folder / _RESULT, weights_only=True)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(result["parameters"][name])
    model.eval()
    return Trained(**result["trained"])


def _send(model: nn.Module, job: Job, folder: Path) -> None:
    before = next(model.parameters()).device
    model.cpu()
    try:
        data = pickle.dumps((model, job, torch.get_num_threads()))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"This training cannot be sent to other processes: {error}.",
            hint="Train on one device (devices=1).",
        ) from error
    finally:
        model.to(before)
    (folder / _TASK).write_bytes(data)


def _start(folder: Path, rank: int, count: int) -> subprocess.Popen[str]:
    if rank == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            (folder / "port").write_text(str(free.getsockname()[1]))
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": (folder / "port").read_text(),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(count),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    with (folder / _LOG.format(rank)).open("w") as output:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "clip_adapter.finetuning.launch", str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=output,
            text=True,
        )


def _listen(process: subprocess.Popen[str], steps: int) -> None:
    """Passes the first process's reports and lines on until it ends."""
    with tracking("Training", steps) as tracker:
        for line in process.stdout or ():
            try:
                message = json.loads(line)
            except ValueError:  # a library's own print
                continue
            match message:
                case {"say": str(words)}:
                    log.info(words)
                case [int(done), str(note)]:
                    tracker.at(done, note=note)
                case _:  # such a print that happens to be JSON
                    continue


def _end_together(processes: list[subprocess.Popen[str]]) -> None:
    """Ends all once one has failed: the others would wait for it, some for half an hour."""
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            for process in processes:
                process.kill()
            return
        time.sleep(0.2)


def _raise(folder: Path, count: int) -> None:
    """Raises what the first process that failed raised."""
    for rank in range(count):
        path = folder / _ERROR.format(rank)
        if path.exists():
            raise pickle.loads(path.read_bytes())  # noqa: S301 - our own process wrote it
    logs = "".join((folder / _LOG.format(rank)).read_text() for rank in range(count))
    raise RuntimeError(f"A process of the training ended early.\n{logs[-2000:]}")


def main(folder: Path) -> None:
    """One process of the training that lies in ``folder``."""
    rank = int(os.environ["LOCAL_RANK"])
    task: tuple[Any, Job, int] = pickle.loads((folder / _TASK).read_bytes())  # noqa: S301
    model, job, threads = task
    torch.set_num_threads(max(threads // job.compute.devices, 1))

    def report(stage: Stage) -> None:
        print(json.dumps([stage.done, stage.note]), flush=True)

    class ToParent(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(json.dumps({"say": record.getMessage()}), flush=True)

    log.addHandler(ToParent())
    log.setLevel(logging.INFO)

    try:
        with listening(report):
            trained = run(model, job)
    except ClipAdapterError as error:
        (folder / _ERROR.format(rank)).write_bytes(pickle.dumps(error))
        raise
    if rank == 0:
        parameters = {k: p.detach().cpu() for k, p in trainable(model).items()}
        torch.save({"parameters": parameters, "trained": vars(trained)}, folder / _RESULT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
