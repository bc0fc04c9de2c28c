"""How near embedding on a GPU comes to its limits, and how long heads train at ImageNet's size.

Each row divides two things that were measured in turns. ``--small`` also runs on a CPU.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from common import SIZES, Free, Table, arguments, bare, make_pictures, plain_loop, samples_of
from torchvision.io import ImageReadMode, decode_jpeg

from clip_adapter.backbones import Preprocess, load_backbone
from clip_adapter.backbones.memory import batch_for
from clip_adapter.features.embed import embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import get_method
from clip_adapter.options import Compute
from clip_adapter.task import FewShotTask
from clip_adapter.threads import cores

HALF = (0.5, 0.5, 0.5)
BATCH = 256  # files that are decoded at once
LOOP = "open_clip and a DataLoader"
READERS, AT_ONCE = 6, 16  # threads that read, and the files that each of them reads at once


def reading_and_decoding(paths: list[Path], device: str) -> Callable[[], None]:
    """Read files in threads and decode them in batches, as plainly as can be."""

    def read(some: list[Path]) -> list[torch.Tensor]:
        files = [bytearray(path.read_bytes()) for path in some]
        return [torch.frombuffer(file, dtype=torch.uint8) for file in files]

    def decode(files: list[torch.Tensor]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            decode_jpeg(files, ImageReadMode.RGB, device)

    def run() -> None:
        parts = [paths[i : i + AT_ONCE] for i in range(0, len(paths), AT_ONCE)]
        batch: list[torch.Tensor] = []
        with ThreadPoolExecutor(READERS) as pool:
            for files in pool.map(read, parts):
                batch += files
                if len(batch) >= BATCH:
                    decode(batch)
                    batch = []
        if batch:
            decode(batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def imagenet(classes: int, shots: int = 16, dim: int = 1024) -> FewShotTask:
    """Random features of ImageNet's size: a direction for each class, and noise around it."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(classes, dim, generator=generator)
    labels = torch.arange(classes).repeat_interleave(shots)
    rows = means[labels] + 4 * torch.randn(len(labels), dim, generator=generator)
    text = means + 3 * torch.randn(classes, dim, generator=generator)
    names = [f"{i}" for i in range(classes)]
    return FewShotTask(FeatureSet(rows[None], labels, names), text)


def main() -> None:
    """Measure, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--count", type=int, default=6144, help="pictures")
    options = parser.parse_args()
    small = options.small
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "float16" if device == "cuda" else "float32"
    count, rounds = (32 if small else options.count), (1 if small else options.rounds)
    table = Table()
    paths = make_pictures(options.folder / "500px", count, SIZES["500 px"])
    free = Free(Preprocess(224, HALF, HALF), device)
    table.measure(
        "500 px, the pipeline alone",
        count,
        {
            "pipeline": lambda: embed(free, samples_of(paths), ["a"], decode="auto"),
            "reading and decoding": reading_and_decoding(paths, device),
        },
        rounds,
        least={"reading and decoding": 0.8},
    )
    for name in ("ViT-B-32/random", "RN50/random", "ViT-L-14/random"):
        backbone = load_backbone(name if not small else "demo", device=device, dtype=dtype)
        fast = functools.partial(embed, backbone, samples_of(paths), ["a"], decode="auto")
        things: dict[str, Callable[[], Any]] = {
            "embed": fast,
            "bare encoder": bare(backbone, count, batch_for(device)),
        }
        least, rate = {"bare encoder": 0.9} if name.startswith("ViT-L-14") else {}, None
        if name.startswith("ViT-B-32"):
            things[LOOP] = plain_loop(backbone, paths, cores(), batch_for(device))
            least, rate = {LOOP: 3.3}, 5500
        table.measure(f"{name}, {dtype}", count, things, rounds, least=least, rate=rate)
        if name.startswith("ViT-B-32"):
            some = samples_of(paths[: count // 6])
            exact = {"embed, exact": lambda b=backbone, s=some: embed(b, s, ["a"])}
            table.measure(f"{name}, {dtype}, exact", len(some), exact, 1, warm=False)
        del backbone, things, fast
    task = dataclasses.replace(
        imagenet(20, 4, 64) if small else imagenet(1000), compute=Compute(device=device)
    )
    for method, seconds in (("clip-adapter", 1), ("auto", 5)):
        fit = {method: lambda method=method: get_method(method)().fit(task)}
        title = f"{method}, {len(task.class_names)} classes, {task.shots} shots, {device}"
        turns = 1 if method == "auto" else rounds
        table.measure(title, 1, fit, turns, warm=False, rate=1 / seconds)
    table.write(options.out)


if __name__ == "__main__":
    main()
