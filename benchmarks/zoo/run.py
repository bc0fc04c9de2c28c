"""Runs of the zoo: a method on all draws of a cell, one JSON file each, skipped when there."""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from cells import Cell
from draws import count_draws, draw

from clip_adapter.files import write_file
from clip_adapter.methods import make_method


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """``clip-adapter:visual_ratio=0.2;recipe=official`` as (method, options)."""
    name, _, given = spec.partition(":")
    return name, dict(pair.split("=", 1) for pair in given.split(";") if pair)


def path_of(out: Path, cell: Cell, spec: str) -> Path:
    """The file of a run."""
    name = f"{spec.partition(':')[0]}-{hashlib.sha256(spec.encode()).hexdigest()[:8]}.json"
    return out / cell.name / name


def run(folder: Path, cell: Cell, spec: str) -> dict[str, Any]:
    """Hits of every test picture, as their mean over the draws that it is in."""
    torch.set_num_threads(1)
    method, options = parse(spec)
    hits: dict[int, list[float]] = {}
    seconds, chosen = [], []
    for number in range(count_draws(folder, cell)):
        task, test, rows = draw(folder, cell, number)
        start = time.perf_counter()
        fitted = make_method(method, options).fit(task)
        seconds.append(round(time.perf_counter() - start, 4))
        right = fitted.logits(test).argmax(1) == test.labels
        for row, hit in zip(rows, right.tolist(), strict=True):
            hits.setdefault(row, []).append(float(hit))
        chosen.append([choice.get("chosen") for choice in fitted.selection or [{}]])
    return {
        "cell": cell.name,
        "method": spec,
        "seconds": seconds,
        "chosen": chosen,
        "hits": {str(row): sum(h) / len(h) for row, h in sorted(hits.items())},
    }


def run_all(
    folder: Path, out: Path, cells: list[Cell], methods: list[str], jobs: int, say: Any = print
) -> None:
    """What of ``cells`` x ``methods`` has no file yet."""
    todo = [(c, m) for c in cells for m in methods if not path_of(out, c, m).exists()]
    say(f"{len(cells) * len(methods) - len(todo)} runs are there, {len(todo)} to go.")
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run, folder, c, m): (c, m) for c, m in todo}
        for done, future in enumerate(as_completed(futures), 1):
            cell, spec = futures[future]
            try:
                path = path_of(out, cell, spec)
                write_file(path, json.dumps(future.result()).encode())
            except Exception as error:  # one failed run is no failed benchmark
                say(f"FAILED {cell.name} {spec}: {type(error).__name__}: {error}")
            if done % 25 == 0 or done == len(todo):
                say(f"{done} of {len(todo)}")
