"""The recipes that are shipped: each loads, is complete, and says what the paper's table says."""

import functools
import json
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_adapter.bench.data import Named
from clip_adapter.bench.frame import published_rows, row_of, table_number
from clip_adapter.bench.plan import make_plan
from clip_adapter.bench.recipe import (
    Profile,
    Recipe,
    System,
    load_recipe,
    recipe_names,
    shipped,
)
from clip_adapter.datasets.catalog import benchmark_names
from clip_adapter.demo.sets import DEMO_SETS, DEMO_SHIFTS
from clip_adapter.errors import DataError, UsageError
from clip_adapter.methods import get_method, method_names

NAMES = recipe_names()
PROFILES = get_args(Profile)
load = functools.cache(load_recipe)
ELEVEN = {
    *("caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "oxford_flowers"),
    *("oxford_pets", "stanford_cars", "sun397", "ucf101"),
}
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


def reads_features(method):
    return method.reads == "features" and not method.runs_text_tower


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("name", "of"), [("peers", bool), ("peers-features", reads_features)])
def test_peers_are_all_methods(name, of, profile):
    methods = {method for method in own_methods() if of(get_method(method))}
    listed = {system.method for system in load(name, profile).systems}
    assert listed == methods, (
        f"benchmarks/recipes/{name}.toml: add [[systems]] with label and method for "
        f"{methods - listed}; take away {listed - methods}"
    )


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
    rows = set(published_rows(number))
    labels = {row_of(s, number) for s in recipe.systems}
    if profile == "paper":
        assert labels - OWN_ROWS == rows
    else:  # a smaller tower has fewer places, but always the ends
        assert labels & rows >= ({"all", "12", "0"} if number == 2 else rows)


@pytest.mark.parametrize("name", ["figure3", "figure7", "figure4", "peers"])
def test_systems_name_published_curves(name):
    known = set(published_rows(0))
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
        return {
            run.method: run.views for run in make_plan(load(name, profile), Named).runs().values()
        }

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
B = SYSTEM + '[[systems]]\nlabel = "b"\nmethod = "clip-adapter"\n'
CHOSEN_AND_SEARCHED = "options = { visual_ratio = 0.4 }\nsearch = { visual_ratio = [0.2, 0.6] }"


@pytest.mark.parametrize(
    ("text", "message", "allowed"),
    [
        ("shotz = [1]\n" + SYSTEM, "own.toml: Unknown key 'shotz'", "shots"),
        (
            "[options.nothing]\na = 1\n" + SYSTEM,
            "own.toml: options: Unknown method",
            "clip-adapter",
        ),
        ("[options.clip-adapter]\nratio = 1\n" + SYSTEM, "own.toml: options: ", "visual_ratio"),
        ("options = 3\n" + SYSTEM, "own.toml: options = 3", "dictionary"),
        ("profile = 3\n" + SYSTEM, "own.toml: profile = 3", "dictionary"),
        ('[profile.nowhere]\nstyle = "clip"\n' + SYSTEM, "own.toml: profile.nowhere", "'demo'"),
        (SYSTEM + "optoins = {}\n", "own.toml, 'a': Unknown key 'optoins'", "options"),
        (SYSTEM + SYSTEM, "own.toml: systems = ", "no two with one label"),
        ("", "own.toml has no systems", ""),
        ("systems = []", "own.toml: systems = ", "at least 1"),
        ('name = "x"\n' + SYSTEM, "Unknown key of own.toml 'name'", "title"),
        ("shots = [0]\n" + SYSTEM, "own.toml: shots.0 = 0", "greater than or equal to 1"),
        ("datasets = []\n[profile.demo]\ndatasets = []\n" + SYSTEM, "datasets = ", "at least 1"),
        ('columns = "row"\n' + SYSTEM, "own.toml: columns = 'row'", "'backbone'"),
        ("[profile.demo]\nlike = { demo = 5 }\n" + SYSTEM, "own.toml: like.demo = 5", "string"),
        ("cost = { backbone = 5 }\n" + SYSTEM, "own.toml, cost: backbone = 5", "string"),
        ('cost = { classes = "5" }\n' + SYSTEM, "own.toml, cost: classes = '5'", "integer"),
        ("cost = { shots = 0 }\n" + SYSTEM, "own.toml, cost: shots = 0", "equal to 1"),
        ("cost = { seconds = nan }\n" + SYSTEM, "own.toml, cost: seconds = nan", "number"),
        ("cost = { batch = true }\n" + SYSTEM, "own.toml, cost: batch = True", "integer"),
        ("cost = { clases = 5 }\n" + SYSTEM, "own.toml, cost: Unknown key 'clases'", "classes"),
        (SYSTEM.replace('"a"', "5"), "own.toml, system 1: label = 5", "string"),
        (B.replace('"b"', '" "'), "own.toml, system 2: label = ' '", "text that is not empty"),
        (SYSTEM + "[[systems]]\nlabel = 'c'\n", "own.toml, 'c' has no method", ""),
        (B.replace('"clip-adapter"', "3"), "own.toml, 'b': method = 3", "string"),
        (
            B.replace("clip-adapter", "clip-adaptor"),
            "own.toml, 'b': Unknown method",
            "clip-adapter",
        ),
        (B + "options = 5", "own.toml, 'b': options = 5", "dictionary"),
        (B + "options = { ratio = 1 }", "own.toml, 'b': ", "visual_ratio"),
        (B + "prompts = [1]", "own.toml, 'b': prompts.0 = 1", "string"),
        (B + 'prompts = "a dog."', "own.toml, 'b': The prompt 'a dog.'", ""),
        (B + "search = { visual_ratio = 0.2 }", "own.toml, 'b': search.visual_ratio = 0.2", "list"),
        (B + "search = { visual_ratio = [] }", "own.toml, 'b': search.visual_ratio = []", "1 item"),
        (B + "search = { lr = [1], steps = [1] }", "own.toml, 'b': search = ", "1 item"),
        (B + "search = { steps = [-1] }", "own.toml, 'b': ", "steps"),
        (B + "plain = 1", "own.toml, 'b': plain = 1", "boolean"),
    ],
)
def test_what_cannot_be_is_told_with_file_system_and_key(tmp_path, text, message, allowed):
    with pytest.raises(UsageError) as error:
        load_recipe(write(tmp_path, text), "demo")
    assert message in str(error.value)
    assert allowed in str(error.value)


