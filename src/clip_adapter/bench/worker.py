"""The process that does runs: ``python -m clip_adapter.bench.worker``.

It reads one line of JSON with the :class:`Place`, then one for each unit of runs, and writes a line
for all that happens: {"say": line}, {"done": [...]} or {"failed": error}. It ends when its input
does, so it never outlives whoever started it. Results are written here, whole.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_adapter.bench.results import Results
    from clip_adapter.bench.runs import Run
    from clip_adapter.bench.work import Worker

RESULTS = "results"


def main() -> None:
    """Works until the input ends."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no message

    def tell(**message: Any) -> None:
        print(json.dumps(message), file=told, flush=True)

    place_line = lines.get()
    import torch

    from clip_adapter.bench.data import Place
    from clip_adapter.bench.results import Results
    from clip_adapter.bench.runs import Run
    from clip_adapter.bench.work import Worker

    place = Place(**json.loads(place_line))
    torch.set_num_threads(place.threads)
    results = Results(Path(place.out) / RESULTS, lambda line: tell(say=line))
    worker = Worker(place, lambda line: tell(say=line))
    while True:
        unit = [Run.from_dict(found) for found in json.loads(lines.get())]
        tell(**do_and_write(worker, results, unit))


def do_and_write(worker: Worker, results: Results, unit: Sequence[Run]) -> dict[str, Any]:
    """Does the runs of ``unit`` and writes their results; the message that tells how it went."""
    from clip_adapter.errors import ClipAdapterError

    try:
        records = worker.do(unit)
    except Exception as error:
        # One run's trouble is not the others': it is told, and the next one is done.
        known = isinstance(error, ClipAdapterError)
        words = str(error) if known else f"{type(error).__name__}: {error}"
        return {"failed": words, "trace": "" if known else traceback.format_exc()}
    try:
        for run, record in zip(unit, records, strict=True):
            results.write(run, record)
    except ClipAdapterError as error:
        return {"fatal": str(error)}
    return {"done": [run.key for run in unit]}


def _listen(lines: queue.Queue[str]) -> None:
    """Passes the input on; at its end the process ends, whatever it is doing."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
