"""The world that the embedded CLIP was trained on: textured shapes in scenes, with captions.

Every picture follows from ``(seed, index)`` alone, so that any part of it can be rendered again
and the order of the work does not matter. Things listed in :data:`HELD_OUT` (colour, texture and
shape together) never appear: the few-shot demo task asks for just those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_adapter.demo.shapes import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, Grid, Pattern

PICTURE_SIZE = 48
SUPERSAMPLING = 2

HELD_OUT: frozenset[tuple[str, str, str]] = frozenset(
    {
        ("red", "striped", "star"),
        ("red", "dotted", "star"),
        ("orange", "striped", "star"),
        ("red", "striped", "flower"),
        ("pink", "dotted", "flower"),
        ("pink", "checkered", "heart"),
        ("purple", "checkered", "heart"),
        ("purple", "wavy", "heart"),
        ("blue", "wavy", "gear"),
        ("purple", "wavy", "gear"),
        ("turquoise", "dotted", "gear"),
        ("turquoise", "dotted", "hexagon"),
        ("green", "checkered", "hexagon"),
        ("green", "speckled", "crescent"),
        ("yellow", "speckled", "crescent"),
        ("yellow", "striped", "ring"),
    }
)

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


@dataclass(frozen=True)
class Thing:
    """One kind of object: keys of ``SHAPES``, ``COLOURS`` and ``TEXTURES``."""

    colour: str
    texture: str
    shape: str


@dataclass(frozen=True)
class Pose:
    """Where a thing lies on the canvas: centre and radius in -1..1 units, angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


def central_pose(rng: np.random.Generator) -> Pose:
    """A large thing near the middle, turned a little."""
    dx, dy = rng.uniform(-0.15, 0.15, 2)
    return Pose(float(dx), float(dy), float(rng.uniform(0.5, 0.75)), _turn(rng))


def canvas(pixels: int) -> tuple[Grid, Grid]:
    """Coordinates (x, y) of the pixel centres of a square picture, each (pixels, pixels)."""
    line = ((np.arange(pixels, dtype=np.float32) + 0.5) * (2 / pixels) - 1).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def to_bytes(picture: Grid) -> NDArray[np.uint8]:
    """Values of 0..1 as 0..255."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def shrink(picture: Grid, size: int) -> NDArray[np.uint8]:
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
    cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    dx, dy = (x - np.float32(pose.x)), (y - np.float32(pose.y))
    u = (dx * cos + dy * sin) / np.float32(pose.radius)
    v = (dy * cos - dx * sin) / np.float32(pose.radius)
    distance = SHAPES[thing.shape](u, v)
    cover = np.clip(0.5 - distance * np.float32(pose.radius * len(x) / 2), 0, 1)[..., None]

    tone = np.array(COLOURS[thing.colour], np.float32) + rng.normal(0, 0.04, 3).astype(np.float32)
    to_white = {"white": False, "black": True}.get(thing.colour, bool(rng.random() < 0.6))
    share = np.float32(rng.uniform(0.6, 0.85))
    second = tone + (np.float32(to_white) - tone) * share
    mix = textures[thing.texture](u, v, rng)[..., None]
    picture += ((tone + (second - tone) * mix) - picture) * cover


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of ``options``, each as likely."""
    return options[int(rng.integers(len(options)))]


def random_thing(rng: np.random.Generator) -> Thing:
    """A thing of the training world: anything that is not in :data:`HELD_OUT`."""
    while True:
        colour, shape = pick(rng, list(COLOURS)), pick(rng, list(SHAPES))
        texture = "plain" if rng.random() < 0.2 else pick(rng, list(TEXTURES))
        if (colour, texture, shape) not in HELD_OUT:
            return Thing(colour, texture, shape)


