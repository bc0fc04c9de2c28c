"""How near embedding on a GPU comes to its limits: the bare encoder, and bare decoding.

Each row divides two things that were measured in turns. ``--small`` also runs on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from common import SIZES, Free, Table, arguments, bare, make_pictures, plain_loop, samples_of

from clip_adapter.backbones import Preprocess, load_backbone
from clip_adapter.datasets.decode import decode_plain
from clip_adapter.features.embed import embed
from clip_adapter.features.pixels import cores

HALF = (0.5, 0.5, 0.5)
BATCH = 256


def threads(paths: list[Path], count: int) -> None:
    """Read and decode, and nothing else."""

    def one(path: Path) -> None:
        decode_plain(path.read_bytes(), 10_000)

    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(one, paths):
            pass


def main() -> None:
    """Measure, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--count", type=int, default=8192, help="pictures")
    options = parser.parse_args()
    small = options.small
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "float16" if device == "cuda" else "float32"
    count, rounds = (32 if small else options.count), (1 if small else options.rounds)
    batch = 16 if small else BATCH
    table = Table()
    paths = make_pictures(options.folder / "500px", count, SIZES["500 px"])
    ours = functools.partial(embed, class_names=["a"], batch_size=batch, decode="fast")
    free = Free(Preprocess(224, HALF, HALF), device)
    table.measure(
        "500 px, the pipeline alone",
        count,
        {
            "pipeline": lambda: ours(free, samples_of(paths)),
            "reading and decoding in threads": lambda: threads(paths, cores()),
        },
        rounds,
    )
    for name, part in (("ViT-B-32/random", 1), ("ViT-L-14/random", 4)):
        if small and part > 1:
            continue
        backbone = load_backbone(name, device=device, dtype=dtype)
        some = paths[: count // part]
        things: dict[str, Callable[[], Any]] = {
            "embed": lambda backbone=backbone, some=some: ours(backbone, samples_of(some)),
            "bare encoder": bare(backbone, len(some), batch),
        }
        if part == 1:
            things["open_clip and a DataLoader"] = plain_loop(backbone, some, cores(), batch)
        table.measure(f"{name}, {dtype}", len(some), things, rounds)
        del backbone, things
    table.write(options.out)


if __name__ == "__main__":
    main()
