"""The world that the embedded CLIP was trained on: textured shapes in scenes, with captions.

Every picture follows from ``(seed, index)`` alone, so that any part of it can be rendered again
and the order of the work does not matter. Things listed in :data:`HELD_OUT` (colour, texture and
shape together) never appear: the few-shot demo task asks for just those.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_adapter.demo.shapes import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, Grid, Pattern

Pixels = NDArray[np.uint8]
PICTURE_SIZE = 48
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

# What a caption may call each, a word as often as it is to be likely.
_WORDS = {
    "red": ("red", "red", "red", "crimson"),
    "turquoise": ("turquoise", "turquoise", "cyan"),
    "purple": ("purple", "purple", "violet"),
    "striped": ("striped", "striped", "stripy"),
    "dotted": ("dotted", "dotted", "spotted"),
    "checkered": ("checkered", "checkered", "chequered"),
    "circle": ("circle", "circle", "disc"),
    "crescent": ("crescent", "crescent", "moon"),
    "cross": ("cross", "cross", "plus"),
    "gear": ("gear", "gear", "cog"),
}

_TEMPLATES = (
    "a photo of {a}.",
    "a photo of {a}.",
    "a picture of {a}.",
    "{a}.",
    "itap of {a}.",
    "a bad photo of {the}.",
    "a good photo of {the}.",
    "a close-up photo of {a}.",
    "art of {the}.",
    "a drawing of {a}.",
    "there is {a}.",
    "{a} in a video game.",
    "a origami {bare}.",
    "{bare}",
)

# The radius of a thing that is called so, from and to.
_SIZES = {"small": (0.36, 0.46), "": (0.48, 0.62), "large": (0.66, 0.85)}


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


def _words(thing: Thing, size: str, rng: np.random.Generator) -> str:
    """A noun phrase without its article; every attribute but the shape may be left out."""
    colour, texture, shape = (pick(rng, _WORDS.get(key, (key,))) for key in thing)
    adjectives = [colour] if rng.random() < 0.92 else []
    if rng.random() < (0.3 if thing.texture == "plain" else 0.88):
        adjectives.insert(rng.integers(len(adjectives) + 1), texture)
    if size and rng.random() < 0.5:
        adjectives.insert(0, size)
    return " ".join([*adjectives, shape])


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


Scene = tuple[list[tuple[Thing, Pose]], str]
"""What is painted, one after the other, and what the caption calls it."""


def _one(rng: np.random.Generator) -> Scene:
    size = pick(rng, _SIZES)
    radius = rng.uniform(*_SIZES[size])
    room = max(0.05, 0.9 - radius)
    centre, thing = rng.uniform(-room, room, 2), random_thing(rng)
    return [(thing, Pose(centre, radius, rng.normal(0, TURN)))], _words(thing, size, rng)


def _two(rng: np.random.Generator) -> Scene:
    pair = random_thing(rng), random_thing(rng)
    radii = rng.uniform(0.38, 0.48, 2)
    gap, slide = rng.uniform(0.42, 0.52), rng.uniform(-0.35, 0.35, 2)
    upright = rng.random() < 0.5
    relation = pick(rng, ("and", "next to", "above" if upright else "to the left of"))
    spots = [(slide[0], -gap), (slide[1], gap)]
    things = [
        (thing, Pose(spot if upright else spot[::-1], radius, rng.normal(0, TURN)))
        for thing, spot, radius in zip(pair, spots, radii, strict=True)
    ]
    first, second = (_words(thing, "", rng) for thing in pair)
    return things, f"{first} {relation} {_article(second)}"


def _many(rng: np.random.Generator) -> Scene:
    count = int(rng.integers(2, 5))
    thing, things = random_thing(rng), []
    for corner in rng.permutation(4)[:count]:
        centre = np.where([corner % 2, corner // 2], 0.48, -0.48) + rng.uniform(-0.08, 0.08, 2)
        things.append((thing, Pose(centre, rng.uniform(0.34, 0.42), rng.normal(0, TURN))))
    noun = _words(thing, "", rng)
    plural = "es" if noun.endswith(("s", "x")) else "s"
    return things, f"{('two', 'three', 'four')[count - 2]} {noun}{plural}"


def render_pair(seed: int, index: int, size: int = PICTURE_SIZE) -> tuple[Pixels, str]:
    """Picture ``index`` of the training world: an (size, size, 3) RGB array and its caption."""
    rng = np.random.default_rng((seed, index))
    x, y = canvas(size * SUPERSAMPLING)
    scene = pick(rng, BACKGROUNDS)
    picture = BACKGROUNDS[scene](x, y, rng)
    kind = rng.random()
    arrange = _one if kind < 0.82 else _two if kind < 0.94 else _many
    things, phrase = arrange(rng)
    for thing, pose in things:
        paint(picture, x, y, thing, pose, rng)
    if rng.random() < 0.35:
        phrase = f"{phrase} {scene}"
    a = phrase if arrange is _many else _article(phrase)
    caption = pick(rng, _TEMPLATES).format(a=a, the=f"the {phrase}", bare=phrase)
    return shrink(picture, size), caption


def render_pretraining(
    n: int, seed: int, size: int = PICTURE_SIZE, start: int = 0
) -> tuple[Pixels, list[str]]:
    """Pictures ``start`` to ``start + n`` of the training world of ``seed``.

    Returns:
        RGB pictures (n, size, size, 3) of type uint8 and their n captions.
    """
    pictures, captions = zip(*(render_pair(seed, start + i, size) for i in range(n)), strict=True)
    return np.stack(pictures), list(captions)
