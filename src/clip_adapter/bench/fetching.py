"""Downloads of the data sets that recipes need and that are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clip_adapter.bench.data import Place
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.datasets.catalog import known_benchmark
from clip_adapter.datasets.download.get import fetch_benchmark
from clip_adapter.datasets.open import load_dataset
from clip_adapter.errors import DataError, UsageError

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


def get_missing(
    recipes: Sequence[str],
    profile: str,
    place: Place,
    overrides: Mapping[str, Any],
    say: Say,
    progress: Progress,
) -> None:
    """Fetches what ``recipes`` read and cannot be read below ``place.root``.

    Raises:
        UsageError: no root to put it in, or a wrong recipe.
        DataError: an archive cannot be fetched.
    """
    if place.root is None:
        raise UsageError("--get without --root.", hint="Name the folder for the data sets: --root.")
    wanted: dict[str, None] = {}
    for name in recipes:
        recipe = load_recipe(name, profile, overrides)
        wanted |= dict.fromkeys([*recipe.datasets, *recipe.shifts])
    for name in filter(known_benchmark, wanted):
        try:
            load_dataset(name, root=place.root)
        except DataError:
            say(f"Fetching {name}.")
            for line in fetch_benchmark(name, place.root, say=say, progress=progress).to_do:
                say(f"{name}: {line}")
