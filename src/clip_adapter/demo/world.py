"""Textured shapes: what the embedded CLIP was trained on, and what the demo asks of it.

Things listed in :data:`HELD_OUT` (colour, texture and shape together) never appear in its training:
the few-shot demo task asks for just those.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_adapter.demo.shapes import COLOURS, SHAPES, TEXTURES, Grid, Pattern

Pixels = NDArray[np.uint8]
SUPERSAMPLING = 2
# Standard deviation of how far a thing is turned, in radians.
TURN = 0.3


class Thing(NamedTuple):
    """One kind of object: keys of ``COLOURS``, ``TEXTURES`` and ``SHAPES``."""

    colour: str
    texture: str
    shape: str


class Pose(NamedTuple):
    """Where a thing lies on the canvas: centre (x, y) and radius in -1..1, angle in radians."""

    centre: Sequence[float] | NDArray[np.float64]
    radius: float
    angle: float


HELD_OUT: frozenset[Thing] = frozenset(
    Thing(*words.split())
    for words in (
        "red striped star",
        "red dotted star",
        "orange striped star",
        "red striped flower",
        "pink dotted flower",
        "pink checkered heart",
        "purple checkered heart",
        "purple wavy heart",
        "blue wavy gear",
        "purple wavy gear",
        "turquoise dotted gear",
        "turquoise dotted hexagon",
        "green checkered hexagon",
        "green speckled crescent",
        "yellow speckled crescent",
        "yellow striped ring",
    )
)


def central_pose(rng: np.random.Generator) -> Pose:
    """A large thing near the middle, turned a little."""
    return Pose(rng.uniform(-0.15, 0.15, 2), rng.uniform(0.5, 0.75), rng.normal(0, TURN))


def canvas(pixels: int) -> tuple[Grid, Grid]:
    """Coordinates (x, y) of the pixel centres of a square picture, each (pixels, pixels)."""
    line = (np.arange(pixels, dtype=np.float32) + 0.5) * (2 / pixels) - 1
    x, y = np.meshgrid(line, line)
    return x, y


def to_bytes(picture: Grid) -> Pixels:
    """Values of 0..1 as 0..255."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def shrink(picture: Grid, size: int) -> Pixels:
    """A picture painted ``SUPERSAMPLING`` times as large, at its own (size, size, 3)."""
    return to_bytes(picture.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean((1, 3)))


def paint(
    picture: Grid,
    x: Grid,
    y: Grid,
    thing: Thing,
    pose: Pose,
    rng: np.random.Generator,
    textures: dict[str, Pattern] = TEXTURES,
) -> None:
    """Paint ``thing`` over ``picture`` (S, S, 3), in place, with smooth edges."""
    left, top = np.array(pose.centre, np.float32)
    dx, dy, radius = x - left, y - top, np.float32(pose.radius)
    cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    u, v = (dx * cos + dy * sin) / radius, (dy * cos - dx * sin) / radius
    cover = np.clip(0.5 - SHAPES[thing.shape](u, v) * (radius * len(x) / 2), 0, 1)[..., None]
    tone = np.array(COLOURS[thing.colour], np.float32)
    tone += rng.normal(0, 0.04, 3).astype(np.float32)
    lighter = {"white": False, "black": True}.get(thing.colour, rng.random() < 0.6)
    second = tone + (np.float32(lighter) - tone) * rng.uniform(0.6, 0.85)
    painted = tone + (second - tone) * textures[thing.texture](u, v, rng)[..., None]
    picture += (painted - picture) * cover


def pick(rng: np.random.Generator, options: Collection[str]) -> str:
    """One of ``options``, each as likely."""
    return list(options)[rng.integers(len(options))]


def random_thing(rng: np.random.Generator) -> Thing:
    """A thing of the training world: anything that is not in :data:`HELD_OUT`."""
    while True:
        colour, shape = pick(rng, COLOURS), pick(rng, SHAPES)
        texture = "plain" if rng.random() < 0.2 else pick(rng, TEXTURES)
        if (thing := Thing(colour, texture, shape)) not in HELD_OUT:
            return thing
