"""Seconds of ``fit``: the default of this version beside another version's method, cell by cell.

    python benchmarks/zoo/times.py --features FOLDER --before SRC [--profile tune] [--every 3]

SRC is the folder ``src`` of the other version, as ``git worktree add`` brings it. Both versions fit
the first draw of every cell with one thread, one right after the other, so that what else the
machine does slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from cells import profile
from draws import draw
from run import parse

from clip_adapter.files import write_file
from clip_adapter.methods import make_method


def serve(folder: Path, spec: str) -> None:
    """Fits the cells whose numbers come in, and answers each with its seconds."""
    torch.set_num_threads(1)
    method, options = parse(spec)
    for line in sys.stdin:
        name, number = line.split()
        task, _, _ = draw(folder, profile(name)[int(number)], 0)
        start = time.perf_counter()
        make_method(method, options).fit(task)
        print(time.perf_counter() - start, flush=True)


def start(features: Path, spec: str, source: Path | None) -> subprocess.Popen[str]:
    """A process that serves ``spec``, of the version in ``source`` or of this one."""
    words = [sys.executable, __file__, "--features", str(features), "--serve", spec]
    own = {"PYTHONPATH": str(source)} if source else {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **own}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment)


def ask(server: subprocess.Popen[str], question: str) -> float:
    """Seconds."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(question + "\n")
    server.stdin.flush()
    return float(server.stdout.readline())


def main() -> None:
    """Asks both in turn, then prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="folder src of the other version")
    parser.add_argument("--profile", default="tune")
    parser.add_argument("--every", type=int, default=1, help="every so manyth cell")
    parser.add_argument("--methods", nargs=2, default=["auto", "clip-adapter"])
    parser.add_argument("--out", type=Path, help="a JSON file of all seconds")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.features, given.serve)
    now = start(given.features, given.methods[0], None)
    before = start(given.features, given.methods[1], given.before)
    rows = []
    cells = list(enumerate(profile(given.profile)))[:: given.every]
    for server in (now, before):
        ask(server, f"{given.profile} {cells[0][0]}")  # the first fit also loads
    for number, cell in cells:
        question = f"{given.profile} {number}"
        rows.append((cell.name, ask(now, question), ask(before, question)))
    for server in (now, before):
        server.communicate()
    ratios = sorted(a / b for _, a, b in rows)
    total = sum(a for _, a, _ in rows), sum(b for *_, b in rows)
    slowest = max(rows, key=lambda row: row[1])
    print(f"{len(rows)} cells of {given.profile}: {' against '.join(given.methods)} of before")
    print(f"median ratio {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")
    print(f"total {total[0]:.0f} s against {total[1]:.0f} s: {total[0] / total[1]:.2f}")
    print(f"slowest: {slowest[0]}, {slowest[1]:.1f} s against {slowest[2]:.1f} s")
    if given.out is not None:
        write_file(given.out, json.dumps(rows, indent=1).encode())
    return None


if __name__ == "__main__":
    main()
