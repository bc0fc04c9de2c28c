"""Shapes and textures of the demo world, as formulas of coordinates.

A shape is a signed distance over object coordinates (u, v), where the object fills the unit
circle: negative inside, roughly a distance near the edge. A texture is a mix in 0..1 between the
object's two tones. All arrays are float32 of one (S, S) grid; y and v point down.
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
    return np.hypot(u, v) - radius


def _fold(u: Grid, v: Grid, sides: int) -> tuple[Grid, Grid]:
    """The plane folded into one half of one of ``sides`` equal sectors around "up"."""
    sector = 2 * np.pi / sides
    angle = np.abs(np.mod(np.arctan2(u, -v) + sector / 2, sector) - sector / 2)
    return np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)


def _polygon(u: Grid, v: Grid, sides: int, radius: float, inner: float | None = None) -> Grid:
    """A star with its outer corners at ``radius`` and its inner ones at ``inner``.

    Without inner corners it is the regular polygon.
    """
    along, across = _fold(u, v, sides)
    half = np.pi / sides
    inner = radius * np.cos(half) if inner is None else inner
    edge = np.array([inner * np.cos(half) - radius, inner * np.sin(half)])
    slope, rise = (np.array([edge[1], -edge[0]]) / np.linalg.norm(edge)).astype(np.float32)
    return (along - radius) * slope + across * rise


def _heart(u: Grid, v: Grid) -> Grid:
    lobes = _disc(np.abs(u) - 0.42, v + 0.3, 0.47)
    point = (np.abs(u) + v) * 0.7071 - 0.555
    return np.minimum(lobes, np.maximum(point, np.maximum(np.abs(u) - 0.75, -v - 0.1)))


def _flower(u: Grid, v: Grid) -> Grid:
    along, across = _fold(u, v, 6)
    return np.minimum(_disc(along - 0.58, across, 0.32), _disc(u, v, 0.4))


def _gear(u: Grid, v: Grid) -> Grid:
    along, across = _fold(u, v, 8)
    teeth = np.minimum(_disc(u, v, 0.68), _box(along - 0.6, across, 0.34, 0.15))
    return np.maximum(teeth, -_disc(u, v, 0.28))


SHAPES: dict[str, Field] = {
    "circle": lambda u, v: _disc(u, v, 0.88),
    "square": lambda u, v: _box(u, v, 0.76, 0.76),
    "triangle": lambda u, v: _polygon(u, v - 0.2, 3, 1.1),
    "star": lambda u, v: _polygon(u, v, 5, 1.05, 0.44),
    "heart": _heart,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.92, 0.3), _box(u, v, 0.3, 0.92)),
    "ring": lambda u, v: np.abs(_disc(u, v, 0.66)) - 0.24,
    "crescent": lambda u, v: np.maximum(_disc(u, v, 0.92), -_disc(u - 0.42, v, 0.78)),
    "hexagon": lambda u, v: _polygon(u, v, 6, 0.98),
    "diamond": lambda u, v: (np.abs(u) / 0.58 + np.abs(v) / 0.98 - 1) * 0.5,
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
    planes = np.array([np.cos(angle) * scale, np.sin(angle) * scale, phase], np.float32)
    total = sum((np.sin(x * a + y * b + p) for a, b, p in planes.T), np.zeros_like(x))
    return total * (1.4 / waves)


def _edge(value: Grid, sharpness: float = 4.0) -> Grid:
    return np.clip(value * sharpness + 0.5, 0, 1)


def _dots(columns: Grid, rows: Grid, radius: float, sharpness: float) -> Grid:
    """A dot in the middle of each cell of 1 by 1."""
    return _edge(-_disc(np.mod(columns, 1) - 0.5, np.mod(rows, 1) - 0.5, radius), sharpness)


def _dotted(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    pitch, shift = rng.uniform(0.42, 0.54), rng.uniform(0, 1, 2).astype(np.float32)
    return _dots(u / pitch + shift[0], v / pitch + shift[1], 0.31, 8.0)


def _checkered(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    pitch, phase = np.pi / rng.uniform(0.3, 0.42), rng.uniform(0, 6, 2).astype(np.float32)
    return _edge(np.sin(u * pitch + phase[0]) * np.sin(v * pitch + phase[1]))


# Draws come in the order in which a formula names them.
TEXTURES: dict[str, Pattern] = {
    "plain": lambda u, v, rng: np.zeros_like(u),
    "striped": lambda u, v, rng: _edge(np.sin(u * rng.uniform(8, 11) + rng.uniform(0, 6))),
    "dotted": _dotted,
    "checkered": _checkered,
    "wavy": lambda u, v, rng: _edge(
        np.sin(1.8 * np.sin(u * 6 + rng.uniform(0, 6)) + v * rng.uniform(8, 11))
    ),
    "speckled": lambda u, v, rng: _edge(smooth_noise(u, v, rng, 17.0, 7) - 0.35),
}


def _staggered(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    pitch = rng.uniform(0.3, 0.4)
    return _dots(u / pitch + 0.5 * np.mod(np.floor(v / pitch), 2), v / pitch, 0.27, 6)


def _diagonal(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
    pitch = np.float32(rng.uniform(11, 14))
    a, b = np.sin((u + v) * pitch * 0.7), np.sin((u - v) * pitch * 0.7)
    return np.clip(a * b * 2 + 0.5, 0, 1)


OTHER_TEXTURES: dict[str, Pattern] = {
    "plain": lambda u, v, rng: np.clip(smooth_noise(u, v, rng, 3.0) * 0.2 + 0.1, 0, 1),
    "striped": lambda u, v, rng: np.clip(
        np.sin(smooth_noise(u, v, rng, 3.0) * 0.8 + u * rng.uniform(11, 15)) * 2 + 0.2, 0, 1
    ),
    "dotted": _staggered,
    "checkered": _diagonal,
    "wavy": lambda u, v, rng: np.clip(
        np.sin(np.sin(u * rng.uniform(8, 11)) * 1.4 + v * rng.uniform(10, 14)) * 2 + 0.3, 0, 1
    ),
    "speckled": lambda u, v, rng: np.clip(smooth_noise(u, v, rng, 26.0, 7) * 3 - 1.0, 0, 1),
}
"""The same textures by another hand: those of the demo task."""

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
