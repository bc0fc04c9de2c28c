"""Shapes, textures and backgrounds of the demo world, as plain functions of coordinates.

A shape is a signed distance over object coordinates (u, v), where the object fills the unit
circle: negative inside, roughly a distance near the edge. A texture is a mix in 0..1 between the
object's two tones. A background is an RGB picture over canvas coordinates in -1..1. All arrays
are float32 of one (S, S) grid; y and v point down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.floating[Any]]
Field = Callable[[Grid, Grid], Grid]
Pattern = Callable[[Grid, Grid, np.random.Generator], Grid]


def _box(u: Grid, v: Grid, half_width: float, half_height: float) -> Grid:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _disc(u: Grid, v: Grid, radius: float) -> Grid:
    return np.hypot(u, v) - np.float32(radius)


def _fold(u: Grid, v: Grid, sides: int) -> tuple[Grid, Grid]:
    """The plane folded into one half of one of ``sides`` equal sectors around "up"."""
    sector = np.float32(2 * np.pi / sides)
    angle = np.arctan2(u, -v)
    angle = np.abs(np.mod(angle + sector / 2, sector) - sector / 2)
    radius = np.hypot(u, v)
    return radius * np.cos(angle), radius * np.sin(angle)


def _polygon(u: Grid, v: Grid, sides: int, radius: float, inner: float) -> Grid:
    """A star with its outer corners at ``radius`` and its inner ones at ``inner``."""
    along, across = _fold(u, v, sides)
    half = np.pi / sides
    edge = np.array([inner * np.cos(half) - radius, inner * np.sin(half)])
    normal = np.array([edge[1], -edge[0]]) / np.linalg.norm(edge)
    return (along - np.float32(radius)) * np.float32(normal[0]) + across * np.float32(normal[1])


def _regular(u: Grid, v: Grid, sides: int, radius: float) -> Grid:
    return _polygon(u, v, sides, radius, radius * np.cos(np.pi / sides))


def _heart(u: Grid, v: Grid) -> Grid:
    lobes = np.minimum(_disc(u - 0.42, v + 0.3, 0.47), _disc(u + 0.42, v + 0.3, 0.47))
    point = (np.abs(u) + v) * np.float32(0.7071) - np.float32(0.555)
    return np.minimum(lobes, np.maximum(point, np.maximum(np.abs(u) - 0.75, -v - 0.1)))


def _crescent(u: Grid, v: Grid) -> Grid:
    return np.maximum(_disc(u, v, 0.92), np.float32(0.78) - np.hypot(u - 0.42, v))


def _flower(u: Grid, v: Grid) -> Grid:
    along, across = _fold(u, v, 6)
    return np.minimum(_disc(along - 0.58, across, 0.32), _disc(u, v, 0.4))


def _gear(u: Grid, v: Grid) -> Grid:
    along, across = _fold(u, v, 8)
    teeth = np.minimum(_disc(u, v, 0.68), _box(along - 0.6, across, 0.34, 0.15))
    return np.maximum(teeth, np.float32(0.28) - np.hypot(u, v))


SHAPES: dict[str, Field] = {
    "circle": lambda u, v: _disc(u, v, 0.88),
    "square": lambda u, v: _box(u, v, 0.76, 0.76),
    "triangle": lambda u, v: _regular(u, v - 0.2, 3, 1.1),
    "star": lambda u, v: _polygon(u, v, 5, 1.05, 0.44),
    "heart": _heart,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.92, 0.3), _box(u, v, 0.3, 0.92)),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.66) - np.float32(0.24),
    "crescent": _crescent,
    "hexagon": lambda u, v: _regular(u, v, 6, 0.98),
    "diamond": lambda u, v: (np.abs(u) / 0.58 + np.abs(v) / 0.98 - 1) * np.float32(0.5),
    "flower": _flower,
    "gear": _gear,
}


def smooth_noise(
    x: Grid, y: Grid, rng: np.random.Generator, frequency: float, waves: int = 5
) -> Grid:
    """A sum of plane waves of random direction and phase near ``frequency``, about -1..1."""
    angle = rng.uniform(0, np.pi, waves)
    scale = frequency * rng.uniform(0.7, 1.4, waves)
    phase = rng.uniform(0, 2 * np.pi, waves)
    total = np.zeros_like(x)
    for a, s, p in zip(angle, scale, phase, strict=True):
        total += np.sin(
            x * np.float32(np.cos(a) * s) + y * np.float32(np.sin(a) * s) + np.float32(p)
        )
    return total * np.float32(1.4 / waves)


def _edge(value: Grid, sharpness: float = 4.0) -> Grid:
    return np.clip(value * np.float32(sharpness) + np.float32(0.5), 0, 1)


def _striped(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    return _edge(np.sin(u * np.float32(rng.uniform(8, 11)) + np.float32(rng.uniform(0, 6))))


def _dotted(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    pitch = np.float32(rng.uniform(0.42, 0.54))
    shift = rng.uniform(0, 1, 2).astype(np.float32)
    cell_u = np.mod(u / pitch + shift[0], 1) - np.float32(0.5)
    cell_v = np.mod(v / pitch + shift[1], 1) - np.float32(0.5)
    return _edge(np.float32(0.31) - np.hypot(cell_u, cell_v), 8.0)


def _checkered(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    pitch = np.float32(np.pi / rng.uniform(0.3, 0.42))
    phase = rng.uniform(0, 6, 2).astype(np.float32)
    return _edge(np.sin(u * pitch + phase[0]) * np.sin(v * pitch + phase[1]))


def _wavy(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    bend = np.float32(0.9) * np.sin(u * np.float32(6) + np.float32(rng.uniform(0, 6)))
    return _edge(np.sin(v * np.float32(rng.uniform(8, 11)) + bend * 2))


def _speckled(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    return _edge(smooth_noise(u, v, rng, 17.0, 7) - np.float32(0.35))


def _plain(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    return np.zeros_like(u)


TEXTURES: dict[str, Pattern] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
    "wavy": _wavy,
    "speckled": _speckled,
}

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.96, 0.52, 0.08),
    "yellow": (0.95, 0.86, 0.15),
    "green": (0.13, 0.62, 0.2),
    "turquoise": (0.15, 0.75, 0.72),
    "blue": (0.13, 0.3, 0.85),
    "purple": (0.5, 0.18, 0.68),
    "pink": (0.96, 0.52, 0.7),
    "white": (0.95, 0.95, 0.95),
    "black": (0.07, 0.07, 0.08),
}


def _mix(low: tuple[float, ...], high: tuple[float, ...], t: Grid) -> Grid:
    a, b = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return a + (b - a) * np.clip(t, 0, 1)[..., None]


def _grass(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    return _mix((0.2, 0.42, 0.1), (0.5, 0.7, 0.28), smooth_noise(x * 2.5, y, rng, 14) * 0.5 + 0.5)


def _sand(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    return _mix((0.78, 0.68, 0.45), (0.93, 0.86, 0.66), smooth_noise(x, y, rng, 22) * 0.5 + 0.5)


def _sky(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    cloud = np.clip(smooth_noise(x, y * 2, rng, 2.5) - 0.25, 0, 1)
    return _mix((0.42, 0.66, 0.95), (0.96, 0.98, 1.0), (y + 1) * 0.2 + cloud)


def _water(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    ripple = np.sin(y * np.float32(18) + smooth_noise(x, y, rng, 4) * 3)
    return _mix((0.08, 0.3, 0.5), (0.3, 0.58, 0.74), ripple * 0.4 + 0.5)


def _wood(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    grain = np.sin(x * np.float32(rng.uniform(9, 14)) + smooth_noise(x, y * 0.4, rng, 5) * 2)
    return _mix((0.5, 0.33, 0.18), (0.72, 0.52, 0.32), grain * 0.4 + 0.5)


def _brick(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    row = y * np.float32(3.2) + np.float32(rng.uniform(0, 1))
    column = x * np.float32(1.7) + np.float32(0.5) * np.mod(np.floor(row), 2)
    joint = np.minimum(np.mod(row, 1) / 3.2, np.mod(column, 1) / 1.7)
    return _mix((0.78, 0.74, 0.7), (0.62, 0.27, 0.2), (joint - 0.03) * 30)


def _snow(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    return _mix((0.84, 0.88, 0.94), (0.98, 0.99, 1.0), smooth_noise(x, y, rng, 3) * 0.5 + 0.5)


def _night(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    stars = np.clip(smooth_noise(x, y, rng, 26, 6) * 5 - 4.6, 0, 1)
    return _mix((0.04, 0.05, 0.14), (0.95, 0.95, 0.85), stars)


def _paper(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    tone = np.float32(rng.uniform(0.25, 0.95, 3))
    return np.broadcast_to(tone, (*x.shape, 3)).astype(np.float32)


BACKGROUNDS: dict[str, Pattern] = {
    "on grass": _grass,
    "on sand": _sand,
    "in the sky": _sky,
    "on water": _water,
    "on a wooden table": _wood,
    "on a brick wall": _brick,
    "in the snow": _snow,
    "at night": _night,
    "on paper": _paper,
}
