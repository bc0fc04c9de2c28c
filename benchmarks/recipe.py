"""How the "fast" recipe was chosen: on validation data and held-out shots, never on a test split.

    python benchmarks/recipe.py --features FOLDER [--out benchmarks/RECIPE.md]

``caltech101_matched`` is scored on its ``val`` set after training on 1 to 16 shots; ``imagenet`` on
those of its four shots that were not trained on, after training on 1, 2 or 3 of them. The ratio is
0.2 throughout.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.training.folds import stratified_folds

SEEDS = (1, 2, 3)
SHOTS = (1, 2, 4, 8, 16)
RECIPES: dict[str, dict[str, Any]] = {
    "zero-shot": {},
    "official": {"recipe": "official"},
    "fast (128 steps, rate by shots)": {},
    "128 steps, 1.5e-3": {"lr": 1.5e-3},
    "128 steps, 7.5e-4": {"lr": 7.5e-4},
    "128 steps, 4e-4": {"lr": 4e-4},
    "160 steps, 1e-3": {"steps": 160, "lr": 1e-3},
    "80 steps, 2e-3": {"steps": 80, "lr": 2e-3},
}


def tasks(folder: Path, seed: int) -> list[tuple[str, FewShotTask, FeatureSet]]:
    """(name, task, validation features) of one seed."""
    out = []
    file = f"{folder / 'caltech101_matched'}.safetensors"
    val = load_features(f"{file}#val").feature_set
    for shots in SHOTS:
        got = load_features(f"{file}#train_{shots}shot")
        task = FewShotTask(got.feature_set, got.text, got.logit_scale, seed)
        out.append((f"caltech101 {shots}", task, val))
    got = load_features(f"{folder / 'imagenet'}.safetensors#train_4shot")
    rows = got.feature_set
    folds = [f.held_out for f in stratified_folds(rows.labels, seed, enough=len(rows))]
    for shots in (1, 2, 3):
        fit, rest = torch.cat(folds[:shots]), torch.cat(folds[shots:])
        task = FewShotTask(rows.subset(fit), got.text, got.logit_scale, seed)
        out.append((f"imagenet {shots}", task, rows.subset(rest)))
    return out


def measure(recipe: str, task: FewShotTask, val: FeatureSet) -> float:
    """Accuracy in percent."""
    options = {"visual_ratio": 0.2} | RECIPES[recipe] if recipe != "zero-shot" else {}
    method = make_method("zero-shot" if recipe == "zero-shot" else "clip-adapter", options)
    hits = method.fit(task).logits(val).argmax(1) == val.labels
    return 100 * hits.float().mean().item()


def main() -> int:
    """Measures every recipe on every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    by_seed = [tasks(arguments.features, seed) for seed in SEEDS]
    names = [name for name, _, _ in by_seed[0]]
    lines = [
        "# How the fast recipe was chosen",
        "",
        "Accuracy in percent on validation data, mean of three seeds, ratio 0.2. Written by "
        "`benchmarks/recipe.py`. No test split is read; times are in REFERENCE.md.",
        "",
        "| recipe | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for recipe in RECIPES:
        cells = []
        for i in range(len(names)):
            got = [measure(recipe, *by_seed[s][i][1:]) for s in range(len(SEEDS))]
            cells.append(f"{statistics.mean(got):.2f}")
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
