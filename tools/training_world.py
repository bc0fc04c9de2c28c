"""The world that the embedded CLIP is trained on: textured shapes in scenes, with captions.

Every picture follows from ``(seed, index)`` alone, so that any part of it can be rendered again
and the order of the work does not matter.
"""

from __future__ import annotations

import numpy as np

from clip_adapter.demo.shapes import Grid, Pattern, smooth_noise
from clip_adapter.demo.world import (
    SUPERSAMPLING,
    TURN,
    Pixels,
    Pose,
    Thing,
    canvas,
    paint,
    pick,
    random_thing,
    shrink,
)

PICTURE_SIZE = 48

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


def _mix(low: tuple[float, ...], high: tuple[float, ...], t: Grid) -> Grid:
    a, b = np.array(low, np.float32), np.array(high, np.float32)
    return a + (b - a) * np.clip(t, 0, 1)[..., None]


def _brick(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    row = y * 3.2 + rng.uniform(0, 1)
    column = x * 1.7 + 0.5 * np.mod(np.floor(row), 2)
    joint = np.minimum(np.mod(row, 1) / 3.2, np.mod(column, 1) / 1.7)
    return _mix((0.78, 0.74, 0.7), (0.62, 0.27, 0.2), (joint - 0.03) * 30)


BACKGROUNDS: dict[str, Pattern] = {  # RGB (S, S, 3) over canvas coordinates in -1..1
    "on grass": lambda x, y, rng: _mix(
        (0.2, 0.42, 0.1), (0.5, 0.7, 0.28), smooth_noise(x * 2.5, y, rng, 14) * 0.5 + 0.5
    ),
    "on sand": lambda x, y, rng: _mix(
        (0.78, 0.68, 0.45), (0.93, 0.86, 0.66), smooth_noise(x, y, rng, 22) * 0.5 + 0.5
    ),
    "in the sky": lambda x, y, rng: _mix(
        (0.42, 0.66, 0.95),
        (0.96, 0.98, 1.0),
        (y + 1) * 0.2 + np.clip(smooth_noise(x, y * 2, rng, 2.5) - 0.25, 0, 1),
    ),
    "on water": lambda x, y, rng: _mix(
        (0.08, 0.3, 0.5),
        (0.3, 0.58, 0.74),
        np.sin(y * 18 + smooth_noise(x, y, rng, 4) * 3) * 0.4 + 0.5,
    ),
    "on a wooden table": lambda x, y, rng: _mix(
        (0.5, 0.33, 0.18),
        (0.72, 0.52, 0.32),
        np.sin(x * rng.uniform(9, 14) + smooth_noise(x, y * 0.4, rng, 5) * 2) * 0.4 + 0.5,
    ),
    "on a brick wall": _brick,
    "in the snow": lambda x, y, rng: _mix(
        (0.84, 0.88, 0.94), (0.98, 0.99, 1.0), smooth_noise(x, y, rng, 3) * 0.5 + 0.5
    ),
    "at night": lambda x, y, rng: _mix(
        (0.04, 0.05, 0.14),
        (0.95, 0.95, 0.85),
        np.clip(smooth_noise(x, y, rng, 26, 6) * 5 - 4.6, 0, 1),
    ),
    "on paper": lambda x, y, rng: np.tile(np.float32(rng.uniform(0.25, 0.95, 3)), (*x.shape, 1)),
}


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
