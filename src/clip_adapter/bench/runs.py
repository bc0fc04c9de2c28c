"""``Run``: one training and its scores, told by all that decides them; and a recipe's plan."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from clip_adapter.backbones.names import files_of
from clip_adapter.bench.recipe import Measure, Recipe, System, candidates
from clip_adapter.bench.recipe import Protocol as ProtocolName
from clip_adapter.errors import ClipAdapterError
from clip_adapter.features.store import content_digest
from clip_adapter.files import file_digest
from clip_adapter.methods import Method, make_method
from clip_adapter.options import Dtype

ZERO_SHOT = "zero-shot"
# Runs that are trained in one pass: bounds what a kill can cost, and the memory.
MOST_TOGETHER = 24


@dataclass(frozen=True)
class Run:
    """What is done once.

    Attributes:
        profile: of the recipe.
        measure: what is measured.
        dataset: its name.
        data: digest of what it holds, as far as it is cheap to know.
        backbone: name; "" where ready-made features tell it.
        style: preprocessing.
        views: augmented views of each shot.
        prompts: templates in place of the data set's; () are its own.
        method: its name.
        options: of the method, as the recipe gives them.
        shots: K.
        seed: of draw and training.
        shifts: further test sets.
        protocol: how what is reported was chosen.
        cost: settings of the measure "cost".
        dtype: of the backbone.
        weights: digest of the backbone's files, where its name is a path; else "".
    """

    profile: str
    measure: Measure
    dataset: str
    data: str
    backbone: str
    style: str
    views: int
    prompts: tuple[str, ...]
    method: str
    options: Mapping[str, Any]
    shots: int
    seed: int
    shifts: tuple[str, ...] = ()
    protocol: ProtocolName = "ours"
    cost: Mapping[str, Any] = field(default_factory=dict)
    dtype: Dtype = "float32"
    weights: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; without ``dtype`` and ``weights`` where they are the usual ones."""
        found = dataclasses.asdict(self)
        for name, usual in (("dtype", "float32"), ("weights", "")):
            if found[name] == usual:
                del found[name]
        return found | {k: list(found[k]) for k in ("prompts", "shifts")}

    @functools.cached_property
    def key(self) -> str:
        """A digest of everything in it."""
        return content_digest(json.dumps(self.to_dict(), sort_keys=True).encode())

    @property
    def title(self) -> str:
        """For people."""
        options = ", ".join(f"{k}={v}" for k, v in self.options.items())
        named = f"{self.method} ({options})" if options else self.method
        words = [f"{self.dataset} ({self.backbone}, {self.style})", named]
        words += [f"{self.shots} shots", f"seed {self.seed}"]
        if self.prompts:
            words.append(f"prompts {' / '.join(self.prompts)}")
        words += [] if self.views == 1 else [f"{self.views} views"]
        words += [] if self.protocol == "ours" else [f"protocol {self.protocol}"]
        return ", ".join(words)

    @property
    def path(self) -> str:
        """Of its result, below the folder of results; readable, and its own."""
        words = [self.method, *(f"{k}-{v}" for k, v in self.options.items())]
        words += [f"{self.shots}shot", f"seed{self.seed}", self.key[:12]]
        dataset, *parts = (re.sub(r"[^\w.+-]", "-", str(word)) for word in (self.dataset, *words))
        name = "_".join(part[:40] for part in parts)
        return f"{self.profile}/{dataset}/{name}.json"

    def instance(self) -> Method:
        """The method with its options."""
        return make_method(self.method, self.options)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Run:
        """What :meth:`to_dict` gave.

        Raises:
            TypeError, KeyError: other keys.
        """
        return cls(**{**found, **{k: tuple(found[k]) for k in ("prompts", "shifts")}})


class Known(Protocol):
    """A data set, as far as planning needs to know it."""

    name: str
    takes_prompts: bool  # its text weights are made from prompts

    def identity(self) -> str:
        """Digest of what it holds."""
        ...

    def shots(self, wanted: Iterable[int]) -> list[int]:
        """Those of ``wanted`` that it can give."""
        ...

    def lacks(self, method: Method) -> str:
        """Why ``method`` cannot run on it; "" where it can."""
        ...


class Unopened:
    """In the place of a data set that need not be there: to measure costs, or to count runs."""

    takes_prompts = True

    def __init__(self, name: str) -> None:
        self.name = name

    def identity(self) -> str:
        """Nothing is known of it."""
        return ""

    def shots(self, wanted: Iterable[int]) -> list[int]:
        """All of them."""
        return list(wanted)

    def lacks(self, method: Method) -> str:
        """Nothing."""
        return ""


