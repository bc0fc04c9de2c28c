"""The few-shot demo task: things that the demo CLIP never saw, photographed badly.

Against the training world of ``demo.world`` everything shifts at once: each class is a held-out
combination of colour, texture and shape; the textures are drawn by another hand; the paint is
faded and the light is warm and uneven; the camera looks from the side, blurs and adds noise; the
grounds are new and another object may lie about. Only the names of the classes are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from clip_adapter.demo.shapes import OTHER_TEXTURES, Grid, smooth_noise
from clip_adapter.demo.world import (
    HELD_OUT,
    Pixels,
    Pose,
    Thing,
    canvas,
    central_pose,
    paint,
    random_thing,
    to_bytes,
)
from clip_adapter.files import replacing, writing
from clip_adapter.reporting import track

DEMO_TEMPLATES: tuple[str, ...] = ("a photo of a {}.",)
DEMO_CLASSES: tuple[Thing, ...] = tuple(sorted(HELD_OUT))

TASK_PICTURE_SIZE = 96
PER_CLASS = {"train": 24, "test": 30}
TASK_SEED = 2021
# Raised whenever the same seed would give other pictures.
TASK_VERSION = 2


@dataclass(frozen=True)
class Conditions:
    """From and to: what a photograph is taken under is drawn evenly from these.

    Attributes:
        clutter: how many other objects lie about.
        light: brightness; 1 leaves the paint as it is.
        blur: radius in pixels.
        noise: standard deviation of the sensor's noise, where white is 1.
    """

    clutter: tuple[int, int] = (0, 1)
    light: tuple[float, float] = (0.75, 1.05)
    blur: tuple[float, float] = (0.3, 1.2)
    noise: tuple[float, float] = (0.01, 0.05)


def _ground(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Asphalt, carpet or concrete: two tones of a dull colour under fine and coarse noise."""
    base = (rng.uniform(0.3, 0.65) + rng.normal(0, 0.07, 3)).astype(np.float32)
    fine = smooth_noise(x, y, rng, rng.uniform(15, 60), 6) * 0.09
    return base + (fine + smooth_noise(x, y, rng, 3.0) * 0.07)[..., None]


def _tilt(x: Grid, y: Grid, rng: np.random.Generator) -> tuple[Grid, Grid]:
    """Ground coordinates seen by a camera that looks from the side."""
    squeeze, lean, turn = rng.uniform(0.0, 0.35), rng.normal(0, 0.12, 2), rng.normal(0, 0.25)
    depth = 1 + np.float32(lean[0]) * x + np.float32(lean[1]) * y
    gx, gy = x / depth, y / depth * (1 + squeeze)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return gx * cos + gy * sin, gy * cos - gx * sin


def _photograph(
    picture: Grid, x: Grid, y: Grid, rng: np.random.Generator, conditions: Conditions
) -> Pixels:
    """Faded paint, warm uneven light, blur, then the noise of a small sensor."""
    grey = picture.mean(-1, keepdims=True)
    faded = grey + (picture - grey) * rng.uniform(0.6, 0.8)
    side = rng.normal(0, 0.22, 2).astype(np.float32)
    light = rng.uniform(*conditions.light) * (1 + side[0] * x + side[1] * y)
    warm = np.array([1.1, 0.95, 0.72], np.float32) + rng.normal(0, 0.03, 3).astype(np.float32)
    lit = np.clip(faded * light[..., None] * warm, 0, 1)
    blur = ImageFilter.GaussianBlur(rng.uniform(*conditions.blur))
    soft = np.asarray(Image.fromarray((lit * 255).astype(np.uint8)).filter(blur), np.float32) / 255
    grain = rng.standard_normal(soft.shape, np.float32)
    return to_bytes(soft + grain * rng.uniform(*conditions.noise))


def render_task_picture(
    thing: Thing,
    seed: int,
    index: int,
    size: int = TASK_PICTURE_SIZE,
    conditions: Conditions = Conditions(),
) -> Pixels:
    """Photograph ``index`` of ``thing``: an (size, size, 3) RGB array."""
    rng = np.random.default_rng((seed, index, *f"{thing}".encode()))
    cx, cy = canvas(size)
    x, y = _tilt(cx, cy, rng)
    picture = _ground(x, y, rng)
    for _ in range(rng.integers(*conditions.clutter, endpoint=True)):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.15)
        centre = far * np.cos(angle), far * np.sin(angle)
        pose = Pose(centre, rng.uniform(0.15, 0.32), rng.uniform(0, 6))
        paint(picture, x, y, random_thing(rng), pose, rng)
    paint(picture, x, y, thing, central_pose(rng), rng, OTHER_TEXTURES)
    return _photograph(picture, cx, cy, rng, conditions)


