"""What the paper's tables take on the real sets: downloads, pictures, runs, hours.

Hours are the paper's own (Table 1 and 10, an A100, ImageNet with 16 shots and 50 epochs), scaled to
the shots, classes and epochs of each run. They are an upper bound where our methods learn from
features that are made once; on a CPU, learnt prompts and towers take many times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clip_adapter.bench.recipe import load_recipe
from clip_adapter.bench.runs import Run, Unopened, plan
from clip_adapter.datasets.catalog import get_benchmark
from clip_adapter.training.loop import official_schedule

# Hours of one run: Table 1 for the first three, Table 10 for the towers.
PROBE, ADAPTER, COOP = 13 / 60, 50 / 60, 14 + 40 / 60
VISUAL_TOWER, TEXT_TOWER = 80 / 60, 3.0
IMAGENET, SHOTS, EPOCHS = 1000, 16, 50
GIGABYTE = 1e9
WIDEST = 4 * 1024  # bytes of a feature of ResNet-50; the others have half


@dataclass
class Effort:
    """What recipes take in the profile "paper".

    Attributes:
        runs: trainings, each once however many tables show it.
        pictures: {backbone: pictures through it}, every view counted.
        hours: on an A100, by the paper's times; embedding is not in them.
        download: bytes of the archives whose size is known.
        by_hand: sets that only a person can fetch, or whose size is not known.
    """

    runs: int = 0
    pictures: dict[str, int] = field(default_factory=dict)
    hours: float = 0.0
    download: int = 0
    by_hand: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        through = ", ".join(f"{n:,} through {name}" for name, n in sorted(self.pictures.items()))
        return [
            f"Disk:      {self.download / GIGABYTE:.0f} GB of archives, about as much when they "
            f"are unpacked; besides {', '.join(self.by_hand)}, by hand or of unknown size.",
            f"Pictures:  {through}; each once, then its features are kept, in at most "
            f"{sum(self.pictures.values()) * WIDEST / GIGABYTE:.0f} GB.",
            f"Runs:      {self.runs:,}.",
            f"Hours:     at most {self.hours:,.0f} of training on an A100, by the times of the "
            "paper's Table 1 and 10; less where we learn from kept features.",
        ]


def effort(recipes: Sequence[str]) -> Effort:
    """What ``recipes`` take on the real sets.

    Raises:
        UsageError: an unknown recipe.
    """
    plans = [plan(load_recipe(name, "paper"), Unopened) for name in recipes]
    runs = {run.key: run for p in plans for run in p.runs if run.measure != "cost"}
    made = Effort(len(runs))
    tested: set[tuple[str, str, str]] = set()
    trained: set[tuple[str, str, str, int, int, int]] = set()
    for run in runs.values():
        tested |= {(run.backbone, run.style, name) for name in (run.dataset, *run.shifts)}
        drawn = (run.backbone, run.style, run.dataset, run.shots, run.seed, run.views)
        trained.add(drawn)
        made.hours += _hours(run)
    for backbone, _, name in tested:
        _count(made, backbone, get_benchmark(name).sizes["test"])
    for backbone, _, name, shots, _, views in trained:
        _count(made, backbone, get_benchmark(name).classes * shots * views)
    for name in dict.fromkeys(name for _, _, name in sorted(tested)):
        sizes = [archive.size for archive in get_benchmark(name).archives]
        made.download += sum(size or 0 for size in sizes)
        if not sizes or None in sizes:
            made.by_hand.append(name)
    return made


def _count(made: Effort, backbone: str, pictures: int) -> None:
    made.pictures[backbone] = made.pictures.get(backbone, 0) + pictures


def _hours(run: Run) -> float:
    """Of one run, on an A100."""
    method, classes = run.instance(), get_benchmark(run.dataset).classes
    share = classes * run.shots / (IMAGENET * SHOTS)
    epochs = official_schedule(run.shots, classes).epochs or EPOCHS
    if method.reads == "images":
        text = str(run.options.get("tower", "")) in ("text", "both")
        return share * (TEXT_TOWER if text else VISUAL_TOWER)
    if method.runs_text_tower:  # every step runs the prompts of all classes
        return COOP * share * epochs / EPOCHS * classes / IMAGENET
    if run.method == "linear-probe":
        return PROBE * share
    if run.method.startswith("clip-adapter"):
        return ADAPTER * share * epochs / EPOCHS
    return 0.0
