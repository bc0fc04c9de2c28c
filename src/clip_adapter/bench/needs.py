"""What recipes need of the paper's data sets: how much it is, and fetching what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from clip_adapter.bench.data import Named
from clip_adapter.bench.plan import make_plan
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.datasets.catalog import get_benchmark, known_benchmark
from clip_adapter.datasets.download.get import fetch_benchmark
from clip_adapter.datasets.open import load_dataset
from clip_adapter.errors import DataError, UsageError
from clip_adapter.reporting import log

GIGABYTE = 1e9


def effort(recipes: Sequence[str]) -> dict[str, Any]:
    """What ``recipes`` take on the real sets.

    Returns:
        runs (trainings, each once however many tables show it), pictures ({backbone: pictures
        through it, every view counted}), download (bytes of the archives whose size is known) and
        by_hand (sets that only a person can fetch, or whose size is not known).

    Raises:
        UsageError: an unknown recipe.
    """
    plans = [make_plan(load_recipe(name, "paper"), Named) for name in recipes]
    every = {key: run for plan in plans for key, run in plan.runs().items()}
    runs = [run for run in every.values() if run.measure != "cost"]
    tested = {(r.backbone, r.style, name) for r in runs for name in (r.dataset, *r.shifts)}
    trained = {(r.backbone, r.style, r.dataset, r.shots, r.views, r.seed) for r in runs}
    pictures: Counter[str] = Counter()
    for backbone, _, name in tested:
        pictures[backbone] += get_benchmark(name).sizes["test"]
    for backbone, _, name, shots, views, _ in trained:
        pictures[backbone] += get_benchmark(name).classes * shots * views
    names = sorted({name for _, _, name in tested})
    sizes = {name: get_benchmark(name).download_size for name in names}
    return {
        "runs": len(runs),
        "pictures": dict(pictures),
        "download": sum(filter(None, sizes.values())),
        "by_hand": [name for name, size in sizes.items() if size is None],
    }


def in_words(needed: Mapping[str, Any]) -> list[str]:
    """Of :func:`effort`, for people."""
    through = [f"{n:,} through {name}" for name, n in sorted(needed["pictures"].items())]
    return [
        f"Disk:      {needed['download'] / GIGABYTE:.0f} GB of archives, about as much when they "
        f"are unpacked; besides {', '.join(needed['by_hand'])}, by hand or of unknown size.",
        f"Pictures:  {', '.join(through)}; each once, then its features are kept.",
        f"Runs:      {needed['runs']:,}.",
    ]


def get_missing(
    recipes: Sequence[str],
    profile: str,
    root: str | None,
    overrides: Mapping[str, object],
) -> None:
    """Fetch the data sets that ``recipes`` need and that cannot be read below ``root``.

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
            log.info(f"Fetching {name}.")
            for line in fetch_benchmark(name, root).to_do:
                log.info(f"{name}: {line}")