def class_folder(thing: Thing) -> str:
    """The folder of a class; with its underscores as spaces it is the class name."""
    return "_".join(thing)


def photograph(
    folder: str,
    index: int,
    size: int,
    conditions: Conditions = Conditions(),
) -> Pixels:
    """Photograph ``index`` of the class with this folder: an (size, size, 3) RGB array."""
    return render_task_picture(Thing(*folder.split("_")), TASK_SEED, index, size, conditions)


@dataclass(frozen=True)
class DemoSet:
    """A data set that is drawn.

    Attributes:
        description: what it shows.
        folder: its folder, with the version of the renderer.
        classes: names of the class folders.
        render: (class, index, size) to the picture (size, size, 3).
        start: the index of the first picture of each class. Every set has a range of its own,
            since the same thing at the same index would be the same photograph.
        splits: with pictures of every class, as many as :data:`PER_CLASS` says.
        templates: for its class names.
        unseen: pictures without a label, of classes by turns.
    """

    description: str
    folder: str
    classes: Sequence[str]
    render: Callable[[str, int, int], Pixels] = photograph
    start: int = 0
    splits: tuple[str, ...] = tuple(PER_CLASS)
    templates: tuple[str, ...] = DEMO_TEMPLATES
    unseen: int = 0

    def pictures(self) -> dict[str, tuple[str, int]]:
        """Class and index of the picture of each file; those without labels come last.

        Every picture of a class has an index of its own, whatever its split.
        """
        *firsts, end = accumulate(map(PER_CLASS.__getitem__, self.splits), initial=self.start)
        labelled = {
            f"{split}/{name}/{i:02d}.png": (name, first + i)
            for split, first in zip(self.splits, firsts, strict=True)
            for name in self.classes
            for i in range(PER_CLASS[split])
        }
        return labelled | {
            f"unseen/photo_{i:02d}.png": (self.classes[5 * i % len(self.classes)], end + i)
            for i in range(self.unseen)
        }

    def write(self, root: Path) -> Path:
        """Render the pictures into a folder under ``root``, or what is missing of them.

        Each file appears at once, so work that was cut off is gone on with by the same call, and
        pictures that are there are kept.

        Raises:
            DataError: the folder cannot be written.
        """
        folder = Path(root) / self.folder
        for name, (kind, index) in track(self.pictures().items(), "Drawing", unit="pictures"):
            top, _, rest = name.partition("/")
            path = unseen_of(folder) / rest if top == "unseen" else folder / name
            if not path.is_file():
                picture = Image.fromarray(self.render(kind, index, TASK_PICTURE_SIZE))
                with writing(path, "name another folder"), replacing(path) as part:
                    picture.save(part, format="PNG", compress_level=1)
        return folder


DEMO = DemoSet(
    "things that the embedded CLIP never saw: colour, texture and shape together",
    f"demo-task-v{TASK_VERSION}",
    [class_folder(thing) for thing in DEMO_CLASSES],
    unseen=12,
)


def unseen_of(folder: Path) -> Path:
    """Where the pictures without labels lie: beside the data set, of whose splits they are none."""
    return folder.with_name(f"{folder.name}-unseen")


def demo_task(root: Path) -> Path:
    """Render the few-shot demo task under ``root``, or what is missing of it.

    Writes ``train|test/<class>/*.png`` (24 and 30 pictures for each of 16 classes), and beside
    the folder a few pictures without labels (:func:`unseen_of`), see :meth:`DemoSet.write`. A few
    seconds on one core; who wants to hear of each picture, or to stop it, calls it in
    :func:`~clip_adapter.reporting.listening`.

    Args:
        root: the folder to put the task's folder into; made where missing.

    Returns:
        The folder of the task, ready for ``load_folder``.

    Raises:
        DataError: the folder cannot be written.
        CancelledError: the caller wants it to end.
    """
    return DEMO.write(root)
