"""What the measurements of speed share: pictures, peers, and things measured in turns."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clip_adapter.datasets.dataset import Sample

SIDE, GRAIN = 512, 12  # of the clouds in pixels, of the grain in grey levels
BASES = 32  # different pictures; the files differ in a comment besides
SIZES = {"64 px": (64, 64), "500 px": (500, 375), "12 MP": (4000, 3000)}


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Clouds of every size over a gradient, with a grain: compresses as a photograph does."""
    random = np.random.default_rng(seed)
    clouds = np.linspace(90, 160, SIDE, dtype=np.float32)[None, :, None].repeat(SIDE, 0)
    for power in range(1, 9):
        coarse = random.standard_normal((2**power, 2**power, 3), np.float32)
        channels = [
            np.asarray(Image.fromarray(coarse[:, :, c]).resize((SIDE, SIDE))) for c in range(3)
        ]
        clouds = clouds + np.stack(channels, -1) * 60 * 2 ** (-0.6 * power)
    smooth = Image.fromarray(clouds.clip(0, 255).astype(np.uint8)).resize((width, height))
    grain = random.integers(-GRAIN, GRAIN + 1, (height, width, 1), np.int16)
    return Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))


def make_pictures(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """``count`` JPEG files of one size, no two with the same bytes; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:06d}.jpg" for i in range(count)]
    missing = [i for i, path in enumerate(paths) if not path.exists()]

    def base(seed: int) -> bytes:
        path = folder / f"base{seed}.tmp"
        # Now and then one that stands upright.
        photograph(*(size[::-1] if seed % 4 == 3 else size), seed).save(path, "JPEG", quality=88)
        data = path.read_bytes()
        path.unlink()
        return data

    if missing:
        with ThreadPoolExecutor() as pool:
            bases = list(pool.map(base, range(min(BASES if max(size) < 1000 else 4, count))))
        for i in missing:
            data, comment = bases[i % len(bases)], f"{i:016d}".encode()
            segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
            paths[i].write_bytes(data[:2] + segment + data[2:])
    return paths


def samples_of(paths: Sequence[Path]) -> list[Sample]:
    """Samples of files."""
    return [Sample(path.name, 0, path) for path in paths]


class Free:
    """A backbone that costs nothing: what is left is the pipeline."""

    name, fingerprint, dtype, embed_dim, logit_scale = "free", "", "float32", 8, 100.0

    def __init__(self, preprocess: Any, device: str = "cpu") -> None:
        self.preprocess, self.device = preprocess, device

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """A few of the numbers."""
        return images.flatten(1)[:, :8].float().clone()


class Files(torch.utils.data.Dataset):
    """What anyone would write."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Image.Image], Any]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        return self.transform(Image.open(self.paths[row]))


def plain_loop(backbone: Any, paths: Sequence[Path], workers: int, batch: int) -> Callable[[], Any]:
    """open_clip's own preprocessing, a DataLoader that keeps its workers, and its encoder."""
    from open_clip.transform import image_transform

    pre = backbone.preprocess
    transform = image_transform(pre.image_size, is_train=False, mean=pre.mean, std=pre.std)
    cuda = backbone.device.startswith("cuda")
    dtype = getattr(torch, backbone.dtype)
    loader = torch.utils.data.DataLoader(
        Files(paths, transform),
        batch_size=batch,
        num_workers=workers,
        pin_memory=cuda,
        persistent_workers=True,
    )

    def loop() -> torch.Tensor:
        with torch.inference_mode():
            features = [
                backbone.model.encode_image(images.to(backbone.device, dtype, non_blocking=True))
                for images in loader
            ]
            return torch.cat(features).float().cpu()

    return loop


def bare(backbone: Any, count: int, batch: int) -> Callable[[], None]:
    """The encoder on tensors that are on the device already."""
    size = backbone.preprocess.image_size
    images = torch.randn(batch, 3, size, size).to(backbone.device, getattr(torch, backbone.dtype))

    def run() -> None:
        starts = range(0, count, batch)
        parts = [backbone.encode_images(images[: min(batch, count - start)]) for start in starts]
        torch.cat(parts).cpu()

    return run


@dataclass
class Table:
    """Rows of a report: rates of things that were measured in turns, and their ratios."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def measure(
        self,
        title: str,
        count: int,
        things: dict[str, Callable[[], Any]],
        rounds: int,
        *,
        warm: bool = True,
    ) -> None:
        """Run ``things`` in turns; the first is ours, and is divided by each of the others."""
        if warm:
            for thing in things.values():
                thing()
        seconds: dict[str, list[float]] = {name: [] for name in things}
        for _ in range(rounds):
            for name, thing in things.items():
                start = time.perf_counter()
                thing()
                seconds[name].append(time.perf_counter() - start)
        ours = next(iter(things))
        for name, times in seconds.items():
            ratios = [other / own for own, other in zip(seconds[ours], times, strict=True)]
            row = {
                "row": title,
                "what": name,
                "per_second": count / statistics.median(times),
                "ours_to_it": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "rounds": rounds,
            }
            self.rows.append(row)
            median = statistics.median(times)
            rate = f"{count / median:10.1f}/s" if count > 1 else f"{median:10.2f} s"
            print(
                f"{title:40} {name:28} {rate}   ours/it "
                f"{row['ours_to_it']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
                flush=True,
            )

    def markdown(self) -> str:
        """The rows, as a table."""
        head = "| measured | what | a second | ours to it | range |\n|---|---|---:|---:|---:|\n"
        return head + "".join(
            f"| {r['row']} | {r['what']} | {r['per_second']:,.2f} | {r['ours_to_it']:.3f} | "
            f"{r['low']:.3f} to {r['high']:.3f} |\n"
            for r in self.rows
        )

    def write(self, out: Path | None) -> None:
        """Print the table, and keep it as JSON with the machine."""
        print("\n" + self.markdown())
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps({"machine": machine(), "rows": self.rows}, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What it was measured on."""
    info = Path("/proc/cpuinfo")
    models = [
        line.partition(": ")[2]
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "pillow": Image.__version__,
        "python": platform.python_version(),
    }


def arguments(description: str) -> argparse.ArgumentParser:
    """Options that the scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/clip-adapter-speed"), help="for pictures"
    )
    parser.add_argument("--out", type=Path, help="the JSON to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="little work: only shows that it runs")
    return parser
