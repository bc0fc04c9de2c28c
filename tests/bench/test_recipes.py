"""The recipes that are shipped: each loads, is complete, and says what the paper's table says."""

import dataclasses
import functools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_adapter.bench.beside import row_of, table_number
from clip_adapter.bench.published import load_published
from clip_adapter.bench.recipe import (
    PROFILES,
    Recipe,
    System,
    load_recipe,
    recipe_folder,
    recipe_names,
)
from clip_adapter.bench.runs import Unopened, plan
from clip_adapter.datasets.catalog import benchmark_names
from clip_adapter.datasets.templates import TEMPLATES
from clip_adapter.demo.sets import DEMO_SETS, DEMO_SHIFTS
from clip_adapter.errors import DataError, UsageError
from clip_adapter.methods import get_method, method_names

NAMES = recipe_names()
load = functools.cache(load_recipe)
ELEVEN = {name for name in TEMPLATES if name != "imagenet-ensemble"}
# Not in the paper's Table 10.
OWN_ROWS = {
    *("Visual encoder", "Text encoder", "Both encoders"),
    *("CoOp, our recipe", "CLIP-Adapter, our recipe"),
}


def own_methods():
    return {n for n in method_names() if get_method(n).__module__.startswith("clip_adapter.")}


def test_every_table_and_figure_of_the_paper_has_one():
    sources = {load(name).source for name in NAMES} - {""}
    wanted = {f"Table {i}" for i in range(1, 11)} | {f"Figure {i}" for i in range(3, 8)}
    assert sources == wanted
    assert NAMES[:2] == ["table1", "table2"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", NAMES)
def test_it_loads_in_every_profile(name, profile):
    recipe = load(name, profile)
    assert recipe.systems
    assert (recipe.name, recipe.profile) == (name, profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_peers_are_all_methods(profile):
    assert {s.method for s in load("peers", profile).systems} == own_methods()


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_needs_nothing_from_outside(name):
    recipe = load(name, "demo")
    assert set(recipe.datasets) <= set(DEMO_SETS) - set(DEMO_SHIFTS)
    assert set(recipe.shifts) <= set(DEMO_SHIFTS)
    assert recipe.backbones == ("demo",)
    assert set(recipe.like) >= {*recipe.datasets, *recipe.shifts}
    assert set(recipe.like.values()) <= set(benchmark_names())


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_profile_is_on_the_papers_sets(name):
    recipe = load(name, "paper")
    assert set(recipe.datasets) <= ELEVEN
    assert not recipe.like


def test_figure_3_has_all_eleven_sets_and_figure_7_differs_in_style_alone():
    third, seventh = load("figure3"), load("figure7")
    assert set(third.datasets) == ELEVEN
    assert (third.style, seventh.style) == ("coop", "clip")
    for name in ("datasets", "backbones", "shots", "seeds", "systems", "views", "columns"):
        assert getattr(third, name) == getattr(seventh, name)


@pytest.mark.parametrize("number", [1, 2, 4, 5, 6, 7, 8, 9, 10])
@pytest.mark.parametrize("profile", ["paper", "demo"])
def test_labels_are_the_rows_of_the_papers_table(number, profile):
    recipe = load(f"table{number}", profile)
    assert table_number(recipe) == number
    rows = {f.row for f in load_published().table(number)}
    found = {row_of(s, rows) for s in recipe.systems}
    if profile == "paper":
        assert found - OWN_ROWS == rows
    else:  # a smaller tower has fewer places, but always the ends
        assert found & rows >= ({"all", "12", "0"} if number == 2 else rows)


@pytest.mark.parametrize("name", ["figure3", "figure7", "figure4", "peers"])
def test_systems_name_published_curves(name):
    known = {f.method for f in load_published().few_shot}
    named = {s.of for s in load(name).systems} - {""}
    assert named <= known
    assert "CLIP-Adapter" in named


def test_the_paper_profile_trains_as_the_paper_and_peers_at_their_defaults():
    for system in load("table5", "paper").systems:
        assert system.options["recipe"] == "official"
    for profile in ("demo", "features"):
        assert all("recipe" not in s.options for s in load("table5", profile).systems)
    own = {s.label: dict(s.options) for s in load("peers", "paper").systems}
    assert own["CLIP-Adapter"] == {}
    assert own["CLIP-Adapter, the paper's recipe"] == {"recipe": "official"}


def test_methods_beside_each_other_have_the_same_views():
    def views(name, profile="paper"):
        return {run.method: run.views for run in plan(load(name, profile), Unopened).runs}

    assert set(views("table4").values()) == {10}
    assert set(views("table4", "demo").values()) == {1}
    many, one = views("peers"), {"zero-shot", "linear-probe", "fine-tune", "clip-lora", "houlsby"}
    assert {many[m] for m in one} == {1}
    assert {many[m] for m in ("clip-adapter", "r-2p", "l-1p", "prolip")} == {10}
    # As in CLIP's own and in CoOp's code, the linear probe learns from plain pictures.
    for name in ("figure3", "figure7", "table9"):
        assert views(name)["linear-probe"] == 1
        assert views(name)["clip-adapter"] == 10


def write(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(f'title = "Mine"\n{text}')
    return str(path)


def test_options_of_a_method_are_weaker_than_those_of_a_system(tmp_path):
    path = write(
        tmp_path,
        """
        [options.clip-adapter]
        reduction = 2
        visual_ratio = 0.4
        [[systems]]
        label = "a"
        method = "clip-adapter"
        options = { reduction = 8 }
        [[systems]]
        label = "b"
        method = "zero-shot"
        """,
    )
    one, other = load_recipe(path, "demo").systems
    assert one.options == {"reduction": 8, "visual_ratio": 0.4}
    assert other.options == {}


SYSTEM = '[[systems]]\nlabel = "a"\nmethod = "zero-shot"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("shotz = [1]\n" + SYSTEM, "shotz"),
        ("[options.nothing]\na = 1\n" + SYSTEM, "nothing"),
        ("[options.clip-adapter]\nratio = 1\n" + SYSTEM, "ratio"),
        ("options = 3\n" + SYSTEM, "options"),
        (SYSTEM + "optoins = {}\n", "optoins"),
        ('[profile.nowhere]\nstyle = "clip"\n' + SYSTEM, "nowhere"),
        (SYSTEM + SYSTEM, "one label"),
        ("", "no systems"),
    ],
)
def test_what_it_does_not_know_is_told_with_the_file(tmp_path, text, told):
    with pytest.raises(UsageError) as error:
        load_recipe(write(tmp_path, text), "demo")
    assert told in str(error.value)
    assert "own.toml" in str(error.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="table5"):
        load_recipe("tabel5")


TWO = '[[systems]]\nlabel = "b"\nmethod = "clip-adapter"\n' + SYSTEM


@pytest.mark.parametrize("label", ["5", '""', '" "', "true", "[]"])
def test_a_label_is_text(tmp_path, label):
    text = TWO.replace('label = "a"', f"label = {label}")
    with pytest.raises(UsageError, match=r"own\.toml, system 2: label = .*\n.*text that is not"):
        load_recipe(write(tmp_path, text), "demo")


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("method = 3", "text"),
        ('method = ["zero-shot"]', "text"),
        ("options = 5", "a table"),
        ("prompts = 5", "a list of texts"),
        ("prompts = [1]", "a list of texts"),
        ("search = 5", "a table of one option with a list"),
        ("search = { visual_ratio = 0.2 }", "a table of one option with a list"),
        ("search = { visual_ratio = [] }", "a table of one option with a list"),
        ("of = 5", "text"),
        ("plain = 1", "true or false"),
    ],
)
def test_a_wrong_type_in_a_system_is_told_with_file_system_and_key(tmp_path, line, allowed):
    text = '[[systems]]\nlabel = "b"\n' + line
    if not line.startswith("method"):
        text += '\nmethod = "clip-adapter"'
    with pytest.raises(UsageError) as error:
        load_recipe(write(tmp_path, SYSTEM + text), "demo")
    key = line.partition(" ")[0]
    assert str(error.value).startswith(f"own.toml, 'b': {key} = ")
    assert f"Allowed: {allowed}" in str(error.value)


