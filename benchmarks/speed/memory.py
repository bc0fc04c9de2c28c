"""How much memory embedding takes, of few pictures and of ten times as many.

The encoder costs nothing. Each number of pictures is embedded in a process of its own, in turns;
what is compared is the most memory that the process ever held.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile

from common import SIZES, Free, Table, arguments, make_pictures, samples_of

from clip_adapter.backbones import Preprocess
from clip_adapter.features.embed import embed
from clip_adapter.features.store import FeatureStore

INPUTS = Preprocess(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FEW, MANY = 2000, 20000
WAYS = {"store off, features of 8 numbers": (8, False), "store on, features of 512": (512, True)}


def peak() -> float:
    """The most memory that this process ever held, in MiB."""
    import resource  # not on Windows

    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def embed_some(count: int, way: str, folder: str) -> None:
    """Embed ``count`` pictures, and print the peak."""
    dim, stored = WAYS[way]
    backbone = Free(INPUTS)
    backbone.embed_dim, backbone.fingerprint = dim, "free"
    backbone.encode_images = lambda images: images.flatten(1)[:, :dim].clone()
    paths = make_pictures(folder, count, SIZES["64 px"])
    with tempfile.TemporaryDirectory() as scratch:
        store = FeatureStore(scratch) if stored else None
        embed(backbone, samples_of(paths), ["a"], store=store)
    print(peak())


def main() -> None:
    """Measure, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder / "64px"
    if options.peak:
        return embed_some(int(options.peak[0]), options.peak[1], folder)
    few, many = (FEW // 10, FEW) if options.small else (FEW, MANY)
    make_pictures(folder, many, SIZES["64 px"])
    table = Table()
    for way in WAYS:
        peaks = {count: [] for count in (many, few)}
        for _ in range(1 if options.small else options.rounds):
            for count, values in peaks.items():
                command = [sys.executable, __file__, "--folder", options.folder]
                command += ["--peak", str(count), way]
                values.append(float(subprocess.check_output(command)))
        ratios = [a / b for a, b in zip(peaks[many], peaks[few], strict=True)]
        for count, values in peaks.items():
            row = {"row": f"Peak memory, {way}", "what": f"{count:,} pictures", "unit": "MiB"}
            row |= {"value": statistics.median(values), "rounds": len(values)}
            spread = {"ours_to_it": statistics.median(ratios), "low": min(ratios)}
            spread |= {"high": max(ratios), "most": 1.05}
            table.add(row | ({} if count == many else spread))
    table.write(options.out)
    return None


if __name__ == "__main__":
    main()
