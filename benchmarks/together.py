"""Trainings that differ in ratio and seed: one pass beside one by one, as ratios of seconds.

    OMP_NUM_THREADS=1 python benchmarks/together.py

Both are timed in turn in this process, on random features of several sizes; the better of two is
taken. It is what ``TOGETHER`` in ``methods/clip_adapter.py`` was set by.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import fit_task, fit_tasks
from clip_adapter.methods import FewShotTask, clip_adapter, make_method

# D, C, N, options of the recipe.
SIZES = (
    (64, 16, 256, {}),
    (512, 60, 960, {"recipe": "official", "epochs": 20}),
    (512, 20, 64, {}),
    (512, 1000, 1000, {"recipe": "official", "epochs": 5}),
    (512, 60, 960, {}),
)
RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)
SEEDS = (1, 2)


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes, the better of two."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Prints a line for each size."""
    clip_adapter.TOGETHER = 10**12  # the rule itself is what is measured
    for dim, classes, pictures, options in SIZES:
        draw = torch.Generator().manual_seed(0)
        features = FeatureSet(
            torch.randn(pictures, dim, generator=draw),
            torch.arange(pictures) % classes,
            [str(i) for i in range(classes)],
        )
        weights = torch.randn(classes, dim, generator=draw)
        tasks = [FewShotTask(features, weights, 100.0, seed) for seed in SEEDS for _ in RATIOS]
        methods = [
            make_method("clip-adapter", {"visual_ratio": ratio, **options})
            for _ in SEEDS
            for ratio in RATIOS
        ]
        work = methods[0]._work(tasks[0], methods[0]._recipe(tasks[0])) / 1e6
        jobs = list(zip(methods, tasks, strict=True))
        alone = seconds(lambda jobs=jobs: [fit_task(m, t, {}) for m, t in jobs])
        together = seconds(lambda m=methods, t=tasks: fit_tasks(m, t, {}))
        print(
            f"D {dim}, C {classes}, N {pictures}, {options or 'fast'}: {work:.1f} million "
            f"multiply-adds a step; together takes {together / alone:.2f} of one by one"
        )


if __name__ == "__main__":
    main()