def test_one_prompt_is_not_taken_letter_by_letter(tmp_path):
    (system,) = load_recipe(write(tmp_path, SYSTEM + 'prompts = "a {}."'), "demo").systems
    assert system.prompts == ("a {}.",)
    with pytest.raises(UsageError, match=r"own\.toml, 'a': The prompt 'a dog\.'"):
        load_recipe(write(tmp_path, SYSTEM + 'prompts = "a dog."'), "demo")


@pytest.mark.parametrize(
    ("line", "told", "allowed"),
    [
        ("like = { demo = 5 }", "like = ", "a table of texts"),
        ("cost = { backbone = 5 }", "cost: backbone = 5", "text"),
        ('cost = { classes = "5" }', "cost: classes = '5'", "a whole number"),
        ("cost = { shots = 0 }", "cost: shots = 0", "a whole number"),
        ("cost = { seconds = nan }", "cost: seconds = nan", "a number"),
        ("cost = { batch = true }", "cost: batch = True", "a whole number"),
        ("cost = { clases = 5 }", "'clases'", "classes"),
    ],
)
def test_a_table_with_wrong_values_is_told(tmp_path, line, told, allowed):
    with pytest.raises(UsageError) as error:
        load_recipe(write(tmp_path, f"[profile.demo]\n{line}\n{SYSTEM}"), "demo")
    assert str(error.value).startswith("own.toml")
    assert told in str(error.value)
    assert allowed in str(error.value)


