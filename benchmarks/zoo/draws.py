"""A draw of a cell: a few-shot task, and the test pictures of its classes."""

from __future__ import annotations

import json
import math
import random
from functools import cache
from pathlib import Path

import torch
from cells import DOGS, DRAWS, SETS, TEST_PICTURES, Cell
from safetensors import safe_open
from torch import Tensor

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.nn import normalize


@cache
def _file(folder: Path, dataset: str) -> tuple[dict[str, Tensor], list[str]]:
    with safe_open(folder / f"{dataset}.safetensors", "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - no mapping
        return tensors, json.loads(file.metadata()["classes"])


def _shots(cell: Cell) -> str:
    return SETS[cell.dataset, cell.kind].shots


def subsets(folder: Path, cell: Cell) -> list[list[int]]:
    """Disjoint subsets of the classes, as many as it takes to reach ``TEST_PICTURES``."""
    tensors, names = _file(folder, cell.dataset)
    known = list(DOGS) if cell.group == "dogs" else list(range(len(names)))
    size = min(cell.classes or len(known), len(known))
    random.Random(cell.seed("classes")).shuffle(known)
    test = tensors[f"{SETS[cell.dataset, cell.kind].test}.labels"]
    per_class = torch.bincount(test, minlength=len(names)).float().mean().item()
    wanted = math.ceil(TEST_PICTURES / (per_class * size))
    return [known[i * size : (i + 1) * size] for i in range(min(wanted, len(known) // size))]


def count_draws(folder: Path, cell: Cell) -> int:
    """How many draws the cell pools: each subset equally often."""
    groups = len(subsets(folder, cell))
    return groups * math.ceil(DRAWS / groups)


def draw(folder: Path, cell: Cell, number: int) -> tuple[FewShotTask, FeatureSet, list[int]]:
    """Draw ``number``: the task, its test pictures, and their rows in the file."""
    tensors, names = _file(folder, cell.dataset)
    groups = subsets(folder, cell)
    chosen = groups[number % len(groups)]
    rng = random.Random(cell.seed(cell.kind, cell.shots, cell.departure, number))
    rows = SETS[cell.dataset, cell.kind]
    pool = tensors[f"{rows.shots}.labels"]
    order = list(range(len(chosen)))
    rng.shuffle(order)
    counts = cell.counts(len(chosen), order)
    picked: list[int] = []
    labels: list[int] = []
    for new, (old, count) in enumerate(zip(chosen, counts, strict=True)):
        own = torch.nonzero(pool == old).flatten().tolist()
        some = rng.sample(own, min(count, len(own)))
        picked += some
        labels += [new] * len(some)
    if cell.departure.startswith("wrong"):
        share = int(cell.departure.split("-")[1]) / 100
        for row in rng.sample(range(len(labels)), round(share * len(labels))):
            others = [c for c in range(len(chosen)) if c != labels[row]]
            labels[row] = rng.choice(others)
    class_names = [names[c] for c in chosen]
    text = tensors.get("text")
    if text is not None:
        text = text[chosen].float()
        if cell.departure == "permuted-text":
            shift = list(range(len(chosen)))
            rng.shuffle(shift)
            text = text[shift]
    train = FeatureSet(
        normalize(tensors[f"{rows.shots}.features"][picked].float()),
        torch.tensor(labels),
        class_names,
        digests=[f"{_shots(cell)}-{row}" for row in picked],
        feature_norm="unit",
    )
    place = {old: new for new, old in enumerate(chosen)}
    all_labels = tensors[f"{rows.test}.labels"].tolist()
    test_rows = [i for i, label in enumerate(all_labels) if label in place]
    test = FeatureSet(
        normalize(tensors[f"{rows.test}.features"][test_rows].float()),
        torch.tensor([place[all_labels[i]] for i in test_rows]),
        class_names,
        feature_norm="unit",
    )
    return FewShotTask(train, text, 100.0, seed=1 + number), test, test_rows
