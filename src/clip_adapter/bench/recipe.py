"""``Recipe``: an experiment as a small difference from the defaults, read from TOML.

What is not said is taken from the file before it, in this order, the later ones stronger:

1. ``defaults.toml``
2. the recipe's file
3. ``[profile.NAME]`` of ``defaults.toml``: what an experiment becomes on other data; ``shots`` and
   ``seeds`` are the recipe's where it writes them
4. ``[profile.NAME]`` of the recipe's file
5. the command line

``[options.METHOD]`` holds options of a method wherever it is a system, weaker than the system's
own: so a profile can take the paper's training recipe and leave the rows as they are. A stronger
``[options.METHOD]`` takes the place of a weaker one of the same method.
"""

from __future__ import annotations

import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clip_adapter.datasets.templates import resolve_templates
from clip_adapter.errors import DataError, UsageError, unknown_name
from clip_adapter.files import read_text
from clip_adapter.methods import make_method
from clip_adapter.options import Preprocess
from clip_adapter.reporting import log
from clip_adapter.wording import listed

Profile = Literal["paper", "demo", "features", "mine"]
SelectionRule = Literal["ours", "paper"]
Measure = Literal["accuracy", "cost", "tsne"]

DEFAULTS = "defaults"
# What is drawn says nothing of the data: a profile of the defaults leaves a recipe's own.
DRAWS = ("shots", "seeds")
WORDS = {"string_pattern_mismatch": "text that is not empty"}  # what pydantic would call a pattern


def _each_once(value: Any) -> Any:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(v for i, v in enumerate(values) if v not in values[:i])


def _labelled_apart(systems: tuple[System, ...]) -> tuple[System, ...]:
    if len({system.label for system in systems}) == len(systems):
        return systems
    raise PydanticCustomError("label", "a label for each system, and no two with one label")


Text = Annotated[str, Field(pattern=r"\S")]
Natural = Annotated[int, Field(ge=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_each_once)]
Names = Annotated[Texts, Field(min_length=1)]
Shots = Annotated[tuple[Natural, ...], BeforeValidator(_each_once), Field(min_length=1)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_each_once), Field(min_length=1)
]


class Model(BaseModel):
    """What a file holds: exact types, no unknown key, unchangeable."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)


class System(Model):
    """One row of a table.

    Attributes:
        label: as the table shows it, and as the published figures call it.
        method: one of ``clip-adapter ls methods``.
        options: of the method; what is not given is its default, or chosen on the shots.
        search: {option: values}, one option. With protocol "paper" each value is trained and the
            best on the test set is reported; with "ours" the method finds its own.
        prompts: templates in place of the data set's.
        plain: it learns from the plain pictures, whatever the recipe's ``views``.
        of: name in the published few-shot figures, where it is there.
    """

    label: Text
    method: str
    options: dict[str, Any] = {}
    search: Annotated[
        dict[str, Annotated[list[Any], Field(min_length=1)]], Field(max_length=1)
    ] = {}
    prompts: Texts = ()
    plain: bool = False
    of: str = ""

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> System:
        """With the options of its method that are given in common, all of them checked."""
        options = (info.context or {}).get(self.method, {}) | self.options
        own = self.model_copy(update={"options": options})
        try:
            for options in (own.options, *own.settings("paper")):
                make_method(own.method, options)
            resolve_templates(own.prompts or None)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return own

    def settings(self, protocol: SelectionRule) -> list[dict[str, Any]]:
        """The options of every setting that is trained: one, or those of the search."""
        if protocol == "ours" or not self.search:
            return [self.options]
        return [{**self.options, key: v} for key, values in self.search.items() for v in values]


def _each_fits(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for method, values in options.items():
        try:
            make_method(method, values)
        except UsageError as error:
            raise ValueError(f"options: {error}") from error
    return options


class Part(BaseModel):
    """A part of a recipe: keys of :class:`Recipe`, and options by method."""

    model_config = ConfigDict(strict=True, extra="allow")

    options: Annotated[dict[str, dict[str, Any]], AfterValidator(_each_fits)] = {}


class File(Part):
    """The content of a recipe's file."""

    profile: dict[Profile, Part] = {}


class CostSettings(Model):
    """What the measure "cost" times.

    Attributes:
        backbone: a name; random weights will do.
        classes: C.
        shots: K.
        seconds: a longer training is timed for so long.
        batch: pictures at once when answering.
        repeats: batches of which the fastest counts.
    """

    backbone: str = "RN50/random"
    classes: Natural = 1000
    shots: Natural = 16
    seconds: Annotated[float, Field(ge=0)] = 60.0
    batch: Natural = 16
    repeats: Natural = 3


