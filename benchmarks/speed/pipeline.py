"""How near embedding on a CPU comes to its limits: the bare encoder, and bare decoding.

Each row divides two things that were measured in turns. Run with ``make bench-speed``.
"""

from __future__ import annotations

import argparse
import functools
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import SIZES, Free, Table, arguments, bare, make_pictures, plain_loop, samples_of

from clip_adapter.backbones import Preprocess, load_backbone
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.transforms import Transform
from clip_adapter.features.embed import embed
from clip_adapter.threads import cores

HALF = (0.5, 0.5, 0.5)
INPUTS = Preprocess(224, HALF, HALF)


def encoders(table: Table, paths: list[Path], names: list[str], rounds: int) -> None:
    """``embed`` beside the encoder on ready tensors, and the plain loop."""
    for name in names:
        backbone = load_backbone(name, device="cpu")
        count = len(paths)
        things = {
            "embed": lambda backbone=backbone: embed(backbone, samples_of(paths), ["a"]),
            "bare encoder": bare(backbone, count, 64),
            "open_clip and a DataLoader": plain_loop(backbone, paths, cores(), 64),
        }
        table.measure(f"{name}, CPU", count, things, rounds, warm=count < 100)


def alone(table: Table, folder: Path, counts: dict[str, int], rounds: int) -> None:
    """The pipeline with an encoder that costs nothing, beside plain threads."""
    transform = Transform(INPUTS)

    def one(path: Path, draft: int) -> np.ndarray:
        return transform.cut(decode(path.read_bytes(), path.name, draft=draft)).numpy()

    def threads(paths: list[Path], draft: int) -> None:
        with ThreadPoolExecutor(cores() + 1) as pool:
            for _ in pool.map(functools.partial(one, draft=draft), paths):
                pass

    for size, count in counts.items():
        paths = make_pictures(folder / size.replace(" ", ""), count, SIZES[size])
        samples, draft = samples_of(paths), 2 * INPUTS.image_size
        exact = {
            "pipeline": lambda s=samples: embed(Free(INPUTS), s, ["a"]),
            "Pillow in plain threads": lambda p=paths: threads(p, 0),
        }
        table.measure(f"{size}, exact", count, exact, rounds)
        fast = {
            "pipeline": lambda s=samples: embed(Free(INPUTS), s, ["a"], decode="fast"),
            "Pillow in plain threads, with draft": lambda p=paths, d=draft: threads(p, d),
            "pipeline, exact": exact["pipeline"],
        }
        if size == "12 MP":
            table.measure(f"{size}, fast", count, fast, rounds)


def memory(folder: Path, counts: tuple[int, int]) -> None:
    """Peak memory of two numbers of pictures, each in a process of its own."""
    make_pictures(folder / "64px", max(counts), SIZES["64 px"])
    peaks = [
        int(
            subprocess.check_output(
                [sys.executable, __file__, "--folder", folder, "--peak", str(n)]
            )
        )
        for n in counts
    ]
    print(
        f"Peak memory, {counts[0]} and {counts[1]} pictures: {peaks[0]} and {peaks[1]} KiB, "
        f"a growth of {peaks[1] / peaks[0] - 1:.1%}."
    )


def main() -> None:
    """Measure, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--photos", type=Path, help="a folder of photographs in place of made ones")
    parser.add_argument("--only", choices=("encoders", "alone", "memory"))
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        paths = make_pictures(options.folder / "64px", options.peak, SIZES["64 px"])
        embed(Free(INPUTS), samples_of(paths), ["a"])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    table, small = Table(), options.small
    counts = {"64 px": 2000, "500 px": 400, "12 MP": 12}
    if options.only in (None, "alone"):
        alone(
            table,
            options.folder,
            {k: n // 4 if small else n for k, n in counts.items()},
            options.rounds,
        )
    if options.only in (None, "encoders"):
        count = 48 if small else 400
        paths = (
            sorted(options.photos.iterdir())[:count]
            if options.photos
            else make_pictures(options.folder / "500px", count, SIZES["500 px"])
        )
        encoders(table, paths, ["ViT-B-32/random", "RN50/random"], options.rounds)
    if options.only in (None, "memory"):
        memory(options.folder, (200, 2000) if small else (2000, 20000))
    table.write(options.out)


if __name__ == "__main__":
    main()
