"""Fills in ``src/clip_adapter/backbones/table.csv``, or with ``--check`` compares its costs.

A row is added by hand, with its licence and, where open_clip's results lack it, its accuracy. This
counts the parameters and multiply-adds of its architecture, and takes what open_clip has measured
from a copy of https://github.com/mlfoundations/open_clip/blob/main/docs/openclip_results.csv:

    python tools/backbone_table.py openclip_results.csv
"""

from __future__ import annotations

import csv
import logging
import sys
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch.utils.flop_counter import FlopCounterMode

from clip_adapter.backbones.table import TABLE


def cost(arch: str) -> dict[str, str]:
    """Millions of parameters of both towers, and 10^9 multiply-adds of a picture."""
    with torch.device("meta"):  # shapes alone: no weights are made
        model: Any = open_clip.create_model(arch, pretrained_text=False, device="meta")
        model.eval().requires_grad_(False)
        size = model.visual.image_size
        side = size if isinstance(size, int) else size[0]
        picture = torch.zeros(1, 3, side, side)
        with FlopCounterMode(display=False) as counter:
            model.encode_image(picture)
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "parameters": f"{parameters / 1e6:.1f}",
        "multiply_adds": f"{counter.get_total_flops() / 2e9:.2f}",
    }


def main(arguments: list[str]) -> int:
    """0 when the table is as it should be."""
    logging.disable(logging.WARNING)  # open_clip's, on random weights
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    costs = {arch: cost(arch) for arch in dict.fromkeys(row["name"].split("/")[0] for row in rows)}
    filled = [row | costs[row["name"].split("/")[0]] for row in rows]
    if "--check" in arguments:
        wrong = [new["name"] for old, new in zip(rows, filled, strict=True) if old != new]
        print(*(f"{name}: its cost is another" for name in wrong), sep="\n", file=sys.stderr)
        return int(bool(wrong))
    with open(arguments[0], encoding="utf-8", newline="") as file:
        known = {f"{row['name']}/{row['pretrained']}": row for row in csv.DictReader(file)}
    for row in filled:
        if row["source"] == "open_clip":
            published = known[row["name"]]
            row["imagenet"] = f"{100 * float(published['ImageNet 1k']):.2f}"
            row["mean_38"] = f"{100 * float(published['Average perf. on 38 datasets']):.2f}"
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(filled, key=lambda r: (float(r["multiply_adds"]), r["name"])))
    print(f"Written: {Path(TABLE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
