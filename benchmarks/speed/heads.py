"""How fast heads train, beside the official recipe's plain loop and scikit-learn.

    OMP_NUM_THREADS=2 python benchmarks/speed/heads.py --features ../shared/clip_features

Each row divides things that were measured in turns, on ImageNet's features at 4 shots (the folder
holds ``imagenet.safetensors``), or on random features of its size at 16. The loop is the plainest
that trains by the recipe: SGD 2e-3, batches of 32, 50 epochs, a cosine by epochs after one of
warm-up, ratio 0.2, both ReLUs.
"""

from __future__ import annotations

import functools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Table, arguments, machine
from gpu import imagenet
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features
from clip_adapter.heads import score_rows
from clip_adapter.methods import make_method
from clip_adapter.options import Compute
from clip_adapter.task import FewShotTask
from clip_adapter.training.loop import WORTH_A_CARD

SEEDS = (1, 2, 3, 4, 5)
EPOCHS, BATCH, RATE, WARM_UP, RATIO = 50, 32, 2e-3, 1e-5, 0.2
# How often as fast as the loop they should be.
OURS = {"clip-adapter": 25, "auto": 3}


class Adapter(nn.Module):
    """The official adapter."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, dim // 4, bias=False),
            nn.ReLU(),
            nn.Linear(dim // 4, dim, bias=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return RATIO * self.layers(x) + (1 - RATIO) * x


def plain_loop(task: FewShotTask, seed: int, device: str, epochs: int = EPOCHS) -> nn.Module:
    """The official recipe on features that are there."""
    torch.manual_seed(seed)
    x, y = task.train.plain_view.to(device), task.train.labels.to(device)
    text = functional.normalize(task.require_text("the loop"), dim=-1).to(device)
    adapter = Adapter(task.train.dim).to(device)
    optimizer = torch.optim.SGD(adapter.parameters(), RATE, momentum=0.9, weight_decay=5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        if epoch == 0:
            optimizer.param_groups[0]["lr"] = WARM_UP
        elif epoch == 1:
            optimizer.param_groups[0]["lr"] = RATE
        order = torch.randperm(len(x), device=device)
        for rows in order.split(BATCH):
            if len(rows) < BATCH:
                break
            features = functional.normalize(adapter(x[rows]), dim=-1)
            loss = functional.cross_entropy(task.logit_scale * features @ text.T, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch > 0:
            cosine.step()
    if device != "cpu":
        torch.cuda.synchronize()
    return adapter


def regression(task: FewShotTask) -> LogisticRegression:
    """The linear probe as CLIP trains it, at scikit-learn's own C."""
    x = functional.normalize(task.train.plain_view, dim=-1)
    return LogisticRegression(max_iter=1000).fit(x.numpy(), task.train.labels.numpy())


def read(folder: Path | None, small: bool, device: str) -> tuple[FewShotTask, FeatureSet | None]:
    """The task, and pictures to score where there are any."""
    compute = Compute(device=device)
    if folder is None:
        task = imagenet(20, 4, 64) if small else imagenet(1000)
        return FewShotTask(task.train, task.text_weights, compute=compute), None
    train = load_features(f"{folder / 'imagenet.safetensors'}#train_4shot")
    test = load_features(f"{folder / 'imagenet.safetensors'}#eval_4shot")
    task = FewShotTask(train.feature_set, train.text, train.logit_scale, compute=compute)
    return task, test.feature_set


def accuracy(task: FewShotTask, test: FeatureSet, epochs: int, device: str) -> dict[str, Any]:
    """Percent right of ``test``, by seed."""
    text = functional.normalize(task.require_text("the loop"), dim=-1)
    rows: dict[str, list[float]] = {name: [] for name in ("official loop", *OURS)}

    def percent(logits: Tensor) -> float:
        return 100 * (logits.argmax(-1) == test.labels).float().mean().item()

    for seed in SEEDS:
        adapter = plain_loop(task, seed, device, epochs).cpu()
        with torch.inference_mode():
            mapped = functional.normalize(adapter(test.plain_view), dim=-1)
        rows["official loop"].append(percent(mapped @ text.T))
        own = FewShotTask(
            task.train, task.text_weights, task.logit_scale, seed, compute=task.compute
        )
        for name in OURS:
            head = make_method(name).fit(own).head
            rows[name].append(percent(score_rows(head, test.plain_view, test.feature_norm)))
        print(f"seed {seed}: " + ", ".join(f"{n} {v[-1]:.2f}" for n, v in rows.items()), flush=True)
    return {name: {"mean": statistics.mean(v), "by seed": v} for name, v in rows.items()}


def calls(table: Table, rounds: int) -> None:
    """A step that computes next to nothing, and what a core multiplies in that time."""
    labels = torch.arange(40) % 4
    train = FeatureSet(torch.randn(40, 16), labels, list("abcd"))
    tiny = FewShotTask(train, torch.randn(4, 16))
    steps = 200
    method = make_method("clip-adapter", {"visual_ratio": RATIO, "steps": steps})
    side = 64
    left = torch.randn(side, WORTH_A_CARD // side // side)
    right = torch.randn(left.shape[1], side)

    def products() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for _ in range(3 * steps):  # forward, and both gradients
            torch.mm(left, right)
        torch.set_num_threads(threads)

    things = {"a step of a tiny head": lambda: method.fit(tiny), "its products at most": products}
    table.measure("what a card has to beat, steps", steps, things, rounds)


def main() -> None:
    """Measure, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--features", type=Path, help="the folder with imagenet.safetensors")
    parser.add_argument("--accuracy", action="store_true", help="score five seeds too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    small, device = options.small, options.device
    rounds, epochs = (1, 1) if small else (options.rounds, EPOCHS)
    task, test = read(options.features, small, device)
    name = "ImageNet, 4 shots" if options.features else f"random, {len(task.train)} pictures"
    title, table = f"{name}, {torch.get_num_threads()} threads, {device}", Table()
    for ours, times in OURS.items():
        things = {
            ours: functools.partial(make_method(ours).fit, task),
            "official loop": functools.partial(plain_loop, task, 1, device, epochs),
        }
        # Neither is run to warm up but by a short one: the loop takes as long as all else.
        make_method(ours).fit(task)
        plain_loop(task, 1, device, 1)
        least = {"official loop": times}
        table.measure(f"{title}: {ours}", 1, things, rounds, warm=False, least=least)
    first = next(iter(OURS))
    things = {
        first: functools.partial(make_method(first).fit, task),
        "scikit-learn's regression": functools.partial(regression, task),
    }
    table.measure(f"{title}: {first}", 1, things, rounds, warm=False)
    calls(table, rounds)
    scores = accuracy(task, test, epochs, device) if options.accuracy and test else {}
    table.write(None)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": machine(), "rows": table.rows, "accuracy": scores}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    for what, found in scores.items():
        spread = np.ptp(found["by seed"])
        print(f"{what}: {found['mean']:.2f} % of {len(SEEDS)} seeds, spread {spread:.2f}")


if __name__ == "__main__":
    main()
