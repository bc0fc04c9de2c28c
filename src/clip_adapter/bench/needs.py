"""What recipes need of the paper's data sets: how much it is, and fetching what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clip_adapter.bench.data import Named
from clip_adapter.bench.plan import make_plan
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.data.benchmarks import get_benchmark, known_benchmark
from clip_adapter.data.get import fetch_benchmark
from clip_adapter.data.load import load_dataset
from clip_adapter.errors import DataError, UsageError

GIGABYTE = 1e9


@dataclass
class Effort:
    """What recipes take in the profile "paper".

    Attributes:
        runs: trainings, each once however many tables show it.
        pictures: {backbone: pictures through it}, every view counted.
        download: bytes of the archives whose size is known.
        by_hand: sets that only a person can fetch, or whose size is not known.
    """

    runs: int
    pictures: dict[str, int]
    download: int
    by_hand: list[str]

    def lines(self) -> list[str]:
        """For people."""
        through = ", ".join(f"{n:,} through {name}" for name, n in sorted(self.pictures.items()))
        return [
            f"Disk:      {self.download / GIGABYTE:.0f} GB of archives, about as much when they "
            f"are unpacked; besides {', '.join(self.by_hand)}, by hand or of unknown size.",
            f"Pictures:  {through}; each once, then its features are kept.",
            f"Runs:      {self.runs:,}.",
        ]


def effort(recipes: Sequence[str]) -> Effort:
    """What ``recipes`` take on the real sets.

    Raises:
        UsageError: an unknown recipe.
    """
    plans = [make_plan(load_recipe(name, "paper"), Named) for name in recipes]
    runs = {key: run for p in plans for key, run in p.runs().items() if run.measure != "cost"}
    tested = {(r.backbone, r.style, name) for r in runs.values() for name in (r.dataset, *r.shifts)}
    trained = {(r.backbone, r.style, r.dataset, r.shots, r.views, r.seed) for r in runs.values()}
    pictures: Counter[str] = Counter()
    for backbone, _, name in tested:
        pictures[backbone] += get_benchmark(name).sizes["test"]
    for backbone, _, name, shots, views, _ in trained:
        pictures[backbone] += get_benchmark(name).classes * shots * views
    names = sorted({name for _, _, name in tested})
    sizes = {name: [a.size for a in get_benchmark(name).archives] for name in names}
    return Effort(
        len(runs),
        dict(pictures),
        sum(size or 0 for own in sizes.values() for size in own),
        [name for name, own in sizes.items() if not own or None in own],
    )


def get_missing(
    recipes: Sequence[str],
    profile: str,
    root: str | None,
    overrides: Mapping[str, object],
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> None:
    """Fetches the data sets that ``recipes`` need and that cannot be read below ``root``.

    Raises:
        UsageError: no root to put them in, or a wrong recipe.
        DataError: an archive cannot be fetched.
    """
    if root is None:
        raise UsageError("--get without --root.", hint="Name the folder for the data sets: --root.")
    loaded = [load_recipe(name, profile, overrides) for name in recipes]
    wanted = dict.fromkeys(name for r in loaded for name in (*r.datasets, *r.shifts))
    for name in filter(known_benchmark, wanted):
        try:
            load_dataset(name, root=root)
        except DataError:
            say(f"Fetching {name}.")
            for line in fetch_benchmark(name, root, say=say, progress=progress).to_do:
                say(f"{name}: {line}")
