"""``Recipe``: an experiment as a small difference from the defaults, read from TOML.

What is not said is taken from the file before it, in this order, the later ones stronger:

1. ``defaults.toml``
2. the recipe's file
3. ``[profile.NAME]`` of ``defaults.toml``: what an experiment becomes on other data
4. ``[profile.NAME]`` of the recipe's file
5. the command line

``[options.METHOD]`` holds options of a method wherever it is a system, weaker than the system's
own: so a profile can take the paper's training recipe and leave the rows as they are. A stronger
``[options.METHOD]`` takes the place of a weaker one of the same method.
"""

from __future__ import annotations

import dataclasses
import sys
import tomllib
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from clip_adapter.bench.shipped import shipped
from clip_adapter.datasets.templates import resolve_templates
from clip_adapter.errors import DataError, UsageError, unknown_name
from clip_adapter.methods import make_method
from clip_adapter.options import Style

Protocol = Literal["ours", "paper"]
Measure = Literal["accuracy", "cost", "tsne"]
Columns = Literal["dataset", "backbone", "shots", "shift", "cost"]
Figure = Literal["none", "shots", "gains", "branches", "tsne"]

DEFAULTS = "defaults"
PROFILES = ("paper", "demo", "features")
OPTIONS = "options"
ALL = "all"  # as data sets of the profile "features": every file of the folder
# What may not be left empty.
_FILLED = ("datasets", "backbones", "shots", "seeds", "label")


@dataclass(frozen=True)
class System:
    """One row of a table.

    Attributes:
        label: as the table shows it, and as the published figures call it.
        method: one of ``clip-adapter ls methods``.
        options: of the method; what is not given is its default, or chosen on the shots.
        search: {option: values}, one option. With protocol "paper" each value is trained and the
            best on the test set is reported; with "ours" it is not looked at.
        prompts: templates in place of the data set's.
        plain: it learns from the plain pictures, whatever the recipe's ``views``.
        of: name in the published few-shot figures, where it is there.
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, list[Any]] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    plain: bool = False
    of: str = ""


@dataclass(frozen=True)
class Recipe:
    """One table or figure, resolved.

    Attributes:
        name: of the file.
        profile: "paper", "demo" or "features".
        title: above the table.
        source: where in the paper, such as "Table 5"; "" for our own.
        note: what a reader should know, in a sentence or two.
        measure: "accuracy"; "cost" (seconds and memory); "tsne" (features in the plane).
        protocol: "ours": all is chosen on the shots; "paper": the best on the test set.
        datasets: names, or "all" with the profile "features".
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

    name: str
    profile: str
    title: str
    source: str = ""
    note: str = ""
    measure: Measure = "accuracy"
    protocol: Protocol = "ours"
    datasets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    style: Style = "clip"
    views: int = 1
    shots: tuple[int, ...] = (16,)
    seeds: tuple[int, ...] = (1, 2, 3)
    shifts: tuple[str, ...] = ()
    systems: tuple[System, ...] = ()
    columns: Columns = "dataset"
    figure: Figure = "none"
    like: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)


def recipe_folder() -> Path:
    """Where the recipes are."""
    return shipped("recipes")


def recipe_names() -> list[str]:
    """Names of all recipes: tables first, then figures, in the paper's order."""

    def order(name: str) -> tuple[int, int, str]:
        word = name.rstrip("0123456789")
        number = name.removeprefix(word)
        return {"table": 0, "figure": 1}.get(word, 2), int(number or 0), name

    found = [path.stem for path in recipe_folder().glob("*.toml") if path.stem != DEFAULTS]
    return sorted(found, key=order)


