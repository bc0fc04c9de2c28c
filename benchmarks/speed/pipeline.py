"""How near embedding on a CPU comes to its limits: the bare encoder, and bare decoding.

Each row divides two things that were measured in turns. Run with ``make bench-speed``.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from common import (
    SIZES,
    Free,
    Table,
    arguments,
    bare,
    make_pictures,
    peers,
    photographs,
    plain_loop,
    samples_of,
)
from others import MODEL, other

from clip_adapter.backbones import Preprocess, load_backbone
from clip_adapter.classifier import Classifier
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.transforms import Transform
from clip_adapter.features.embed import embed
from clip_adapter.heads import Head
from clip_adapter.nn import ResidualAdapter
from clip_adapter.threads import cores

HALF = (0.5, 0.5, 0.5)
INPUTS = Preprocess(224, HALF, HALF)
ENCODERS = (("ViT-B-32/random", "torch"), ("RN50/random", "torch"), ("RN50/random", "onnx"))


def encoders(
    table: Table, paths: list[Path], wanted: str, rounds: int, others: Sequence[str] = ()
) -> None:
    """``embed`` beside the encoder on ready tensors by the same runtime, and torch's plain loop.

    Beside ViT-B-32 also what is in the environments whose Pythons are ``others``.
    """
    for name, runtime in ENCODERS:
        title = f"{name}, CPU, {runtime}"
        if wanted not in title or (runtime == "onnx" and not find_spec("onnxruntime")):
            continue
        backbone = load_backbone(name, device="cpu", runtime=runtime)
        plain, count = load_backbone(name, device="cpu"), len(paths)
        things = {
            "embed": lambda backbone=backbone: embed(backbone, samples_of(paths), ["a"]),
            "bare encoder": bare(backbone, count, 64),
            "open_clip and a DataLoader": plain_loop(plain, paths, cores(), 64),
            **peers(name, paths, cores(), 64),
        }
        least = {"bare encoder": 0.93, "open_clip and a DataLoader": 1.5}
        with contextlib.ExitStack() as stack:
            for python in others if name.startswith(MODEL) else ():
                found, run = stack.enter_context(other(python, paths, cores(), 64))
                run()  # loads and warms up what it needs
                things[found] = run
            table.measure(title, count, things, rounds, warm=count < 100, least=least)


def alone(table: Table, folder: Path, counts: dict[str, int], rounds: int) -> None:
    """The pipeline with an encoder that costs nothing, beside plain threads."""
    transform, plain = Transform(INPUTS), "Pillow in plain threads"

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
            plain: lambda p=paths: threads(p, 0),
        }
        table.measure(f"{size}, exact", count, exact, rounds, least={plain: 0.9})
        fast = {
            "pipeline": lambda s=samples: embed(Free(INPUTS), s, ["a"], decode="fast"),
            f"{plain}, with draft": lambda p=paths, d=draft: threads(p, d),
            "pipeline, exact": exact["pipeline"],
        }
        if size == "12 MP":
            table.measure(f"{size}, fast", count, fast, rounds, least={f"{plain}, with draft": 0.9})


def adapters(table: Table, rounds: int) -> None:
    """What a head adds to the encoder, one picture at a time and in batches."""
    backbone = load_backbone("ViT-B-32/random", device="cpu")
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(100, backbone.embed_dim, generator=generator)
    dim = backbone.embed_dim
    head = Head(weights, ResidualAdapter.build(dim, dim // 4, ratio=0.2, generator=generator))
    classifier = Classifier(head, [f"{i}" for i in range(100)])
    for batch in (1, 64):
        images = torch.randn(batch, 3, 224, 224, generator=generator)
        encode = functools.partial(backbone.encode_images, images)
        table.measure(
            f"an adapter over 100 classes, {batch} at a time",
            batch,
            {
                "encoder and adapter": lambda e=encode: classifier.logits(e()),
                "encoder": encode,
            },
            3 * rounds,
            least={"encoder": 0.98},
        )


def main() -> None:
    """Measure, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--photos", type=Path, help="a tar file of photographs, not made ones")
    parser.add_argument("--only", choices=("alone", "encoders", "adapters"))
    parser.add_argument("--count", type=int, default=400, help="pictures for each encoder")
    parser.add_argument("--encoder", default="", help="only those with this in their title")
    parser.add_argument(
        "--other",
        action="append",
        default=[],
        help="the Python of an environment with infinity-emb or clip-retrieval; again for another",
    )
    options = parser.parse_args()
    table, small = Table(), options.small
    counts = {"64 px": 2000, "500 px": 400, "12 MP": 24}
    if options.only in (None, "alone"):
        some = {size: count // 4 if small else count for size, count in counts.items()}
        alone(table, options.folder, some, options.rounds)
    if options.only in (None, "encoders"):
        count = 48 if small else options.count
        paths = (
            photographs(options.photos, options.folder / "photos", count)
            if options.photos
            else make_pictures(options.folder / "500px", count, SIZES["500 px"])
        )
        encoders(table, paths, options.encoder, options.rounds, options.other)
    if options.only in (None, "adapters"):
        adapters(table, options.rounds)
    table.write(options.out)


if __name__ == "__main__":
    main()
