"""The few-shot demo task: things that the demo CLIP never saw, photographed badly.

Against the training world of ``demo.world`` everything shifts at once: each class is a held-out
combination of colour, texture and shape; the textures are drawn by another hand; the paint is
faded and the light is warm and uneven; the camera looks from the side, blurs and adds noise; the
grounds are new and another object may lie about. Only the names of the classes are kept.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from clip_adapter.demo.files import Job, Pixels, plan_pictures, write_missing
from clip_adapter.demo.shapes import Grid, Pattern, smooth_noise
from clip_adapter.demo.world import (
    HELD_OUT,
    Pose,
    Thing,
    canvas,
    central_pose,
    paint,
    random_thing,
    to_bytes,
)
from clip_adapter.reporting import Progress, listening

DEMO_TEMPLATES: tuple[str, ...] = ("a photo of a {}.",)
DEMO_CLASSES: tuple[Thing, ...] = tuple(Thing(*parts) for parts in sorted(HELD_OUT))

TASK_PICTURE_SIZE = 96
PER_CLASS = {"train": 24, "test": 30}
UNSEEN = 12
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


USUAL = Conditions()


def _striped(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    bend = smooth_noise(u, v, rng, 3.0) * 0.8
    return np.clip(np.sin(u * np.float32(rng.uniform(11, 15)) + bend) * 2 + 0.2, 0, 1)


def _dotted(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    pitch = np.float32(rng.uniform(0.3, 0.4))
    row = np.floor(v / pitch)
    cell_u = np.mod(u / pitch + 0.5 * np.mod(row, 2), 1) - np.float32(0.5)
    cell_v = np.mod(v / pitch, 1) - np.float32(0.5)
    return np.clip((np.float32(0.27) - np.hypot(cell_u, cell_v)) * 6 + 0.5, 0, 1)


def _checkered(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    pitch = np.float32(rng.uniform(11, 14))
    a, b = np.sin((u + v) * pitch * np.float32(0.7)), np.sin((u - v) * pitch * np.float32(0.7))
    return np.clip(a * b * 2 + 0.5, 0, 1)


def _wavy(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    bend = np.sin(u * np.float32(rng.uniform(8, 11))) * np.float32(1.4)
    return np.clip(np.sin(v * np.float32(rng.uniform(10, 14)) + bend) * 2 + 0.3, 0, 1)


def _speckled(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    return np.clip(smooth_noise(u, v, rng, 26.0, 7) * 3 - 1.0, 0, 1)


def _plain(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    return np.clip(smooth_noise(u, v, rng, 3.0) * 0.2 + 0.1, 0, 1)


_TEXTURES: dict[str, Pattern] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
    "wavy": _wavy,
    "speckled": _speckled,
}


def _ground(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Asphalt, carpet or concrete: two tones of a dull colour under fine and coarse noise."""
    base = (rng.uniform(0.3, 0.65) + rng.normal(0, 0.07, 3)).astype(np.float32)
    fine = smooth_noise(x, y, rng, float(rng.uniform(15, 60)), 6) * np.float32(0.09)
    coarse = smooth_noise(x, y, rng, 3.0) * np.float32(0.07)
    return (base + (fine + coarse)[..., None]).astype(np.float32)


def _tilt(x: Grid, y: Grid, rng: np.random.Generator) -> tuple[Grid, Grid]:
    """Ground coordinates seen by a camera that looks from the side."""
    squeeze, lean = rng.uniform(0.0, 0.35), rng.normal(0, 0.12, 2)
    turn = rng.normal(0, 0.25)
    depth = 1 + np.float32(lean[0]) * x + np.float32(lean[1]) * y
    gx, gy = x / depth, y / depth * np.float32(1 + squeeze)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return gx * cos + gy * sin, gy * cos - gx * sin


def _photograph(
    picture: Grid, x: Grid, y: Grid, rng: np.random.Generator, conditions: Conditions
) -> Pixels:
    """Faded paint, warm uneven light, blur, then the noise of a small sensor."""
    grey = picture.mean(-1, keepdims=True)
    faded = grey + (picture - grey) * np.float32(rng.uniform(0.6, 0.8))
    side = rng.normal(0, 0.22, 2).astype(np.float32)
    light = np.float32(rng.uniform(*conditions.light)) * (1 + side[0] * x + side[1] * y)
    warm = np.array([1.1, 0.95, 0.72], np.float32) + rng.normal(0, 0.03, 3).astype(np.float32)
    lit = np.clip(faded * light[..., None] * warm, 0, 1)
    soft = Image.fromarray((lit * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(float(rng.uniform(*conditions.blur)))
    )
    values = np.asarray(soft, np.float32) / 255
    grain = rng.standard_normal(values.shape, np.float32)
    values += grain * np.float32(rng.uniform(*conditions.noise))
    return to_bytes(values)


def render_task_picture(
    thing: Thing,
    seed: int,
    index: int,
    size: int = TASK_PICTURE_SIZE,
    conditions: Conditions = USUAL,
) -> Pixels:
    """Photograph ``index`` of ``thing``: an (size, size, 3) RGB array."""
    rng = np.random.default_rng((seed, index, *f"{thing}".encode()))
    cx, cy = canvas(size)
    x, y = _tilt(cx, cy, rng)
    picture = _ground(x, y, rng)
    low, high = conditions.clutter
    for _ in range(int(rng.integers(low, high + 1))):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.15)
        pose = Pose(
            float(far * np.cos(angle)),
            float(far * np.sin(angle)),
            float(rng.uniform(0.15, 0.32)),
            float(rng.uniform(0, 6)),
        )
        paint(picture, x, y, random_thing(rng), pose, rng)
    paint(picture, x, y, thing, central_pose(rng), rng, _TEXTURES)
    return _photograph(picture, cx, cy, rng, conditions)


def class_folder(thing: Thing) -> str:
    """The folder of a class; with its underscores as spaces it is the class name."""
    return f"{thing.colour}_{thing.texture}_{thing.shape}"


def _plan() -> list[Job]:
    """Every picture of the task; those without labels come last."""
    things = {class_folder(thing): thing for thing in DEMO_CLASSES}

    def render(name: str, index: int) -> Pixels:
        return render_task_picture(things[name], TASK_SEED, index)

    names, start = list(things), sum(PER_CLASS.values())
    unseen: list[Job] = [
        (
            Path("unseen", f"photo_{i:02d}.png"),
            partial(render, names[5 * i % len(names)], start + i),
        )
        for i in range(UNSEEN)
    ]
    return plan_pictures(names, PER_CLASS, render) + unseen


def demo_task(root: Path, progress: Progress = None, cancel: threading.Event | None = None) -> Path:
    """Render the few-shot demo task under ``root``, or what is missing of it.

    Writes ``train|test/<class>/*.png`` (24 and 30 pictures for each of 16 classes) and
    ``unseen/*.png`` (a few pictures without labels). Each file appears at once and the folder's
    name holds the version of the renderer: work that was cut off is gone on with, and pictures
    that are there are kept. A few seconds on one core.

    Args:
        root: the folder to put the task's folder into; made where missing.
        progress: hears of each picture, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at the next picture.

    Returns:
        The folder of the task, ready for ``load_folder``.

    Raises:
        DataError: the folder cannot be written.
        CancelledError: ``cancel`` was set.
    """
    with listening(progress, cancel):
        return write_missing(Path(root) / f"demo-task-v{TASK_VERSION}", _plan())
