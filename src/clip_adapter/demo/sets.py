"""Demo sets: what the paper's tables need several data sets for, on the embedded CLIP, offline.

Two sets beside the demo task stand for the paper's generic and fine-grained ones, and four shifts
of the demo task stand for the four of ImageNet in its Table 9 (V2, Sketch, A and R): a classifier
made on ``demo`` is tested on them as it is. All are drawn here; nothing is downloaded.

The functions make one picture of a class. Its folder names it: ``red_striped_star``, or only
``red`` or ``striped`` where the rest of the thing is drawn anew for each picture. The same class,
index and size give the same picture; another index gives another one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageFilter

from clip_adapter.demo.shapes import COLOURS, SHAPES, TEXTURES, smooth_noise
from clip_adapter.demo.task import (
    DEMO,
    TASK_SEED,
    TASK_VERSION,
    Conditions,
    DemoSet,
    photograph,
    render_task_picture,
)
from clip_adapter.demo.world import (
    SUPERSAMPLING,
    Pixels,
    Thing,
    canvas,
    central_pose,
    paint,
    pick,
    shrink,
)
from clip_adapter.errors import unknown_name

# Its second part is raised whenever a set would get other pictures and TASK_VERSION stays.
_VERSION = f"v{TASK_VERSION}-1"
# Dusk among a heap of things. No model was asked what it finds hard.
_HARD = Conditions(clutter=(3, 6), light=(0.3, 0.5), blur=(0.6, 1.6), noise=(0.05, 0.1))
_POSTER_TONES = 4


def any_thing(folder: str, index: int, size: int) -> Pixels:
    """A photograph of a thing of this colour or texture, and else of any."""
    rng = _generator(folder, index)
    colour = folder if folder in COLOURS else pick(rng, COLOURS)
    texture = folder if folder in TEXTURES else pick(rng, TEXTURES)
    return render_task_picture(Thing(colour, texture, pick(rng, SHAPES)), TASK_SEED, index, size)


def sketch(folder: str, index: int, size: int) -> Pixels:
    """The outlines of a photograph in grey pencil on white: its colours are lost."""
    photo = Image.fromarray(photograph(folder, index, size)).convert("L")
    # Blurred first, or the noise of the sensor would be drawn too.
    grey = np.asarray(photo.filter(ImageFilter.GaussianBlur(size / 80)), np.float32)
    down, across = np.gradient(grey)
    edges = np.hypot(down, across)
    # Relative to the strongest edges: a dim photograph is drawn as firmly as a bright one.
    line = np.clip(edges / max(float(np.percentile(edges, 97)), 1e-6) * 1.25 - 0.25, 0, 1)
    return np.repeat((255 - 205 * line + 0.5).astype(np.uint8)[..., None], 3, axis=-1)


def rendition(folder: str, index: int, size: int) -> Pixels:
    """By turns a drawing on rough paper, without a camera, and a photograph in a few flat tones."""
    if index % 2:
        levels = photograph(folder, index, size) // (256 // _POSTER_TONES)
        return levels * np.uint8(255 // (_POSTER_TONES - 1))
    rng = _generator(folder, index)
    x, y = canvas(SUPERSAMPLING * size)
    tone = (rng.uniform(0.8, 0.95) + np.array([0.02, 0.0, -0.05])).astype(np.float32)
    fibres = smooth_noise(x * 4, y, rng, rng.uniform(20, 50), 6) * 0.03
    picture = tone + fibres[..., None]
    paint(picture, x, y, Thing(*folder.split("_")), central_pose(rng), rng)
    return shrink(picture, size)


def _generator(folder: str, index: int) -> np.random.Generator:
    return np.random.default_rng((TASK_SEED, index, *folder.encode()))


# A shift holds classes of demo under other conditions, and only a test split.
_TEST = ("test",)
# The classes are adjectives: "a photo of a striped." names nothing.
_OF_THINGS = ("a photo of a {} thing.",)
_SETS = {
    "demo": DEMO,
    # No set of shapes: the embedded CLIP hardly tells them apart, and few pictures do not help.
    "demo-colours": DemoSet(
        "colours, of things of any texture and shape",
        f"demo-colours-{_VERSION}",
        sorted(COLOURS),
        any_thing,
        start=5000,
        templates=_OF_THINGS,
    ),
    "demo-textures": DemoSet(
        "textures, of things of any colour and shape",
        f"demo-textures-{_VERSION}",
        sorted(TEXTURES),
        any_thing,
        start=6000,
        templates=_OF_THINGS,
    ),
    "demo-v2": DemoSet(
        "the classes of demo, photographed once more",
        f"demo-v2-{_VERSION}",
        DEMO.classes,
        photograph,
        start=1000,
        splits=_TEST,
    ),
    "demo-sketch": DemoSet(
        "the classes of demo as grey outline drawings",
        f"demo-sketch-{_VERSION}",
        DEMO.classes,
        sketch,
        start=2000,
        splits=_TEST,
    ),
    # Every other class, and for demo-r the others: taken by their place, not by what is hard.
    "demo-a": DemoSet(
        "half of the classes of demo, in the dark and among other things",
        f"demo-a-{_VERSION}",
        DEMO.classes[::2],
        functools.partial(photograph, conditions=_HARD),
        start=3000,
        splits=_TEST,
    ),
    "demo-r": DemoSet(
        "the other half of the classes of demo, as drawings on paper and as posters",
        f"demo-r-{_VERSION}",
        DEMO.classes[1::2],
        rendition,
        start=4000,
        splits=_TEST,
    ),
}

DEMO_SHIFTS: tuple[str, ...] = tuple(name for name, one in _SETS.items() if one.splits == _TEST)
"""The sets that hold classes of ``demo`` under other conditions, and only a test split."""

DEMO_SETS: Mapping[str, str] = MappingProxyType(
    {name: one.description for name, one in _SETS.items()}
)
"""Every demo set and what it shows; those of :data:`DEMO_SHIFTS` come last."""


def demo_set(name: str, root: Path) -> Path:
    """Render a demo set under ``root``, or what is missing of it.

    Writes ``train|test/<class>/*.png``: 24 and 30 pictures per class, and no train split for a
    shift, see :meth:`DemoSet.write`. All sets together take about 20 seconds on one core; who wants
    to hear of each picture, or to stop it, calls it in :func:`~clip_adapter.reporting.listening`.

    Args:
        name: one of :data:`DEMO_SETS`; "demo" is :func:`~clip_adapter.demo.task.demo_task`.
        root: the folder to put the set's folder into; made where missing.

    Returns:
        The folder of the set, ready for ``load_folder``.

    Raises:
        UsageError: no such set.
        DataError: the folder cannot be written.
        CancelledError: the caller wants it to end.
    """
    return _find(name).write(root)


def demo_templates(name: str) -> tuple[str, ...]:
    """The prompt templates of a demo set. A shift has those of ``demo``.

    Raises:
        UsageError: no such set.
    """
    return _find(name).templates


def _find(name: str) -> DemoSet:
    if name not in _SETS:
        raise unknown_name("demo set", name, DEMO_SETS)
    return _SETS[name]
