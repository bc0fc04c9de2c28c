"""How the demo sets beyond the demo task look: each function makes one picture of a class.

The folder of a class names it: ``red_striped_star``, or only ``red`` or ``striped`` where the
rest of the thing is drawn anew for each picture. The same class, index and size give the same
picture; another index gives another one.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from clip_adapter.demo.files import Pixels
from clip_adapter.demo.shapes import COLOURS, SHAPES, TEXTURES, Grid, smooth_noise
from clip_adapter.demo.task import TASK_SEED, Conditions, render_task_picture
from clip_adapter.demo.world import SUPERSAMPLING, Thing, canvas, central_pose, paint, pick, shrink

# Dusk among a heap of things. No model was asked what it finds hard.
_HARD = Conditions(clutter=(3, 6), light=(0.3, 0.5), blur=(0.6, 1.6), noise=(0.05, 0.1))
_POSTER_TONES = 4


def photograph(folder: str, index: int, size: int) -> Pixels:
    """One more photograph of a class of the demo task."""
    return render_task_picture(Thing(*folder.split("_")), TASK_SEED, index, size)


def any_thing_of_colour(folder: str, index: int, size: int) -> Pixels:
    """A photograph of a thing of this colour, in any texture and shape."""
    rng = _generator(folder, index)
    thing = Thing(folder, pick(rng, list(TEXTURES)), pick(rng, list(SHAPES)))
    return render_task_picture(thing, TASK_SEED, index, size)


def any_thing_of_texture(folder: str, index: int, size: int) -> Pixels:
    """A photograph of a thing of this texture, in any colour and shape."""
    rng = _generator(folder, index)
    thing = Thing(pick(rng, list(COLOURS)), folder, pick(rng, list(SHAPES)))
    return render_task_picture(thing, TASK_SEED, index, size)


def hard_photograph(folder: str, index: int, size: int) -> Pixels:
    """A dark and noisy photograph among other things."""
    return render_task_picture(Thing(*folder.split("_")), TASK_SEED, index, size, _HARD)


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
    """By turns a drawing on paper and a poster of a photograph."""
    return (_poster if index % 2 else _drawing)(folder, index, size)


def _poster(folder: str, index: int, size: int) -> Pixels:
    """A photograph in a few flat tones a channel, from black to white."""
    levels = photograph(folder, index, size) // (256 // _POSTER_TONES)
    return (levels * (255 // (_POSTER_TONES - 1))).astype(np.uint8)


def _drawing(folder: str, index: int, size: int) -> Pixels:
    """The thing as the training world draws it, without a camera, on rough paper."""
    rng = _generator(folder, index)
    x, y = canvas(SUPERSAMPLING * size)
    picture = _paper(x, y, rng)
    paint(picture, x, y, Thing(*folder.split("_")), central_pose(rng), rng)
    return shrink(picture, size)


def _paper(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    tone = (rng.uniform(0.8, 0.95) + np.array([0.02, 0.0, -0.05])).astype(np.float32)
    fibres = smooth_noise(x * 4, y, rng, float(rng.uniform(20, 50)), 6) * np.float32(0.03)
    return (tone + fibres[..., None]).astype(np.float32)


def _generator(folder: str, index: int) -> np.random.Generator:
    return np.random.default_rng((TASK_SEED, index, *folder.encode()))
