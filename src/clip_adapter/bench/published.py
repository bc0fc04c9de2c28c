"""Published numbers: those of the paper's tables and of its peers' figures, as they were printed.

Two files, one row for each number. ``tables.csv`` holds the tables of CLIP-Adapter (arXiv
2110.04544), with a note where a number contradicts the text or another table.
``fewshot_numbers.csv`` holds accuracies by shots from figures and released logs, under two kinds
of preprocessing that are never mixed.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from clip_adapter.bench.recipe import shipped
from clip_adapter.errors import DataError

TABLES, FEW_SHOT = "tables.csv", "fewshot_numbers.csv"
TYPES: Any = {
    **dict.fromkeys(("row", "column", "dataset", "backbone", "style", "metric", "unit"), str),
    **{"source": str, "note": str, "preprocess": str, "method": str},
    **{"table": int, "shots": int, "value": float, "acc": float},
}
# Other spellings in the file.
_DATASETS = {"fgvc": "fgvc_aircraft"}


@cache
def load_published(folder: Path | None = None) -> Any:
    """Both files of ``folder`` (those of the package by default) as one frame.

    Columns are table (its number, or 0), row (what was measured), dataset ("avg" is the mean of
    the paper's eleven), backbone (as the paper writes it), style (preprocessing), shots (0 for
    zero-shot, which has the same at every K), metric, value, unit, note (what is odd about it) and
    digitised (read off a plot, to 0.2 points).

    Raises:
        DataError: one is missing or damaged.
    """
    folder = folder or shipped("published")
    tables = _read(folder / TABLES, "table row column dataset backbone style shots metric value")
    few = _read(folder / FEW_SHOT, "source backbone preprocess dataset method shots acc")
    few = few.rename(columns={"method": "row", "acc": "value"}).assign(
        table=0,
        metric="top1",
        unit="%",
        note="",
        digitised=few.source.str.contains("digitised"),
        style=few.preprocess.str.removesuffix("-style"),
        dataset=few.dataset.replace(_DATASETS),
    )
    return pd.concat([tables.assign(digitised=False), few], ignore_index=True)


def _read(path: Path, needed: str) -> Any:
    try:
        frame = pd.read_csv(path, dtype=TYPES, keep_default_na=False)
        if absent := set(needed.split()) - set(frame):
            raise ValueError(f"there is no column {', '.join(sorted(absent))}")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.",
            hint="Install clip-adapter again, or take the file from its repository.",
        ) from error
    return frame


def paper_backbone(name: str) -> str:
    """``ViT-B-16/openai`` -> ``ViT-B/16``, ``RN50/openai`` -> ``RN50``; others as they are."""
    if not name.endswith("/openai"):
        return name
    return re.sub(r"^ViT-([BLH])-", r"ViT-\1/", name.removesuffix("/openai"))