def test_the_seconds_of_a_cost_may_be_whole(tmp_path):
    path = write(tmp_path, "cost = { seconds = 15, classes = 7 }\n" + SYSTEM)
    assert load_recipe(path, "demo").cost == {"seconds": 15, "classes": 7}


def as_toml(value):
    if isinstance(value, dict):
        pairs = (f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan").replace("\x7f", "")


WORDS = st.sampled_from(["", " ", "a", "a {}.", "{", "clip-adapter", "zero-shot", "demo", "cost"])
ATOMS = st.booleans() | st.integers() | st.floats() | WORDS | st.text("a{}.é\n", max_size=4)
KEYS = WORDS | st.sampled_from(
    ["visual_ratio", "steps", "recipe", "backbone", "classes", "seconds"]
)
VALUES = st.recursive(
    ATOMS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3), max_leaves=6
)
RECIPE_KEYS = [f.name for f in dataclasses.fields(Recipe)] + ["options", "profile", "nothing"]
SYSTEM_KEYS = [f.name for f in dataclasses.fields(System)] + ["nothing"]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    top=st.dictionaries(st.sampled_from(RECIPE_KEYS), VALUES, max_size=2),
    inner=st.dictionaries(st.sampled_from(SYSTEM_KEYS), VALUES, max_size=2),
)
def test_any_value_in_any_key_gives_a_recipe_or_a_word_to_the_user(tmp_path, top, inner):
    system = {"label": "b", "method": "clip-adapter", **inner}
    content = {"title": "Mine", "systems": [system], **top}
    path = tmp_path / "own.toml"
    path.write_text("".join(f"{k} = {as_toml(v)}\n" for k, v in content.items()), "utf-8")
    try:
        found = load_recipe(str(path), "demo")
    except (UsageError, DataError) as error:
        told = str(error)
    else:
        told = "own.toml"
        assert all(type(s.label) is str and s.label.strip() for s in found.systems)
    assert "own.toml" in told
    assert "no TOML" not in told


@pytest.mark.parametrize("name", ["table6", "Table6", "peers", "mine-paper"])
def test_an_own_file_may_not_take_the_place_of_anothers_plan(tmp_path, name):
    path = tmp_path / f"{name}.toml"
    path.write_text(f'title = "Mine"\n{SYSTEM}')
    with pytest.raises(UsageError, match="Call it otherwise") as error:
        load_recipe(str(path), "demo")
    assert str(path) in str(error.value)


def test_the_path_of_a_shipped_recipe_is_that_recipe():
    assert load_recipe(str(recipe_folder() / "table6.toml"), "demo") == load("table6", "demo")
