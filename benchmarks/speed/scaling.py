"""How the training of ``clip-adapter`` grows with pictures N and classes C, on random features.

    python benchmarks/speed/scaling.py --out benchmarks/speed/results/scaling.json

Every size is fitted in a process of its own, on one thread. Time is that of its processor, which
other work on the machine changes little; memory is the most that ``fit`` held beside what was there
before. The slope is that of a line through the logarithms, over all sizes and over the last
tenfold.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, machine

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import make_method
from clip_adapter.task import FewShotTask

DIM, CLASSES, SHOTS, PART = 512, 100, 4, 100_000
ROWS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
MANY_CLASSES = (100, 300, 1_000, 3_000, 10_000)
AXES = {f"pictures, {CLASSES} classes": "rows", f"classes, {SHOTS} shots of each": "classes"}


def random_task(rows: int, classes: int) -> FewShotTask:
    """A direction for each class and noise around it, made with little memory beside it."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(classes, DIM, generator=generator)
    labels = torch.arange(rows) % classes
    features = torch.empty(1, rows, DIM)
    for start in range(0, rows, PART):
        part = features[0, start : start + PART]
        part.normal_(generator=generator).mul_(4).add_(means[labels[start : start + PART]])
    text = means + 3 * torch.randn(classes, DIM, generator=generator)
    return FewShotTask(FeatureSet(features, labels, [f"{i}" for i in range(classes)]), text)


def resident(field: str) -> float:
    """A field of this process's status, in MiB: VmRSS, or VmHWM since it was last forgotten."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/self/status: this runs on Linux")


def one(rows: int, classes: int) -> dict[str, Any]:
    """Fit one size."""
    torch.set_num_threads(1)
    make_method("clip-adapter").fit(random_task(40, 4))  # loads what a first training loads
    task = random_task(rows, classes)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before, wall, processor = resident("VmRSS"), time.perf_counter(), time.process_time()
    fitted = make_method("clip-adapter").fit(task)
    return {
        "rows": rows,
        "classes": classes,
        "seconds": time.process_time() - processor,
        "wall_seconds": time.perf_counter() - wall,
        "mib": resident("VmHWM") - before,
        "features_mib": task.train.features.nbytes / 2**20,
        "steps": fitted.hyperparameters["steps"],
        "ratio": fitted.hyperparameters["visual_ratio"],
    }


def slope(points: list[dict[str, Any]], axis: str, what: str) -> float:
    """Of a line through the logarithms."""
    x, y = (np.log([max(p[key], 1e-9) for p in points]) for key in (axis, what))
    return float(np.polyfit(x, y, 1)[0])


def summary(points: list[dict[str, Any]], axis: str) -> dict[str, float]:
    """Slopes of time and memory."""
    last = [p for p in points if p[axis] * 10 >= points[-1][axis]]
    return {
        f"{what}, {which}": slope(some, axis, what)
        for what in ("seconds", "mib")
        for which, some in (("all", points), ("last tenfold", last))
    }


def plot(series: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Time and memory, each against N and C."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    for place, (title, points) in enumerate(series.items()):
        for row, (what, unit) in enumerate((("seconds", "processor s"), ("mib", "MiB"))):
            axes = figure.add_subplot(2, 2, 1 + place + 2 * row)
            x = [p[AXES[title]] for p in points]
            axes.loglog(x, [p[what] for p in points], "o-")
            axes.set(xlabel=title, ylabel=unit)
            axes.set_title(f"slope {slope(points, AXES[title], what):.2f}")
            axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, plot and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--most", type=int, default=max(ROWS), help="the largest N of either")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    most = 3_000 if options.small else options.most
    sizes = {
        "rows": [(n, CLASSES) for n in ROWS],
        "classes": [(SHOTS * c, c) for c in MANY_CLASSES],
    }
    series: dict[str, list[dict[str, Any]]] = {}
    for title, axis in AXES.items():
        points = series[title] = []
        for rows, classes in sizes[axis]:
            if rows > most:
                continue
            command = [sys.executable, __file__, "--one", f"{rows}", f"{classes}"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            points.append(json.loads(found.stdout))
            p = points[-1]
            print(
                f"{rows:>8} rows {classes:>6} classes {p['seconds']:8.2f} s {p['mib']:8.0f} MiB "
                f"beside {p['features_mib']:.0f} of features, {p['steps']} steps",
                flush=True,
            )
    slopes = {title: summary(points, AXES[title]) for title, points in series.items()}
    for title, found in slopes.items():
        print(title, ", ".join(f"{name}: {value:.2f}" for name, value in found.items()))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": machine(), "slopes": slopes, "series": series}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        plot(series, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