class Recipe(Model):
    """One table or figure, resolved.

    Attributes:
        name: of the file.
        profile: "paper", "demo", "features", or "mine" (data sets of one's own).
        title: above the table.
        source: where in the paper, such as "Table 5"; "" for our own.
        note: what a reader should know, in a sentence or two.
        measure: "accuracy"; "cost" (seconds and memory); "tsne" (features in the plane).
        protocol: "ours": all is chosen on the shots; "paper": the best on the test set.
        datasets: names, or "all" with the profile "features". In a file one may also be
            ``{ data = "photos/", label = "My photos" }``.
        labels: {data set: as tables and figures show it}, of those that have a label.
        backbones: names as in ``--backbone``.
        style: preprocessing, "clip" or "coop".
        views: augmented views of each shot, for methods that learn from a fixed number of them.
        shots: numbers K.
        seeds: of draw and training.
        shifts: further test sets of each run, such as ImageNetV2.
        systems: the rows.
        columns: what is beside each other.
        figure: what is drawn.
        like: {data set here: data set of the paper} whose figures are shown beside, without a
            difference: another set, or another backbone.
        cost: settings of the measure "cost".
    """

    name: Annotated[Text, Field(pattern=r"^[^/\\]+$")]
    profile: Profile
    title: Text
    source: str = ""
    note: str = ""
    measure: Measure = "accuracy"
    protocol: SelectionRule = "ours"
    datasets: Names
    labels: dict[str, Text] = {}
    backbones: Names
    style: Preprocess = "clip"
    views: Natural = 1
    shots: Shots = (16,)
    seeds: Seeds = (1, 2, 3)
    shifts: Texts = ()
    systems: Annotated[
        tuple[System, ...],
        AfterValidator(_labelled_apart),
        Field(min_length=1, strict=False),
    ]
    columns: Literal["dataset", "backbone", "shots", "shift", "cost"] = "dataset"
    figure: Literal["none", "shots", "gains", "branches", "tsne"] = "none"
    like: dict[str, str] = {}
    cost: CostSettings = CostSettings()

    @property
    def costs(self) -> bool:
        """Whether seconds and memory are measured; that reads no data."""
        return self.measure == "cost"

    @property
    def heading(self) -> str:
        """Where it is in the paper, and its title."""
        return f"{self.source}: {self.title}" if self.source else self.title


def shipped(folder: str) -> Path:
    """The folder ``recipes`` or ``published``: beside this code, or in ``benchmarks/`` of a clone.

    Raises:
        DataError: the installation is not whole.
    """
    here = Path(__file__).parent
    for path in (here / folder, here.parents[2] / "benchmarks" / folder):
        if path.is_dir():
            return path
    raise DataError(f"{here / folder} is missing.", hint="Install clip-adapter again.")


def recipe_names() -> list[str]:
    """Names of all recipes: tables first, then figures, in the paper's order."""
    names = {path.stem for path in shipped("recipes").glob("*.toml")} - {DEFAULTS}
    return sorted(names, key=lambda n: (n[:5] != "table", n[:6] != "figure", len(n), n))


