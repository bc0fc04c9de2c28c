"""Rendered pictures as files: planned, written one by one, gone on with after an interruption."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_adapter.errors import DataError

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]
Job = tuple[Path, Callable[[], Pixels]]
"""A path under the folder, and what renders the picture for it."""


def plan_pictures(
    classes: Iterable[str],
    per_class: Mapping[str, int],
    render: Callable[[str, int], Pixels],
    first: int = 0,
) -> list[Job]:
    """The jobs of a data set: ``split/class/00.png`` and so on.

    Every picture of a class has an index of its own, whatever its split, so that no picture is
    made twice.

    Args:
        classes: names of the class folders.
        per_class: pictures of each class by split.
        render: makes the picture of a class with an index, (S, S, 3) RGB.
        first: the index of the first picture of each class.
    """
    jobs: list[Job] = []
    names = list(classes)
    for split, count in per_class.items():
        for name in names:
            for i in range(count):
                job = functools.partial(render, name, first + i)
                jobs.append((Path(split, name, f"{i:02d}.png"), job))
        first += count
    return jobs


def write_missing(folder: Path, jobs: Sequence[Job], progress: Progress | None = None) -> Path:
    """Renders those of ``jobs`` whose file is not in ``folder``.

    Each file appears at once, so work that was cut off is gone on with by the same call, and a
    folder that is complete is left alone.

    Args:
        folder: made where missing.
        jobs: all pictures of the folder.
        progress: called with (pictures done, pictures in all) after each picture.

    Returns:
        ``folder``.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        for parent in sorted({path.parent for path, _ in jobs}):
            (folder / parent).mkdir(parents=True, exist_ok=True)
        for done, (path, render) in enumerate(jobs, 1):
            if not (folder / path).is_file():
                _write(folder / path, render())
            if progress:
                progress(done, len(jobs))
    except OSError as error:
        raise DataError(
            f"The demo pictures cannot be written into {folder}: {error.strerror or error}.",
            hint="Give another folder, or make room there.",
        ) from error
    return folder


def _write(path: Path, picture: NDArray[Any]) -> None:
    """Writes a PNG under a temporary name beside ``path``, then renames it."""
    # A name of its own for each call: two threads may render one folder.
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=".png")
    try:
        with os.fdopen(handle, "wb") as file:
            Image.fromarray(picture).save(file, format="PNG", compress_level=1)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
