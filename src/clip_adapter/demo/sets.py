"""Demo sets: what the paper's tables need several data sets for, on the embedded CLIP, offline.

Two sets beside the demo task stand for the paper's generic and fine-grained ones, and four shifts
of the demo task stand for the four of ImageNet in its Table 9 (V2, Sketch, A and R): a classifier
made on ``demo`` is tested on them as it is. All are drawn here; nothing is downloaded.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from clip_adapter.demo import renders
from clip_adapter.demo.files import Pixels, plan_pictures, write_missing
from clip_adapter.demo.shapes import COLOURS, TEXTURES
from clip_adapter.demo.task import (
    DEMO_CLASSES,
    DEMO_TEMPLATES,
    PER_CLASS,
    TASK_PICTURE_SIZE,
    TASK_VERSION,
    class_folder,
    demo_task,
)
from clip_adapter.errors import unknown_name
from clip_adapter.reporting import Progress, listening

# Raised whenever a set would get other pictures and TASK_VERSION stays.
_VERSION = 1
_COMBINATIONS = tuple(class_folder(thing) for thing in DEMO_CLASSES)


@dataclass(frozen=True)
class _DemoSet:
    """What is drawn for a set beside ``demo``.

    ``start`` is the index of the first picture of each class: every set has a range of its own,
    since the same thing at the same index would be the same photograph. ``demo`` starts at 0.
    """

    description: str
    classes: tuple[str, ...]
    render: Callable[..., Pixels]
    start: int
    splits: tuple[str, ...] = ("test",)
    templates: tuple[str, ...] = DEMO_TEMPLATES


_SHIFTS = {
    "demo-v2": _DemoSet(
        "the classes of demo, photographed once more",
        _COMBINATIONS,
        renders.photograph,
        1000,
    ),
    "demo-sketch": _DemoSet(
        "the classes of demo as grey outline drawings",
        _COMBINATIONS,
        renders.sketch,
        2000,
    ),
    # Every other class, and for demo-r the others: taken by their place, not by what is hard.
    "demo-a": _DemoSet(
        "half of the classes of demo, in the dark and among other things",
        _COMBINATIONS[::2],
        renders.hard_photograph,
        3000,
    ),
    "demo-r": _DemoSet(
        "the other half of the classes of demo, as drawings on paper and as posters",
        _COMBINATIONS[1::2],
        renders.rendition,
        4000,
    ),
}
_SETS = {
    # No set of shapes: the embedded CLIP hardly tells them apart, and few pictures do not help.
    "demo-colours": _DemoSet(
        "colours, of things of any texture and shape",
        tuple(sorted(COLOURS)),
        renders.any_thing_of_colour,
        5000,
        ("train", "test"),
        ("a photo of a {} thing.",),
    ),
    "demo-textures": _DemoSet(
        "textures, of things of any colour and shape",
        tuple(sorted(TEXTURES)),
        renders.any_thing_of_texture,
        6000,
        ("train", "test"),
        # The classes are adjectives: "a photo of a striped." names nothing.
        ("a photo of a {} thing.",),
    ),
    **_SHIFTS,
}

DEMO_SHIFTS: tuple[str, ...] = tuple(_SHIFTS)
"""The sets that hold classes of ``demo`` under other conditions, and only a test split."""

DEMO_SETS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "things that the embedded CLIP never saw: colour, texture and shape together",
        **{name: one.description for name, one in _SETS.items()},
    }
)
"""Every demo set and what it shows; those of :data:`DEMO_SHIFTS` come last."""


def demo_set(
    name: str, root: Path, progress: Progress = None, cancel: threading.Event | None = None
) -> Path:
    """Render a demo set under ``root``, or what is missing of it.

    Writes ``train|test/<class>/*.png``: 24 and 30 pictures per class, and no train split for a
    shift. Each file appears at once and the folder's name holds the version of the renderer: work
    that was cut off is gone on with, and pictures that are there are kept. All sets together take
    about 20 seconds on one core.

    Args:
        name: one of :data:`DEMO_SETS`; "demo" is :func:`~clip_adapter.demo.task.demo_task`.
        root: the folder to put the set's folder into; made where missing.
        progress: hears of each picture, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at the next picture.

    Returns:
        The folder of the set, ready for ``load_folder``.

    Raises:
        UsageError: no such set.
        DataError: the folder cannot be written.
        CancelledError: ``cancel`` was set.
    """
    if name == "demo":
        return demo_task(root, progress, cancel)
    chosen = _find(name)
    render = functools.partial(chosen.render, size=TASK_PICTURE_SIZE)
    counts = {split: PER_CLASS[split] for split in chosen.splits}
    jobs = plan_pictures(chosen.classes, counts, render, chosen.start)
    with listening(progress, cancel):
        return write_missing(Path(root) / f"{name}-v{TASK_VERSION}-{_VERSION}", jobs)


def demo_templates(name: str) -> tuple[str, ...]:
    """The prompt templates of a demo set. A shift has those of ``demo``.

    Raises:
        UsageError: no such set.
    """
    return DEMO_TEMPLATES if name == "demo" else _find(name).templates


def _find(name: str) -> _DemoSet:
    if name not in _SETS:
        raise unknown_name("demo set", name, DEMO_SETS)
    return _SETS[name]
