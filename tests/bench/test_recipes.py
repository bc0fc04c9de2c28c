"""The recipes that are shipped: each loads, is complete, and says what the paper's table says."""

import functools

import pytest

from clip_adapter.bench.beside import row_of, table_number
from clip_adapter.bench.published import load_published
from clip_adapter.bench.recipe import PROFILES, load_recipe, recipe_names
from clip_adapter.data.benchmarks import benchmark_names
from clip_adapter.data.demo_sets import DEMO_SETS, DEMO_SHIFTS
from clip_adapter.data.templates import TEMPLATES
from clip_adapter.errors import UsageError
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