def _words(thing: Thing, size: str, rng: np.random.Generator) -> str:
    """A noun phrase without its article; every attribute but the shape may be left out."""
    word = {key: pick(rng, _WORDS.get(key, (key,))) for key in vars(thing).values()}
    adjectives = []
    if rng.random() < 0.92:
        adjectives.append(word[thing.colour])
    if rng.random() < (0.3 if thing.texture == "plain" else 0.88):
        adjectives.insert(int(rng.integers(len(adjectives) + 1)), word[thing.texture])
    if size and rng.random() < 0.5:
        adjectives.insert(0, size)
    return " ".join([*adjectives, word[thing.shape]])


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _sized(rng: np.random.Generator) -> tuple[str, float]:
    size = pick(rng, ("small", "", "large"))
    low, high = {"small": (0.36, 0.46), "": (0.48, 0.62), "large": (0.66, 0.85)}[size]
    return size, float(rng.uniform(low, high))


def _turn(rng: np.random.Generator) -> float:
    return float(rng.normal(0, 0.3))


def _one(rng: np.random.Generator) -> tuple[list[tuple[Thing, Pose]], str]:
    size, radius = _sized(rng)
    room = max(0.05, 0.9 - radius)
    x, y = rng.uniform(-room, room, 2)
    thing = random_thing(rng)
    return [(thing, Pose(float(x), float(y), radius, _turn(rng)))], _words(thing, size, rng)


def _two(rng: np.random.Generator) -> tuple[list[tuple[Thing, Pose]], str]:
    first, second = random_thing(rng), random_thing(rng)
    radii = rng.uniform(0.38, 0.48, 2)
    gap, slide = float(rng.uniform(0.42, 0.52)), rng.uniform(-0.35, 0.35, 2)
    upright = bool(rng.random() < 0.5)
    relation = pick(rng, ("and", "next to", "above" if upright else "to the left of"))
    spots = [(float(slide[0]), -gap), (float(slide[1]), gap)]
    if not upright:
        spots = [(y, x) for x, y in spots]
    things = [
        (thing, Pose(*spot, float(radius), _turn(rng)))
        for thing, spot, radius in zip((first, second), spots, radii, strict=True)
    ]
    phrase = f"{_words(first, '', rng)} {relation} {_article(_words(second, '', rng))}"
    return things, phrase


def _many(rng: np.random.Generator) -> tuple[list[tuple[Thing, Pose]], str]:
    count = int(rng.integers(2, 5))
    thing = random_thing(rng)
    things = []
    for corner in rng.permutation(4)[:count]:
        dx, dy = rng.uniform(-0.08, 0.08, 2)
        x, y = (-0.48, 0.48)[corner % 2] + dx, (-0.48, 0.48)[corner // 2] + dy
        pose = Pose(float(x), float(y), float(rng.uniform(0.34, 0.42)), _turn(rng))
        things.append((thing, pose))
    noun = _words(thing, "", rng)
    plural = noun + ("es" if noun.endswith(("s", "x")) else "s")
    return things, f"{('two', 'three', 'four')[count - 2]} {plural}"


def render_pair(seed: int, index: int, size: int = PICTURE_SIZE) -> tuple[NDArray[np.uint8], str]:
    """Picture ``index`` of the training world: an (size, size, 3) RGB array and its caption."""
    rng = np.random.default_rng((seed, index))
    x, y = canvas(size * SUPERSAMPLING)
    scene = pick(rng, list(BACKGROUNDS))
    picture = np.array(BACKGROUNDS[scene](x, y, rng), dtype=np.float32)
    kind = rng.random()
    things, phrase = (_one if kind < 0.82 else _two if kind < 0.94 else _many)(rng)
    for thing, pose in things:
        paint(picture, x, y, thing, pose, rng)
    if rng.random() < 0.35:
        phrase = f"{phrase} {scene}"
    several = phrase.startswith(("two ", "three ", "four "))
    caption = pick(rng, _TEMPLATES).format(
        a=phrase if several else _article(phrase), the=f"the {phrase}", bare=phrase
    )
    return shrink(picture, size), caption


def render_pretraining(
    n: int, seed: int, size: int = PICTURE_SIZE, start: int = 0
) -> tuple[NDArray[np.uint8], list[str]]:
    """Pictures ``start`` to ``start + n`` of the training world of ``seed``.

    Returns:
        RGB pictures (n, size, size, 3) of type uint8 and their n captions.
    """
    pictures, captions = zip(*(render_pair(seed, start + i, size) for i in range(n)), strict=True)
    return np.stack(pictures), list(captions)