@pytest.mark.parametrize("more", ["search = { reduction = [2, 4] }", CHOSEN_AND_SEARCHED])
def test_a_search_that_nobody_makes_is_refused(tmp_path, more):
    path = write(tmp_path, B + more)
    with pytest.raises(UsageError, match=r"own.toml, 'b': search among \w+ = '"):
        load_recipe(path, "demo")
    (*_, system) = load_recipe(path, "demo", {"protocol": "paper"}).systems
    assert len(system.settings("paper")) == 2


def test_a_search_that_the_method_makes_otherwise_is_told(tmp_path, caplog):
    path = write(tmp_path, B + "search = { visual_ratio = [0.2, 0.6] }")
    load_recipe(path, "demo", {"protocol": "paper"})
    load_recipe("table5", "demo")  # its pages say what was chosen how
    assert "search" not in caplog.text
    load_recipe(path, "demo")
    assert "visual_ratio = '0.2', '0.6': only for --protocol paper" in caplog.text


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="table5"):
        load_recipe("tabel5")


def test_one_prompt_is_not_taken_letter_by_letter(tmp_path):
    (system,) = load_recipe(write(tmp_path, SYSTEM + 'prompts = "a {}."'), "demo").systems
    assert system.prompts == ("a {}.",)


def test_the_seconds_of_a_cost_may_be_whole(tmp_path):
    path = write(tmp_path, "cost = { seconds = 15, classes = 7 }\n" + SYSTEM)
    cost = load_recipe(path, "demo").cost
    assert (cost.seconds, cost.classes, cost.batch) == (15, 7, 16)


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
RECIPE_KEYS = [*Recipe.model_fields, "options", "profile", "nothing"]
SYSTEM_KEYS = [*System.model_fields, "nothing"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
        recipe = load_recipe(str(path), "demo")
    except (UsageError, DataError) as error:
        message = str(error)
    else:
        message = "own.toml"
        assert all(type(s.label) is str and s.label.strip() for s in recipe.systems)
    assert "own.toml" in message
    assert "no TOML" not in message


@pytest.mark.parametrize("name", ["table6", "Table6", "peers", "mine-paper"])
def test_an_own_file_may_not_take_the_place_of_anothers_plan(tmp_path, name):
    path = tmp_path / f"{name}.toml"
    path.write_text(f'title = "Mine"\n{SYSTEM}')
    with pytest.raises(UsageError, match="Call it otherwise") as error:
        load_recipe(str(path), "demo")
    assert str(path) in str(error.value)


def test_a_byte_order_mark_is_read_over_and_other_letters_are_told(tmp_path):
    plain = write(tmp_path, SYSTEM)
    marked, other = tmp_path / "marked" / "own.toml", tmp_path / "other.toml"
    marked.parent.mkdir()
    marked.write_text((tmp_path / "own.toml").read_text(), "utf-8-sig")
    assert load_recipe(str(marked), "demo") == load_recipe(plain, "demo")
    other.write_bytes(b'title = "\xff"')
    with pytest.raises(DataError, match=r"The recipe .*other\.toml is not UTF-8"):
        load_recipe(str(other), "demo")


def test_the_path_of_a_shipped_recipe_is_that_recipe():
    assert load_recipe(str(shipped("recipes") / "table6.toml"), "demo") == load("table6", "demo")
