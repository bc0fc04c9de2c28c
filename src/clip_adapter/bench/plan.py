"""``Plan``: a recipe as it was asked for, and what the data could not give.

It is kept beside the results, so that tables and figures need neither the data nor the words of
the call. Its runs follow from it, and are not kept.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from clip_adapter.backbones.names import files_of
from clip_adapter.bench.data import Environment, Named, every_set, open_set
from clip_adapter.bench.recipe import Model, Recipe, System, checked, load_recipe, recipe_names
from clip_adapter.bench.run import ZERO_SHOT, Run
from clip_adapter.datasets.catalog import known_benchmark
from clip_adapter.errors import ClipAdapterError, DataError, UsageError
from clip_adapter.features.store import content_digest
from clip_adapter.files import file_digest, write_file
from clip_adapter.methods import make_method
from clip_adapter.options import Dtype

FOLDER, FORMAT = "plans", 2


class LeftOut(Model):
    """What a data set cannot give: some ``shots``, or a ``system`` (its label)."""

    dataset: str
    reason: str
    system: str = ""
    shots: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = f"{self.system} left out, " if self.system else ""
        return f"{self.dataset}: {what}{self.reason}"


class Planned(NamedTuple):
    """A run and its place in the tables: a row's label, and the number of a setting."""

    label: str
    setting: int
    run: Run


class Plan(Model):
    """The resolved recipe.

    Attributes:
        format: of this version.
        recipe: with every data set named.
        dtype: of the backbone.
        data: {data set that can be read: digest of what it holds}.
        weights: {backbone: digest of its files, or ""}.
        left_out: of the data sets that can be read.
        missing: {data set that cannot be read: the reason}.
    """

    format: Literal[2]
    recipe: Recipe
    dtype: Dtype = "float32"
    data: dict[str, str]
    weights: dict[str, str]
    left_out: tuple[LeftOut, ...]
    missing: dict[str, str]

    def planned(self) -> Iterator[Planned]:
        """Every run of every row, in the order of the tables; some are in several rows."""
        absent = {(out.dataset, what) for out in self.left_out for what in (out.system, *out.shots)}
        for name in self.data:
            for backbone in self.weights:
                for system in self.recipe.systems:
                    for shots in self.recipe.shots:
                        if not {(name, system.label), (name, shots)} & absent:
                            yield from self._cell(system, name, backbone, shots)

    def runs(self) -> dict[str, Run]:
        """Each run once, by its key."""
        return {planned.run.key: planned.run for planned in self.planned()}

    def _cell(self, system: System, name: str, backbone: str, shots: int) -> Iterator[Planned]:
        """For each setting of the search, a run for each seed."""
        recipe, learns = self.recipe, system.method != ZERO_SHOT
        many_views = learns and not system.plain and make_method(system.method).uses_views
        costs = recipe.cost.model_dump(exclude_unset=True) if recipe.measure == "cost" else {}
        for setting, options in enumerate(system.settings(recipe.protocol)):
            # What learns nothing has the same for every seed.
            for seed in recipe.seeds if learns else recipe.seeds[:1]:
                run = Run(
                    profile=recipe.profile,
                    measure=recipe.measure,
                    dataset=name,
                    data=self.data[name],
                    backbone=backbone,
                    style=recipe.style,
                    views=recipe.views if many_views else 1,
                    prompts=system.prompts,
                    method=system.method,
                    options=options,
                    shots=shots,
                    seed=seed,
                    shifts=recipe.shifts,
                    protocol=recipe.protocol,
                    cost=costs,
                    dtype=self.dtype,
                    weights=self.weights[backbone],
                )
                yield Planned(system.label, setting, run)


@functools.lru_cache(maxsize=64)
def _digest(files: tuple[tuple[Path, int], ...]) -> str:
    digests = [(path.name, file_digest(path)) for path, _ in files]
    return content_digest(json.dumps(digests).encode()) if digests else ""


def weights_of(backbone: str) -> str:
    """Digest of the files of ``backbone``; "" where it is known by its name alone."""
    return _digest(tuple((path, path.stat().st_mtime_ns) for path in files_of(backbone)))


def make_plan(recipe: Recipe, data: Callable[[str], Named], dtype: Dtype = "float32") -> Plan:
    """What of ``recipe`` can be run.

    Args:
        recipe: what to run.
        data: a data set by name.
        dtype: of the backbone.
    """
    identities, missing = dict[str, str](), dict[str, str]()
    left_out: list[LeftOut] = []
    costs = recipe.measure == "cost"  # it reads no data
    for name in recipe.datasets:
        try:
            known = Named(name) if costs else data(name)
            identities[name] = known.identity
        except ClipAdapterError as error:
            missing[name] = str(error)
        else:
            left_out += _left_out(recipe, known)
    return Plan(
        format=FORMAT,
        recipe=recipe,
        dtype=dtype,
        data=identities,
        weights={name: "" if costs else weights_of(name) for name in recipe.backbones},
        left_out=tuple(left_out),
        missing=missing,
    )


