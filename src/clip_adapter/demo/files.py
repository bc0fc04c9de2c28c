"""Rendered pictures as files: planned, written one by one, gone on with after an interruption."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_adapter.files import replacing, writing
from clip_adapter.reporting import track

Pixels = NDArray[np.uint8]
Job = tuple[Path, Callable[[], Pixels]]
"""A path under the folder, and what renders the picture for it."""


def plan_pictures(
    classes: Iterable[str],
    per_class: Mapping[str, int],
    render: Callable[[str, int], Pixels],
    start: int = 0,
) -> list[Job]:
    """The jobs of a data set: ``split/class/00.png`` and so on.

    Every picture of a class has an index of its own, whatever its split, so that no picture is
    made twice.

    Args:
        classes: names of the class folders.
        per_class: pictures of each class by split.
        render: makes the picture of a class with an index, (S, S, 3) RGB.
        start: the index of the first picture of each class.
    """
    jobs: list[Job] = []
    names = list(classes)
    for split, count in per_class.items():
        jobs += [
            (Path(split, name, f"{i:02d}.png"), functools.partial(render, name, start + i))
            for name in names
            for i in range(count)
        ]
        start += count
    return jobs


def write_missing(folder: Path, jobs: Sequence[Job]) -> Path:
    """Render those of ``jobs`` whose file is not in ``folder``; return the folder.

    Each file appears at once, so work that was cut off is gone on with by the same call, and a
    folder that is complete is left alone.

    Args:
        folder: made where missing.
        jobs: all pictures of the folder.

    Raises:
        DataError: the folder cannot be written.
    """
    for name, render in track(jobs, "Drawing", unit="pictures"):
        path = folder / name
        if not path.is_file():
            with writing(path, "Give another folder, or make room there."), replacing(path) as part:
                Image.fromarray(render()).save(part, format="PNG", compress_level=1)
    return folder
