"""What the runs of the zoo say: gains, regret, cells under zero-shot, the worst, seconds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cells import Cell
from run import path_of

ZERO_SHOT = "zero-shot"


def load(out: Path, cells: Iterable[Cell], methods: list[str]) -> dict[tuple[str, str], Any]:
    """{(cell, method): run} of what is there."""
    runs = {}
    for cell in cells:
        for method in methods:
            path = path_of(out, cell, method)
            if path.exists():
                runs[cell.name, method] = json.loads(path.read_bytes())
    return runs


def difference(a: dict[str, Any], b: dict[str, Any]) -> tuple[float, float]:
    """Mean difference a - b in points, and its standard error, paired over pictures."""
    rows = list(a["hits"])
    d = 100 * np.array([a["hits"][r] - b["hits"][r] for r in rows])
    return float(d.mean()), float(d.std(ddof=1) / len(d) ** 0.5)


def _halves(run: dict[str, Any]) -> tuple[float, float]:
    hits = np.array(list(run["hits"].values()))
    order = np.random.default_rng(0).permutation(len(hits))
    half = len(hits) // 2
    return 100 * hits[order[:half]].mean(), 100 * hits[order[half:]].mean()


def table(
    runs: dict[tuple[str, str], Any], cells: list[Cell], methods: list[str], base: str, mixed: str
) -> pd.DataFrame:
    """A row for each cell and method.

    Args:
        runs: from :func:`load`.
        cells: which.
        methods: which; a cell that lacks one of them is left out.
        base: the method that gains are over.
        mixed: methods that are no rival in the regret, with commas between.
    """
    rivals = [m for m in methods if m not in (*mixed.split(","), base)] + [base]
    rows = []
    for cell in cells:
        if not all((cell.name, m) in runs for m in methods):
            continue
        halves = {m: _halves(runs[cell.name, m]) for m in methods}
        for method in methods:
            run = runs[cell.name, method]
            gain, error = difference(run, runs[cell.name, base])
            # The rival is found on one half of the pictures and compared on the other.
            regret = 0.0
            for here, there in ((0, 1), (1, 0)):
                best = max(rivals, key=lambda m: halves[m][here])
                regret += (halves[best][there] - halves[method][there]) / 2
            rows.append(
                {
                    "cell": cell.name,
                    "dataset": cell.dataset,
                    "kind": cell.kind,
                    "classes": cell.classes,
                    "shots": cell.shots,
                    "departure": cell.departure,
                    "method": method,
                    "accuracy": 100 * float(np.mean(list(run["hits"].values()))),
                    "gain": gain,
                    "error": error,
                    "regret": regret,
                    "seconds": float(np.median(run["seconds"])),
                }
            )
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each method."""
    under = (frame.gain + 2 * frame.error < 0).groupby(frame.method).sum()
    clear = (frame.gain + 2 * frame.error < -1).groupby(frame.method).sum()
    by = frame.groupby("method")
    worst = frame.loc[by.gain.idxmin()].set_index("method")
    return pd.DataFrame(
        {
            "cells": by.size(),
            "mean gain": by.gain.mean(),
            "mean regret": by.regret.mean(),
            "cells under": under,
            "under by 1": clear,
            "worst gain": worst.gain,
            "worst cell": worst.cell,
            "seconds": by.seconds.mean(),
        }
    ).sort_values("mean gain", ascending=False)


def compared(frame: pd.DataFrame, default: str) -> pd.DataFrame:
    """The default's mean gain less every other method's, with its error over the cells."""
    wide = frame.pivot(index="cell", columns="method", values="gain")
    less = wide.rsub(wide[default], axis=0).drop(columns=default)
    return pd.DataFrame({"mean": less.mean(), "error": less.sem()}).sort_values("mean")


def by_departure(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean gains, methods by departures."""
    return frame.pivot_table(index="method", columns="departure", values="gain", aggfunc="mean")
