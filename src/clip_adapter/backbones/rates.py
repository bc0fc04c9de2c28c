"""How many pictures a second each architecture encodes on this machine, measured once and kept.

Weights are random: their values do not change the time. A rate is of the visual tower alone, of
pictures that are in the memory of the device. ``CACHE/backbones/rates.json`` keeps them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from clip_adapter.backbones.memory import FORWARD_BATCH, total_memory
from clip_adapter.backbones.open_clip import OpenClipBackbone, create_model
from clip_adapter.backbones.table import Row
from clip_adapter.backbones.weights import Origin
from clip_adapter.errors import DataError
from clip_adapter.files import read_json, write_file
from clip_adapter.paths import default_root
from clip_adapter.reporting import log, track
from clip_adapter.threads import processor
from clip_adapter.wording import listed

# Of which the quickest counts: what else the machine does only ever makes one slower.
PASSES = 5
WORK = 30.0  # 10^9 multiply-adds of one pass on a CPU, at least a picture
# In the place of the text tower, which takes no part.
NO_TEXT = {"context_length": 8, "vocab_size": 16, "width": 64, "heads": 1, "layers": 1}
_FORM = "JSON objects of rates by architecture, by machine"


def rates_file() -> Path:
    """Where the rates are kept."""
    return default_root() / "backbones" / "rates.json"


def rates(device: str, dtype: str) -> dict[str, float]:
    """Pictures a second by architecture, those that were measured here.

    Args:
        device: a resolved one.
        dtype: of weights and computation.
    """
    return _kept().get(_machine(device, dtype), {})


def measure(rows: Sequence[Row], device: str, dtype: str) -> dict[str, float]:
    """The rates of the architectures of ``rows`` too; those not yet known are measured now.

    Each is kept as soon as it is known, so that interrupted work goes on from there.

    Args:
        rows: backbones; those whose weights the memory cannot hold are left out, and told.
        device: a resolved one.
        dtype: of weights and computation.
    """
    known, machine = rates(device, dtype), _machine(device, dtype)
    open_ones = {row.arch: row for row in rows if row.arch not in known}
    if large := [arch for arch, row in open_ones.items() if not fits(row, device)]:
        log.warning(f"Left out, too large for the memory here: {listed(large, len(large))}.")
    wanted = [row for row in open_ones.values() if row.arch not in large]
    for row in track(wanted, "Measuring", "backbones"):
        kept = _kept()
        kept[machine] = kept.get(machine, {}) | {row.arch: _rate(row, device, dtype)}
        write_file(rates_file(), f"{json.dumps(kept, indent=1, sort_keys=True)}\n".encode())
    return rates(device, dtype)


def fits(row: Row, device: str) -> bool:
    """Whether the float32 weights of a backbone are at most a quarter of the memory.

    Loading holds them twice, and the work needs room beside them.
    """
    memory = total_memory(device)
    return memory is None or 4 * row.parameters * 1e6 <= memory / 4


def _rate(row: Row, device: str, dtype: str) -> float:
    origin = Origin("random", f"{row.arch}/random", row.arch)
    model = create_model(origin, text_cfg=NO_TEXT)
    backbone = OpenClipBackbone(origin, model, device, dtype)
    number = FORWARD_BATCH
    if device == "cpu":
        number = max(1, min(number, round(WORK / row.multiply_adds)))
    size = backbone.preprocess.image_size
    pictures = torch.rand(number, 3, size, size).to(device)
    seconds = []
    for _ in range(PASSES):
        start = time.perf_counter()
        backbone.encode_images(pictures).cpu()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return round(number / min(seconds), 2)


def _machine(device: str, dtype: str) -> str:
    """What a rate belongs to: device, threads, number format and version of torch."""
    name = f"{processor()}, {torch.get_num_threads()} threads"
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    return f"{device.partition(':')[0]}: {name}, {dtype}, torch {torch.__version__}"


def _kept() -> dict[str, dict[str, float]]:
    path = rates_file()
    if not path.exists():
        return {}
    try:
        return read_json(path, "The file of rates", dict[str, dict[str, float]], _FORM)
    except DataError as error:
        log.warning(f"{error.found} The rates are measured anew.")
        return {}