def _left_out(recipe: Recipe, known: Named) -> Iterator[LeftOut]:
    if absent := tuple(k for k in recipe.shots if not known.has_shots(k)):
        reason = f"no {', '.join(map(str, absent))} shots"
        yield LeftOut(dataset=known.name, reason=reason, shots=absent)
    for system in recipe.systems:
        reason = known.lacks(make_method(system.method, system.options))
        if system.prompts and not known.takes_prompts:
            reason = "its text weights are given, so other prompts would change nothing"
        if reason:
            yield LeftOut(dataset=known.name, reason=reason, system=system.label)


def make_plans(
    recipes: Sequence[str],
    profile: str,
    environment: Environment,
    overrides: Mapping[str, Any] | None = None,
) -> list[Plan]:
    """The plan of every recipe; a data set that cannot be read is told in it.

    Args:
        recipes: names.
        profile: "paper", "demo" or "features".
        environment: where data is.
        overrides: keys of :class:`Recipe`, stronger than the files.

    Raises:
        UsageError: an unknown recipe or profile, features without the profile for them, or two
            recipes of one name.
    """
    given = {
        "--backbone": (overrides or {}).get("backbones"),
        "--dtype": environment.dtype != "float32",
        "--root": environment.root,
    }
    if (profile == "features") != (environment.features is not None):
        word = "without" if profile == "features" else "with"
        raise UsageError(
            f"The profile {profile!r} {word} a folder of features.",
            allowed="--profile features together with --features DIR",
        )
    if profile == "features" and any(given.values()):
        words = ", ".join(name for name, value in given.items() if value)
        raise UsageError(
            f"{words} with ready-made features would change nothing.", hint="Leave it away."
        )
    loaded = {name: load_recipe(name, profile, overrides) for name in recipes}
    by_name: dict[str, str] = {}
    for path, recipe in loaded.items():
        # Some file systems do not tell case.
        if (other := by_name.setdefault(recipe.name.lower(), path)) != path:
            raise UsageError(
                f"{other} and {path} are both called {recipe.name.lower()!r}, and plans and tables "
                "are called by the name.",
                hint="Rename one of the files.",
            )
    named = {d for r in loaded.values() for d in (*r.datasets, *r.shifts) if r.measure != "cost"}
    if profile == "paper" and environment.root is None and any(map(known_benchmark, named)):
        raise UsageError(
            "The paper's data sets are needed, and not said is where they lie.",
            allowed="--root DIR with the sets in CoOp's folders; 'clip-adapter data ls' lists them",
            hint="'clip-adapter data get NAME --root DIR' fetches one, --get those that are "
            "missing. '--profile demo' needs none.",
        )
    # Opened once for all recipes of this call.
    data = functools.cache(lambda name: open_set(name, environment))
    return [
        make_plan(
            recipe.model_copy(update={"datasets": every_set(recipe.datasets, environment)}),
            data,
            environment.dtype,
        )
        for recipe in loaded.values()
    ]


def save_plan(plan: Plan, out: Path) -> Path:
    """Write ``plan`` below ``out``, in the place of an earlier one of its recipe and protocol.

    Raises:
        DataError: it cannot be written.
    """
    recipe = plan.recipe
    ending = "" if recipe.protocol == "ours" else f"-{recipe.protocol}"
    path = out / FOLDER / recipe.profile / f"{recipe.name}{ending}.json"
    data = (plan.model_dump_json(indent=1, exclude_unset=True) + "\n").encode()
    known = path.is_file() and path.read_bytes() == data
    return path if known else write_file(path, data)


def load_plans(out: Path) -> list[Plan]:
    """Every plan below ``out``: by profile, then in the order of the recipes.

    Raises:
        DataError: one is damaged.
    """
    plans: list[Plan] = []
    for path in sorted((out / FOLDER).glob("*/*.json")):
        try:
            plans.append(checked(Plan, path.read_bytes(), path.name))
        except (OSError, UsageError) as error:
            raise DataError(
                f"The plan {path} cannot be used: {error}",
                hint="Remove it, and run its recipe again: results that are there are kept.",
            ) from error
    order = {name: number for number, name in enumerate(recipe_names())}

    def place(plan: Plan) -> tuple[str, int, str, str]:
        recipe = plan.recipe
        return recipe.profile, order.get(recipe.name, len(order)), recipe.name, recipe.protocol

    return sorted(plans, key=place)