def load_recipe(
    name: str, profile: str = "paper", overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe ``name``, or the one in the file ``name`` (ending in ``.toml``).

    Args:
        name: of a recipe here, or the path of a file.
        profile: one of ``PROFILES``.
        overrides: stronger than all files; keys of :class:`Recipe`.

    Raises:
        UsageError: no such recipe, profile, key, method or option, a value that it cannot have, or
            a file of one's own that is called as a recipe here.
        DataError: the file cannot be read.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    path = Path(name) if name.endswith(".toml") else recipe_folder() / f"{name}.toml"
    if not name.endswith(".toml") and name not in recipe_names():
        raise unknown_name("recipe", name, recipe_names(), "Or give the path of a .toml file.")
    _refuse_taken(path)
    base, own = _read(recipe_folder() / f"{DEFAULTS}.toml"), _read(path)
    base_profiles, own_profiles = _profiles(base, DEFAULTS), _profiles(own, path.name)
    parts = [base, own, base_profiles.get(profile, {}), own_profiles.get(profile, {})]
    options = [_common(path.name, part.pop(OPTIONS, {})) for part in parts]
    merged = {key: value for part in parts for key, value in part.items()}
    merged |= {key: value for key, value in (overrides or {}).items() if value is not None}
    return _build(path, profile, merged, {m: o for part in options for m, o in part.items()})


def _refuse_taken(path: Path) -> None:
    """Stops at a file of one's own whose plan and pages would take the place of another's."""
    if path.resolve().parent == recipe_folder().resolve():
        return
    stem = path.stem.lower()  # some file systems do not tell case
    if stem in recipe_names() or stem.endswith("-paper"):
        raise UsageError(
            f"{path}: plans and tables of the name {path.stem!r} are those of another recipe.",
            allowed="no name of 'clip-adapter bench ls', and none that ends in -paper",
            hint="Call it otherwise.",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"The recipe {path.name} is no TOML: {error}.") from error


def _profiles(content: dict[str, Any], file: str) -> dict[str, dict[str, Any]]:
    """Takes the table ``profile`` out of ``content``."""
    found = content.pop("profile", {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise UsageError(f"{file}: 'profile' is no table.", allowed="[profile.demo]")
    for name in found:
        if name not in PROFILES:
            raise _in_file(file, unknown_name("profile", name, PROFILES))
    return found


def _build(
    path: Path, profile: str, content: dict[str, Any], common: Mapping[str, Mapping[str, Any]]
) -> Recipe:
    title = content.get("title")
    if not isinstance(title, str) or not title.strip():
        raise UsageError(f"{path.name} has no title.", hint='Add: title = "..."')
    recipe = _checked(path.name, path.stem, profile, content)
    systems = tuple(_with_options(path.name, system, common) for system in recipe.systems)
    return dataclasses.replace(recipe, systems=systems)


def recipe_from(told: Any) -> Recipe:
    """What ``dataclasses.asdict`` gave of a recipe, after JSON.

    Methods need not be known and options need not fit them: another version may have made it.

    Raises:
        UsageError: a wrong key, or a value that it cannot have.
    """
    if not isinstance(told, dict):
        raise UsageError(f"recipe = {told!r}.", allowed="a table")
    content = dict(told)
    name, profile = content.pop("name", None), content.pop("profile", None)
    if not isinstance(name, str) or not name.strip() or Path(name).name != name:
        raise UsageError(f"recipe: name = {name!r}.", allowed="that of a file")
    if profile not in PROFILES:
        raise _in_file("recipe", unknown_name("profile", str(profile), PROFILES))
    if not content.get("datasets", True):  # "all" of an empty folder
        del content["datasets"]
    return _checked("recipe", name, profile, content)


def _checked(file: str, name: str, profile: str, content: Mapping[str, Any]) -> Recipe:
    """A recipe whose every value is of its type; methods and their options are not looked at."""
    rest = {key: value for key, value in content.items() if key != "systems"}
    values = _values(file, "key", Recipe, rest, without=("name", "profile"))
    if cost := values.get("cost"):
        from clip_adapter.bench.costs import CostSettings

        _values(f"{file}, cost", "key of cost", CostSettings, cost)
    systems = content.get("systems", [])
    if not isinstance(systems, list) or not systems:
        raise UsageError(f"{file} has no systems.", hint="Add a [[systems]] table per row.")
    made = tuple(_system(file, number, entry) for number, entry in enumerate(systems, start=1))
    if len({s.label for s in made}) < len(made):
        raise UsageError(f"{file} gives two systems one label.", hint="Rename one.")
    return Recipe(name, profile, systems=made, **values)


def _values(
    where: str, kind: str, cls: type, content: Mapping[str, Any], without: Collection[str] = ()
) -> dict[str, Any]:
    """``content`` as the fields of ``cls`` have it."""
    hints = {k: v for k, v in typing.get_type_hints(cls).items() if k not in without}
    for key in content:
        if key not in hints:
            raise _in_file(where, unknown_name(kind, key, hints))
    return {key: _value(where, key, value, hints[key]) for key, value in content.items()}


def _value(where: str, key: str, value: Any, annotation: Any) -> Any:
    """``value`` as the field ``key`` has it."""
    told = UsageError(f"{where}: {key} = {value!r}.", allowed=_allowed(key, annotation))
    origin, inner = typing.get_origin(annotation), get_args(annotation)
    if origin is tuple:
        values = value if isinstance(value, list | tuple) else [value]
        if not values and key in _FILLED:
            raise told
        if not all(type(v) is inner[0] and (inner[0] is str or v >= 0) for v in values):
            raise told
        if key == "shots" and not all(values):
            raise told
        return tuple(dict.fromkeys(values))
    if origin is Literal:
        if value not in inner:
            raise _in_file(where, unknown_name(key, str(value), inner))
        return value
    if origin is not None:  # a table
        if not isinstance(value, dict) or not all(_fits(v, inner[1]) for v in value.values()):
            raise told
        return value
    if annotation is float:
        if type(value) not in (int, float) or not 0 <= value <= sys.float_info.max:
            raise told
        return value
    if type(value) is not annotation or (annotation is int and value < 1):
        raise told
    if annotation is str and key in _FILLED and not value.strip():
        raise told
    return value


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a table may hold ``value``."""
    if annotation is str:
        return isinstance(value, str)
    if typing.get_origin(annotation) is list:
        return isinstance(value, list) and bool(value)
    return True


def _allowed(key: str, annotation: Any) -> str:
    words = {str: "text", int: "a whole number from 1 on", float: "a number from 0 on"}
    words[bool] = "true or false"
    origin, inner = typing.get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return "a list of texts" if inner[0] is str else "a list of whole numbers"
    if origin is not None and origin is not Literal:
        if inner[1] is str:
            return "a table of texts"
        listed = typing.get_origin(inner[1]) is list
        return "a table of one option with a list of its values" if listed else "a table"
    word = words.get(annotation, "")
    return f"{word} that is not empty" if annotation is str and key in _FILLED else word


def _common(file: str, options: Any) -> dict[str, dict[str, Any]]:
    """Options by method, each checked on its own."""
    if not isinstance(options, dict) or not all(isinstance(v, dict) for v in options.values()):
        raise UsageError(f"{file}: 'options' is no table.", allowed="[options.METHOD]")
    for method, values in options.items():
        try:
            make_method(method, values)
        except UsageError as error:
            raise _in_file(f"{file}, options", error) from error
    return options


def _system(file: str, number: int, entry: Any) -> System:
    if not isinstance(entry, dict) or not {"label", "method"} <= set(entry):
        raise UsageError(
            f"{file}, system {number}: {entry!r}.", allowed="a system has a label and a method"
        )
    label = _value(f"{file}, system {number}", "label", entry["label"], str)
    where = f"{file}, {label!r}"
    system = System(**_values(where, "key of a system", System, entry))
    if len(system.search) > 1:
        raise UsageError(f"{where}: search over {', '.join(system.search)}.", allowed="one option")
    return system


def _with_options(file: str, system: System, common: Mapping[str, Mapping[str, Any]]) -> System:
    """``system`` with the options of its method, all of them checked."""
    made = dataclasses.replace(system, options={**common.get(system.method, {}), **system.options})
    try:
        if made.prompts:
            resolve_templates(made.prompts)
        for options in (made.options, *candidates(made)):
            make_method(made.method, options)
    except UsageError as error:
        raise _in_file(f"{file}, {made.label!r}", error) from error
    return made


def candidates(system: System) -> list[dict[str, Any]]:
    """The options of every setting of ``search``; none without a search."""
    return [
        {**system.options, option: value}
        for option, values in system.search.items()
        for value in values
    ]


def _in_file(file: str, error: UsageError) -> UsageError:
    return UsageError(f"{file}: {error.found}", allowed=error.allowed, hint=error.hint)