def load_recipe(
    name: str, profile: str = "paper", overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe ``name``, or the one in the file ``name`` (ending in ``.toml``).

    Args:
        name: of a recipe here, or the path of a file.
        profile: "paper", "demo" or "features".
        overrides: stronger than all files; keys of :class:`Recipe`.

    Raises:
        UsageError: no such recipe, profile, key, method or option, a value that it cannot have, a
            search that nobody makes, or a file of one's own that is called as a recipe here.
        DataError: the file cannot be read.
    """
    path = Path(name) if name.endswith(".toml") else shipped("recipes") / f"{name}.toml"
    if not name.endswith(".toml") and name not in recipe_names():
        raise unknown_name("recipe", name, recipe_names(), "Or give the path of a .toml file.")
    stem = path.stem.lower()  # some file systems do not tell case
    mine = path.resolve().parent != shipped("recipes").resolve()
    if mine and (stem in recipe_names() or stem.endswith("-paper")):
        raise UsageError(
            f"{path}: plans and tables of the name {path.stem!r} are those of another recipe.",
            allowed="no name of 'clip-adapter bench ls', and none that ends in -paper",
            hint="Call it otherwise.",
        )
    files = [_read(shipped("recipes") / f"{DEFAULTS}.toml"), _read(path)]
    (_, general), (written, special) = (
        (file.model_extra or {}, next((p for n, p in file.profile.items() if n == profile), Part()))
        for file in files
    )
    draws = {key: written[key] for key in DRAWS if key in written}
    parts = [*files, general, Part(**draws), special]
    merged = {key: value for part in parts for key, value in (part.model_extra or {}).items()}
    merged |= {key: value for key, value in (overrides or {}).items() if value is not None}
    if taken := {"name", "profile"} & merged.keys():
        raise unknown_name(f"key of {path.name}", min(taken), Recipe.model_fields)
    merged |= {"name": path.stem, "profile": profile} | _labelled(merged.get("datasets"), path.name)
    if mine:
        features = profile == "features"  # they tell their backbone, preprocessing and views
        kept = f" [profile.features] of {path.name}" if features else " --profile mine"
        chosen = {*(special.model_extra or {}), *(k for k, v in (overrides or {}).items() if v)}
        wanted = written | _labelled(written.get("datasets"), path.name)
        for key in sorted((general.model_extra or {}).keys() & written.keys() - {"like", *chosen}):
            own, used = (v if isinstance(v, list) else [v] for v in (wanted[key], merged[key]))
            if own != used:
                log.warning(
                    f"{path.name} names the {key} {listed(own)}; the profile {profile!r} puts "
                    f"{listed(used)} in their place."
                    + f"{kept} keeps them."
                    * (not features or key == "datasets")
                )
    common = {method: options for part in parts for method, options in part.options.items()}
    recipe = checked(Recipe, merged, path.name, common)
    if recipe.protocol == "ours":
        _check_searches(recipe, mine)
    return recipe


def _check_searches(recipe: Recipe, mine: bool) -> None:
    """What is searched is, with "ours", found by the method itself, or by nobody."""
    for system in recipe.systems:
        for option, values in system.search.items():
            row = f"{recipe.name}.toml, {system.label!r}: search among {option} = {listed(values)}"
            own = getattr(make_method(system.method, system.options), option)
            if own != "auto":
                raise UsageError(
                    f"{row}. With the protocol 'ours' nothing is searched: all have {own!r}.",
                    hint="Make a row of each value; or --protocol paper: the best on the TEST set.",
                )
            if mine:
                log.warning(f"{row}: only for --protocol paper; here the method finds its own.")


def _labelled(datasets: Any, where: str) -> dict[str, Any]:
    """``datasets`` by their names alone, and the ``labels`` of those that have one."""
    if not isinstance(datasets, list | tuple):
        return {}
    tables = [one for one in datasets if isinstance(one, dict)]
    for one in tables:
        if set(one) - {"label"} != {"data"} or not isinstance(one["data"], str):
            raise UsageError(
                f"{where}: datasets has {one}.",
                allowed='a name, or { data = "photos/", label = "My photos" }',
            )
    names = [one["data"] if isinstance(one, dict) else one for one in datasets]
    labels = {one["data"]: one["label"] for one in tables if "label" in one}
    shown = [labels.get(name, name) for name in dict.fromkeys(map(str, names))]
    if twice := [name for name in shown if shown.count(name) > 1]:
        raise UsageError(f"{where}: two data sets are called {twice[0]!r}.", hint="Label one.")
    return {"datasets": names, **({"labels": labels} if labels else {})}


def _read(path: Path) -> File:
    text = read_text(path, "The recipe")
    try:
        return checked(File, tomllib.loads(text), path.name)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"The recipe {path.name} is no TOML: {error}.") from error


def checked(
    kind: type[M],
    content: Mapping[str, Any] | bytes,
    where: str,
    options: Mapping[str, Any] | None = None,
) -> M:
    """``content``, values or JSON, as a ``kind``.

    Args:
        kind: what it shall be.
        content: of a file.
        where: its name, for errors.
        options: of methods, weaker than those of a system.

    Raises:
        UsageError: the first thing in it that cannot be, and where.
    """
    try:
        if isinstance(content, bytes):
            return kind.model_validate_json(content)
        return kind.model_validate(content, context=options)
    except ValidationError as error:
        first = error.errors()[0]
    keys, model = list(first["loc"]), Recipe
    if "systems" in keys[:-1]:
        place = keys.index("systems") + 1
        entry = None if isinstance(content, bytes) else content["systems"][keys[place]]
        label = entry.get("label") if isinstance(entry, Mapping) else None
        unnamed = not isinstance(label, str) or not label.strip()
        where += f", system {int(keys[place]) + 1}" if unnamed else f", {label!r}"
        keys, model = keys[place + 1 :], System
    elif "cost" in keys[:-1]:
        where, keys, model = f"{where}, cost", keys[1:], CostSettings
    key = ".".join(map(str, keys))
    if first["type"] == "value_error":
        raise UsageError(f"{where}: {first.get('ctx', {})['error']}")
    if first["type"] == "missing":
        raise UsageError(f"{where} has no {key}.", hint=f"Add: {key} = ...")
    if first["type"] == "extra_forbidden":
        unknown = unknown_name("key", key, model.model_fields)
        raise UsageError(f"{where}: {unknown.found}", allowed=unknown.allowed)
    raise UsageError(
        f"{where}: {key} = {reprlib.repr(first['input'])}.",
        allowed=WORDS.get(first["type"], first["msg"].removeprefix("Input should be ")),
    )