@dataclass
class Plan:
    """The runs of a recipe, and what was left out with the reason."""

    recipe: Recipe
    runs: list[Run] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    # Data sets that cannot be read, with the reason.
    missing: dict[str, str] = field(default_factory=dict)
    # {(label of the system, data set, backbone, shots): runs, by candidate of the search}
    cells: dict[tuple[str, str, str, int], list[list[Run]]] = field(default_factory=dict)


def weights_of(backbone: str) -> str:
    """Digest of the files of ``backbone``; "" where it is known by its name alone."""
    files = [(path.name, file_digest(path)) for path in files_of(backbone)]
    return content_digest(json.dumps(files).encode()) if files else ""


def plan(
    recipe: Recipe,
    data: Callable[[str], Known],
    dtype: Dtype = "float32",
    weights: Callable[[str], str] = weights_of,
) -> Plan:
    """Every run of ``recipe``.

    Args:
        recipe: what to run.
        data: a data set by name.
        dtype: of the backbone.
        weights: digest of a backbone's files by its name.
    """
    made, told = Plan(recipe), dict[str, None]()
    names = recipe.backbones or ("",)
    backbones = [(name, "" if recipe.measure == "cost" else weights(name)) for name in names]
    for name in recipe.datasets:
        try:
            known = Unopened(name) if recipe.measure == "cost" else data(name)
            identity = known.identity()
        except ClipAdapterError as error:
            made.missing[name] = str(error)
            continue
        shots = known.shots(recipe.shots)
        if missing := [k for k in recipe.shots if k not in shots]:
            told[f"{name}: no {', '.join(map(str, missing))} shots"] = None
        for named in backbones:
            for system in recipe.systems:
                method = make_method(system.method, system.options)
                reason = known.lacks(method)
                if system.prompts and not known.takes_prompts:
                    reason = "its text weights are given, so other prompts would change nothing"
                if reason:
                    told[f"{name}: {system.label} left out, {reason}"] = None
                    continue
                for k in shots:
                    cell = _cell(recipe, system, method, (name, identity), named, k, dtype)
                    made.cells[system.label, name, named[0], k] = cell
    runs = [run for cell in made.cells.values() for seeds in cell for run in seeds]
    made.runs = list({run.key: run for run in runs}.values())
    made.left_out = list(told)
    return made


def _cell(
    recipe: Recipe,
    system: System,
    method: Method,
    data: tuple[str, str],
    backbone: tuple[str, str],
    shots: int,
    dtype: Dtype,
) -> list[list[Run]]:
    """For each candidate of the search, a run for each seed.

    ``data`` is a name and its identity, ``backbone`` a name and the digest of its files.
    """
    searched = recipe.protocol == "paper" and bool(system.search)
    settings = candidates(system) if searched else [dict(system.options)]
    # It learns nothing: every seed gives the same.
    seeds = recipe.seeds[:1] if system.method == ZERO_SHOT else recipe.seeds
    takes_views = method.uses_views and not system.plain and system.method != ZERO_SHOT
    return [
        [
            Run(
                profile=recipe.profile,
                measure=recipe.measure,
                dataset=data[0],
                data=data[1],
                backbone=backbone[0],
                style=recipe.style,
                views=recipe.views if takes_views else 1,
                prompts=system.prompts,
                method=system.method,
                options=options,
                shots=shots,
                seed=seed,
                shifts=recipe.shifts,
                protocol=recipe.protocol,
                cost=recipe.cost if recipe.measure == "cost" else {},
                dtype=dtype,
                weights=backbone[1],
            )
            for seed in seeds
        ]
        for options in settings
    ]


def units(runs: Iterable[Run]) -> list[list[Run]]:
    """``runs`` in groups that are trained in one pass; most are alone."""
    found: dict[Hashable, list[Run]] = {}
    for number, run in enumerate(runs):
        own = run.instance().together_key() if run.measure == "accuracy" else None
        shared = {k: v for k, v in run.to_dict().items() if k not in ("options", "seed")}
        # Methods of one name are of one class.
        key = number if own is None else (json.dumps(shared, sort_keys=True), own)
        found.setdefault(key, []).append(run)
    return [
        group[start : start + MOST_TOGETHER]
        for group in found.values()
        for start in range(0, len(group), MOST_TOGETHER)
    ]
