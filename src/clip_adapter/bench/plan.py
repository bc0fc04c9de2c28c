"""``Plan``: a recipe as it was asked for, and what the data could not give.

It is kept beside the results, so that tables and figures need neither the data nor the words of
the call. Its runs follow from it, and are not kept. What recipes need of the data is counted and
fetched by them.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from clip_adapter.bench.data import Environment, Named, every_set, open_set
from clip_adapter.bench.digests import method_code, named_in, weights_of
from clip_adapter.bench.recipe import Model, Recipe, System, checked, load_recipe, recipe_names
from clip_adapter.bench.results import ZERO_SHOT, Run
from clip_adapter.datasets.catalog import get_benchmark, known_benchmark
from clip_adapter.datasets.download.get import fetch_benchmark
from clip_adapter.datasets.open import load_dataset
from clip_adapter.errors import ClipAdapterError, DataError, UsageError
from clip_adapter.files import write_file
from clip_adapter.methods import make_method, method_names
from clip_adapter.options import Dtype
from clip_adapter.reporting import log

FOLDER, FORMAT = "plans", 2


class LeftOut(Model):
    """What a data set cannot give: some ``shots``, or a ``system`` (its label)."""

    dataset: str
    reason: str
    system: str = ""
    shots: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.dataset}: {f'{self.system} left out, ' * bool(self.system)}{self.reason}"


class Plan(Model):
    """The resolved recipe.

    Attributes:
        format: of this version.
        recipe: with every data set named.
        dtype: of the backbone.
        data: {data set that can be read: digest of what it holds}.
        weights: {backbone: digest of its files or of its package's code, or ""}.
        code: {method of another package: digest of its code}.
        left_out: of the data sets that can be read.
        missing: {data set that cannot be read: the reason}.
    """

    format: Literal[2]
    recipe: Recipe
    dtype: Dtype = "float32"
    data: dict[str, str]
    weights: dict[str, str]
    code: dict[str, str] = Field(default_factory=dict)
    left_out: tuple[LeftOut, ...]
    missing: dict[str, str]

    def planned(self) -> Iterator[tuple[System, int, Run]]:
        """Every run, with its row and the number of a setting of the row's search.

        In the order of the tables; some are in several rows.
        """
        absent = {(out.dataset, what) for out in self.left_out for what in (out.system, *out.shots)}
        recipe = self.recipe
        for name, backbone, system, shots in itertools.product(
            self.data, self.weights, recipe.systems, recipe.shots
        ):
            if {(name, system.label), (name, shots)} & absent:
                continue
            learns = system.method != ZERO_SHOT
            many_views = learns and not system.plain and make_method(system.method).uses_views
            # What learns nothing has the same for every seed.
            seeds = recipe.seeds if learns else recipe.seeds[:1]
            settings = enumerate(system.settings(recipe.protocol))
            for (setting, options), seed in itertools.product(settings, seeds):
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
                    cost=recipe.cost.model_dump(exclude_unset=True) if recipe.costs else {},
                    dtype=self.dtype,
                    weights=self.weights[backbone],
                    code="".join(self.code.get(n, "") for n in named_in(system.method, options)),
                )
                yield system, setting, run

    def runs(self) -> dict[str, Run]:
        """Each run once, by its key."""
        return {run.key: run for _, _, run in self.planned()}


def make_plan(
    recipe: Recipe,
    data: Callable[[str], Named] = Named,
    dtype: Dtype = "float32",
    weights: Callable[[str], str] = weights_of,
) -> Plan:
    """What of ``recipe`` can be run.

    Args:
        recipe: what to run.
        data: a data set by name; costs read none.
        dtype: of the backbone.
        weights: the digest of a backbone by name.
    """
    identities, missing = dict[str, str](), dict[str, str]()
    left_out: list[LeftOut] = []
    for name in recipe.datasets:
        try:
            known = Named(name) if recipe.costs else data(name)
            identities[name] = known.identity
            left_out += _left_out(recipe, known)
        except ClipAdapterError as error:
            missing[name] = str(error)
    methods = {
        name
        for system in recipe.systems
        for options in (system.options, *system.settings("paper"))
        for name in named_in(system.method, options)
    } & {*method_names()}
    code = {name: digest for name in sorted(methods) if (digest := method_code(name))}
    return Plan(
        format=FORMAT,
        recipe=recipe,
        dtype=dtype,
        data=identities,
        weights={name: "" if recipe.costs else weights(name) for name in recipe.backbones},
        left_out=tuple(left_out),
        missing=missing,
        # Plans without such methods are the same bytes as ever.
        **({"code": code} if code else {}),
    )


def _left_out(recipe: Recipe, known: Named) -> Iterator[LeftOut]:
    if absent := tuple(k for k in recipe.shots if not known.has_shots(k)):
        yield LeftOut(
            dataset=known.name, reason=f"no {', '.join(map(str, absent))} shots", shots=absent
        )
    for system in recipe.systems:
        if reason := known.lacks(make_method(system.method, system.options), system.prompts):
            yield LeftOut(dataset=known.name, reason=reason, system=system.label)


def usual_profile(recipes: Sequence[str], overrides: Mapping[str, Any] | None = None) -> str:
    """The profile of recipes where none is named: "mine" if all are on data of one's own.

    It is "paper" where none is.

    Raises:
        UsageError: an unknown recipe, or some are and some are not.
    """
    own = {
        name: not any(known_benchmark(one) for one in recipe.datasets)
        for name in recipes
        if not (recipe := load_recipe(name, "mine", overrides)).costs
    }
    if len(set(own.values())) > 1:
        raise UsageError(
            f"{', '.join(n for n, mine in own.items() if mine)}: data of your own, beside "
            f"{', '.join(n for n, mine in own.items() if not mine)} on the paper's.",
            hint="Run them by two commands, or name the profile: --profile mine.",
        )
    return "mine" if True in own.values() else "paper"


def make_plans(
    recipes: Sequence[str],
    profile: str,
    environment: Environment,
    overrides: Mapping[str, Any] | None = None,
) -> list[Plan]:
    """The plan of every recipe; a data set that cannot be read is told in it.

    Args:
        recipes: names.
        profile: "paper", "demo", "features" or "mine".
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
        raise UsageError(
            f"The profile {profile!r} {'without' if profile == 'features' else 'with'} a folder of "
            "features.",
            allowed="--profile features together with --features DIR",
        )
    if profile == "features" and any(given.values()):
        raise UsageError(
            f"{', '.join(name for name, value in given.items() if value)} with ready-made features "
            "would change nothing.",
            hint="Leave it away.",
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
    if (
        profile in ("paper", "mine")
        and environment.root is None
        and any(
            known_benchmark(name)
            for recipe in loaded.values()
            if not recipe.costs
            for name in (*recipe.datasets, *recipe.shifts)
        )
    ):
        raise UsageError(
            "The paper's data sets are needed; say where they lie with --root.",
            allowed="--root DIR with the sets in CoOp's folders; 'clip-adapter data ls' lists them",
            hint="'clip-adapter data get NAME --root DIR' fetches one, --get those that are "
            "missing. '--profile demo' needs none.",
        )
    # Opened and digested once for all recipes of this call.
    make = functools.partial(
        make_plan,
        data=functools.cache(functools.partial(open_set, environment=environment)),
        dtype=environment.dtype,
        weights=functools.cache(weights_of),
    )
    return [
        make(recipe.model_copy(update={"datasets": every_set(recipe.datasets, environment)}))
        for recipe in loaded.values()
    ]


def save_plan(plan: Plan, out: Path) -> Path:
    """Write ``plan`` below ``out``, in the place of an earlier one of its recipe and protocol.

    Raises:
        DataError: it cannot be written.
    """
    name, protocol = plan.recipe.name, plan.recipe.protocol
    ending = "" if protocol == "ours" else f"-{protocol}"
    path = out / FOLDER / plan.recipe.profile / f"{name}{ending}.json"
    data = (plan.model_dump_json(indent=1, exclude_unset=True) + "\n").encode()
    known = path.is_file() and path.read_bytes() == data  # a full disk can hold it still
    return path if known else write_file(path, data)


def load_plans(out: Path) -> list[Plan]:
    """Every plan below ``out``: by profile, then in the order of the recipes.

    Raises:
        DataError: one is damaged.
    """
    plans: list[Plan] = []
    order = {name: number for number, name in enumerate(recipe_names())}
    for path in (out / FOLDER).glob("*/*.json"):
        try:
            plans.append(checked(Plan, path.read_bytes(), path.name))
        except (OSError, UsageError) as error:
            raise DataError(
                f"The plan {path} cannot be used: {error}",
                hint="Remove it, and run its recipe again: results that are there are kept.",
            ) from error
    return sorted(
        plans,
        key=lambda plan: (
            plan.recipe.profile,
            order.get(plan.recipe.name, len(order)),
            plan.recipe.name,
            plan.recipe.protocol,
        ),
    )


def effort(recipes: Sequence[str]) -> dict[str, Any]:
    """What ``recipes`` take on the real sets.

    Returns:
        runs (trainings, each once however many tables show it), pictures ({backbone: pictures
        through it, every view counted}), download (bytes of the archives whose size is known) and
        by_hand (sets that only a person can fetch, or whose size is not known).

    Raises:
        UsageError: an unknown recipe.
    """
    runs = {
        key: run
        for recipe in map(load_recipe, recipes)
        if not recipe.costs
        for key, run in make_plan(recipe).runs().items()
    }.values()
    tested: set[tuple[Any, ...]] = {
        (r.backbone, r.style, name) for r in runs for name in (r.dataset, *r.shifts)
    }
    trained = {(r.backbone, r.style, r.dataset, r.shots, r.views, r.seed) for r in runs}
    pictures: Counter[str] = Counter()
    for backbone, _, name, *drawn in tested | trained:
        known = get_benchmark(name)
        pictures[backbone] += known.classes * drawn[0] * drawn[1] if drawn else known.sizes["test"]
    names = sorted({name for _, _, name in tested})
    sizes = {name: get_benchmark(name).download_size for name in names}
    return {
        "runs": len(runs),
        "pictures": dict(pictures),
        "download": sum(filter(None, sizes.values())),
        "by_hand": [name for name, size in sizes.items() if size is None],
    }


def get_missing(
    recipes: Sequence[str], profile: str, root: str | None, overrides: Mapping[str, object]
) -> None:
    """Fetch the data sets that ``recipes`` need and that cannot be read below ``root``.

    Raises:
        UsageError: no root to put them in, or a wrong recipe.
        DataError: an archive cannot be fetched.
    """
    if root is None:
        raise UsageError("--get without --root.", hint="Name the folder for the data sets: --root.")
    wanted = dict.fromkeys(
        name
        for recipe in (load_recipe(name, profile, overrides) for name in recipes)
        for name in (*recipe.datasets, *recipe.shifts)
    )
    for name in filter(known_benchmark, wanted):
        try:
            load_dataset(name, root=root)
        except DataError:
            log.info(f"Fetching {name}.")
            for line in fetch_benchmark(name, root).to_do:
                log.info(f"{name}: {line}")
