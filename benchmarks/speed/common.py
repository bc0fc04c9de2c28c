"""What the measurements of speed share: pictures, peers, and things measured in turns."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import struct
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
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
    missing = [path for path in paths if not path.exists()]

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
        write_copies(bases, paths)
    return paths


def write_copies(jpegs: Sequence[bytes], paths: Sequence[Path]) -> None:
    """Write ``jpegs`` in turns, each copy with a comment of its own: no two are the same."""
    for i, path in enumerate(paths):
        data, comment = jpegs[i % len(jpegs)], f"{i:016d}".encode()
        segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
        path.write_bytes(data[:2] + segment + data[2:])


def photographs(archive: Path, folder: Path, count: int) -> list[Path]:
    """``count`` files of the JPEG photographs in a tar file, no two with the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.name.lower().endswith((".jpg", ".jpeg"))]
        files = [tar.extractfile(member) for member in members]
        jpegs = [file.read() for file in files if file]
    paths = [folder / f"{i:06d}.jpg" for i in range(count)]
    write_copies(jpegs, paths)
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

    def encode(images: torch.Tensor) -> torch.Tensor:
        return backbone.model.encode_image(images.to(backbone.device, dtype, non_blocking=True))

    return loop_over(paths, transform, encode, workers, batch, pinned=cuda)


def peers(name: str, paths: Sequence[Path], workers: int, batch: int) -> dict[str, Any]:
    """The same architecture by others, with random weights, as their manuals do it, if installed.

    transformers' pipeline for ViT-B-32, and timm's transform with a DataLoader.
    """
    found: dict[str, Callable[[], Any]] = {}
    if name == "ViT-B-32/random" and importlib.util.find_spec("transformers"):
        from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, pipeline

        config = CLIPVisionConfig(patch_size=32)  # ViT-B-32 is what it describes
        model = CLIPVisionModel(config).eval()
        processor = CLIPImageProcessor()
        extract = pipeline("image-feature-extraction", model=model, image_processor=processor)
        files = [str(path) for path in paths]
        found["transformers' pipeline"] = lambda: extract(files, batch_size=batch)
    timm_name = {"ViT-B-32/random": "vit_base_patch32_clip_224", "RN50/random": "resnet50_clip"}
    if importlib.util.find_spec("timm"):
        import timm

        model = timm.create_model(timm_name[name], num_classes=0).eval()
        data = timm.data.resolve_model_data_config(model)
        cut = timm.data.create_transform(**data, is_training=False)
        found["timm and a DataLoader"] = loop_over(
            paths, lambda image: cut(image.convert("RGB")), model, workers, batch
        )
    return found


def loop_over(
    paths: Sequence[Path],
    transform: Callable[[Image.Image], Any],
    encode: Callable[[torch.Tensor], torch.Tensor],
    workers: int,
    batch: int,
    *,
    pinned: bool = False,
) -> Callable[[], Any]:
    """A DataLoader that keeps its workers, and an encoder."""
    loader = torch.utils.data.DataLoader(
        Files(paths, transform),
        batch_size=batch,
        num_workers=workers,
        pin_memory=pinned,
        persistent_workers=True,
    )

    def loop() -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([encode(images) for images in loader]).float().cpu()

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
        least: Mapping[str, float] | None = None,
        rate: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Run ``things`` in turns; the first is ours, and is divided by each of the others.

        ``least`` has the limits of these ratios, by the names of the others; ``rate`` that of ours
        by itself, a second. On a busy machine ``time.process_time`` as the ``clock`` leaves out
        what others do.
        """
        if warm:
            for thing in things.values():
                thing()
        seconds: dict[str, list[float]] = {name: [] for name in things}
        for _ in range(rounds):
            for name, thing in things.items():
                start = clock()
                thing()
                seconds[name].append(clock() - start)
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
            if least and name in least:
                row["least"] = least[name]
            if rate is not None and name == ours:
                row["least_per_second"] = rate
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, and print it: see :func:`markdown` for what it holds."""
        self.rows.append(row)
        print(markdown([row]).splitlines()[-1], flush=True)

    def write(self, out: Path | None) -> None:
        """Print the table, and keep it as JSON with the machine."""
        print("\n" + markdown(self.rows))
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps({"machine": machine(), "rows": self.rows}, indent=1) + "\n")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of any measurement here, as a table.

    A row has ``row`` (what is measured) and ``what`` (how), and ``per_second``, or ``value`` and
    ``unit``. Where it was measured in turns with others, it has ``ours_to_it``, the median of the
    ratios, with ``low`` and ``high``. Its limit is ``least`` or ``most`` of that ratio, else of the
    value, or ``least_per_second``.
    """
    head = "| measured | what | | ours to it (range) | limit | |\n|---|---|---:|---:|---:|---|\n"
    return head + "".join(f"| {' | '.join(_cells(row))} |\n" for row in rows)


def _cells(row: Mapping[str, Any]) -> list[str]:
    value, unit = (row["value"], row["unit"]) if "value" in row else (row["per_second"], "/s")
    if unit == "/s" and value < 1:
        value, unit = 1 / value, "s"
    number, ratio = row.get("value", row.get("per_second")), row.get("ours_to_it")
    own = ratio is None or row["low"] == row["high"] == 1
    spread = "" if own else f"{ratio:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    least, most, rate = (row.get(key) for key in ("least", "most", "least_per_second"))
    compared = number if ratio is None else ratio
    limit = [f"at least {least:g}"] if least is not None else []
    limit += [f"at most {most:g}"] if most is not None else []
    if rate is not None:
        limit.append(f"at most {1 / rate:g} s" if unit == "s" else f"at least {rate:,g} /s")
    held = (
        (least is None or compared >= least)
        and (most is None or compared <= most)
        and (rate is None or number >= rate)
    )
    verdict = ("holds" if held else "**missed**") if limit else ""
    figure = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return [row["row"], row["what"], f"{figure} {unit}", spread, ", ".join(limit), verdict]


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
