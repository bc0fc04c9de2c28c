"""Reference numbers on real CLIP ViT-B/32 features: accuracy and seconds, three seeds.

    python benchmarks/reference.py --features FOLDER [--out benchmarks/REFERENCE.md]

FOLDER holds ``imagenet``, ``caltech101_matched``, ``oxford_flowers`` and ``ucf101`` as safetensors
files with sets ``train_{K}shot`` and ``test`` or ``eval_{K}shot``. Each row is fitted by the public
``fit`` and scored by the public ``evaluate``; times are the seconds that ``fit`` reports, and are
compared only with times of the same run on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import clip_adapter
from clip_adapter._version import versions
from clip_adapter.errors import ClipAdapterError

SEEDS = (1, 2, 3)
OFFICIAL = {"recipe": "official", "visual_ratio": 0.2}
FAST = {"visual_ratio": 0.2}


@dataclass
class Row:
    """One method on one set: what to run, what it should reach, what it did."""

    train: str
    test: str
    label: str
    method: str = "clip-adapter"
    options: dict[str, Any] = field(default_factory=dict)
    low: float = 0.0
    high: float = 100.0
    slower_than: str = ""  # label of the row whose time is the measure
    share: float = 0.0  # of that time, at most
    top1: list[float] = field(default_factory=list)
    zero_shot: float | None = None
    seconds: list[float] = field(default_factory=list)
    chosen: list[Any] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean top-1 accuracy, percent."""
        return statistics.mean(self.top1)

    @property
    def time(self) -> float:
        """Mean fit seconds."""
        return statistics.mean(self.seconds)


def rows() -> list[Row]:
    """What is measured, with the bounds that it should keep."""
    four = ("imagenet#train_4shot", "imagenet#eval_4shot")
    one = ("imagenet#train_1shot", "imagenet#eval_1shot")
    out = [
        Row(*four, "zero-shot", "zero-shot", low=60.88, high=60.98),
        Row(*four, "official, ratio 0.2", options=OFFICIAL, low=62.8, high=63.8),
        Row(
            *four,
            "fast, ratio 0.2",
            options=FAST,
            low=63.4,
            slower_than="official, ratio 0.2",
            share=1 / 10,
        ),
        Row(*four, "defaults", low=63.2, slower_than="official, ratio 0.2", share=1 / 3),
        Row(*four, "auto", "auto", low=67.0),
        Row(*one, "zero-shot", "zero-shot", low=61.06, high=61.16),
        Row(*one, "official, ratio 0.2", options=OFFICIAL, low=62.5, high=63.5),
        Row(*one, "defaults", low=62.3),
        Row(*one, "auto", "auto", low=63.0),
    ]
    for shots in (1, 2, 4, 8, 16):
        pair = (f"caltech101_matched#train_{shots}shot", "caltech101_matched#test")
        if shots == 16:
            out.append(Row(*pair, "official, ratio 0.2", options=OFFICIAL, low=96.8, high=97.6))
        out.append(Row(*pair, "defaults", low=97.2 if shots == 16 else 96.34))
        out.append(Row(*pair, "auto", "auto", low=97.2 if shots == 16 else 96.34))
    pair = ("caltech101_matched#train_1shot", "caltech101_matched#test")
    out.append(Row(*pair, "zero-shot", "zero-shot", low=96.39, high=96.49))
    for name, low, high in (("oxford_flowers", 94.2, 95.8), ("ucf101", 78.1, 80.5)):
        out.append(
            Row(
                f"{name}#train_16shot",
                f"{name}#test",
                "linear probe",
                "linear-probe",
                {},
                low,
                high,
            )
        )
    return out


def spec(folder: Path, name: str) -> str:
    """``imagenet#train_4shot`` as a path with its set."""
    file, _, part = name.partition("#")
    return f"{folder / file}.safetensors#{part}"


def measure(row: Row, folder: Path) -> None:
    """Fits and scores ``row`` once per seed (once where there is nothing random)."""
    for seed in SEEDS if row.method in ("clip-adapter", "auto") else SEEDS[:1]:
        classifier = clip_adapter.fit(
            spec(folder, row.train), method=row.method, options=row.options, seed=seed
        )
        report = clip_adapter.evaluate(classifier, spec(folder, row.test))
        row.top1.append(report.top1)
        row.zero_shot = report.zero_shot_top1
        row.seconds.append(classifier.info["seconds"])
        chosen = classifier.info["hyperparameters"]
        row.chosen.append(chosen.get("visual_ratio", chosen.get("C")))


def verdict(row: Row, done: list[Row]) -> str:
    """Whether the row keeps its bounds, in a word or a reason."""
    reasons = []
    if not row.low <= row.mean <= row.high:
        reasons.append(f"accuracy outside {row.low:g} to {row.high:g}")
    if row.share:
        base = next(r for r in done if r.label == row.slower_than and r.train == row.train)
        share = row.time / base.time
        if share > row.share:
            reasons.append(f"takes {share:.2f} of {base.label}, allowed {row.share:.2f}")
    return "; ".join(reasons) or "holds"


def markdown(done: list[Row]) -> str:
    """The table."""
    lines = [
        "# Reference numbers",
        "",
        "Real OpenAI CLIP ViT-B/32 features; `make bench` makes this file. Top-1 accuracy in "
        "percent, mean and range of seeds 1, 2, 3; seconds of training (with the choice of the "
        "ratio, where it is chosen) on this machine: "
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__.partition('+')[0]}.",
        "",
        "| train | method | top-1 | range | zero-shot | seconds | chosen | bound | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in done:
        bound = f"{r.low:g} to {r.high:g}" if r.high < 100 else f"at least {r.low:g}"
        if r.share:
            base = next(b for b in done if b.label == r.slower_than and b.train == r.train)
            bound += f"; time {r.time / base.time:.3f} of {base.label} (at most {r.share:.3f})"
        zero = "" if r.zero_shot is None else f"{r.zero_shot:.2f}"
        chosen = ", ".join("" if c is None else f"{c:.3g}" for c in r.chosen)
        spread = f"{min(r.top1):.2f} to {max(r.top1):.2f}" if len(r.top1) > 1 else ""
        lines.append(
            f"| {r.train} | {r.label} | {r.mean:.2f} | {spread} | {zero} | {r.time:.2f} | {chosen} "
            f"| {bound} | {verdict(r, done)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs all rows; 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not (arguments.features / "imagenet.safetensors").is_file():
        print(f"No feature files in {arguments.features}: nothing measured.")
        return 0
    done: list[Row] = []
    try:
        # The first training of a process loads libraries; it is not part of any row.
        measure(
            Row("caltech101_matched#train_1shot", "caltech101_matched#test", "warm-up"),
            arguments.features,
        )
        for row in rows():
            measure(row, arguments.features)
            done.append(row)
            print(
                f"{row.train:34} {row.label:22} {row.mean:6.2f} {row.time:7.2f} s  "
                f"{row.chosen} {verdict(row, done)}",
                flush=True,
            )
    except ClipAdapterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.out:
        arguments.out.write_text(markdown(done), "utf-8")
        record = {"versions": versions(), "rows": [asdict(r) for r in done]}
        for row in record["rows"]:
            row["train"], row["test"] = str(row["train"]), str(row["test"])
        path = arguments.out.parent / "results" / "reference.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return int(any(verdict(r, done) != "holds" for r in done))


if __name__ == "__main__":
    sys.exit(main())
