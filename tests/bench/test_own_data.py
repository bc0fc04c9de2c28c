"""Recipes on data of one's own: labels, the profile, and what another profile replaces."""

import logging

import numpy as np
import pytest
from PIL import Image

from clip_adapter.bench.benchmark import run_bench
from clip_adapter.bench.data import Environment, open_set
from clip_adapter.bench.figures import curves, make_figure
from clip_adapter.bench.frame import Findings
from clip_adapter.bench.page import write_page
from clip_adapter.bench.plan import usual_profile
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.errors import DataError, UsageError

RECIPE = """
title = "Mine"
datasets = [{{ data = "{pets}", label = "My <pets>" }}, "{birds}"]
backbones = ["demo"]
style = "clip"
views = 1
shots = [1, 2]
seeds = [1]
columns = "shots"
figure = "shots"
[[systems]]
label = "zero-shot"
method = "zero-shot"
[[systems]]
label = "probe"
method = "linear-probe"
options = {{ C = 1.0 }}
"""


@pytest.fixture
def own(tmp_path):
    """A recipe on two folders of pictures."""
    rng = np.random.default_rng(0)
    for folder in ("pets", "birds"):
        for split, count in (("train", 2), ("test", 3)):
            for k, colour in enumerate(("red", "blue")):
                for i in range(count):
                    path = tmp_path / folder / split / colour / f"{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pixels = rng.integers(0, 90, (32, 32, 3)) + np.eye(3, dtype=int)[2 * k] * 160
                    Image.fromarray(pixels.astype(np.uint8)).save(path)
    path = tmp_path / "own.toml"
    path.write_text(RECIPE.format(pets=tmp_path / "pets", birds=tmp_path / "birds"))
    return path


def test_own_data_has_its_profile_and_its_label(own, tmp_path, inside):
    assert usual_profile([str(own)]) == "mine"
    out = tmp_path / "out"
    environment = Environment(out=str(out), cache=str(tmp_path / "cache"))
    outcome = run_bench([str(own)], profile="mine", environment=environment)
    assert (outcome.failed, outcome.missing) == ({}, {})
    assert {path.parent.parent.name for path in out.rglob("results/*/*/*.json")} == {"mine"}
    write_page(outcome.plans, outcome.results, out)
    page = (out / "TABLES.md").read_text("utf-8")
    assert "## Profile mine" in page
    assert "Profile paper" not in page
    assert "My &lt;pets>" in page or "My \\<pets" in page or "My &lt;pets&gt;" in page
    assert str(tmp_path / "pets") not in page
    found = Findings(outcome.plans[0], outcome.results)
    assert list(dict.fromkeys(found.cells.dataset)) == ["My <pets>", str(tmp_path / "birds")]
    panels = curves(found)
    assert next(iter(dict.fromkeys(panels.panel))) == "mean of 2 sets"
    figure = make_figure(found)
    assert len(figure.axes) == 3
    assert all(axes.has_data() for axes in figure.axes)

    # One set lacks a method: no mean, and no panel for it.
    whole = found.cells
    found.cells = whole[~((whole.dataset == "My <pets>") & (whole.label == "probe"))]
    assert not curves(found).panel.str.startswith("mean").any()
    assert len(make_figure(found).axes) == 2

    # No shots in common: as much.
    found.cells = whole[(whole.dataset == "My <pets>") == (whole.shots == 1)]
    assert not curves(found).panel.str.startswith("mean").any()


def test_what_a_profile_replaces_is_said(own, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_recipe(str(own), "demo").datasets[0] == "demo"
    assert "the profile 'demo' puts 'demo', 'demo-textures', 'demo-colours'" in caplog.text
    assert "--profile mine keeps them" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_recipe(str(own), "mine")
        load_recipe(str(own), "demo", {"datasets": ["demo"]})
        load_recipe("figure3", "demo")
    assert not caplog.records


def test_shots_and_seeds_that_a_recipe_writes_are_kept(own, caplog):
    text = own.read_text()
    own.write_text(text.replace("views = 1", "views = 4"))
    with caplog.at_level(logging.WARNING):
        recipe = load_recipe(str(own), "features")
    assert (recipe.shots, recipe.seeds) == ((1, 2), (1,))
    # What depends on the data is the profile's, which is said.
    assert (recipe.datasets, recipe.views) == (("all",), 1)
    for line in ("names the datasets", "names the backbones 'demo'", "names the views '4'"):
        assert line in caplog.text
    assert "[profile.features] of own.toml keeps them" in caplog.text
    caplog.clear()

    # Stronger yet: its own profile, then the command line.
    own.write_text(text + "[profile.features]\nshots = [8]\nseeds = [3]\nviews = 2\n")
    with caplog.at_level(logging.WARNING):
        recipe = load_recipe(str(own), "features", {"seeds": [5]})
    assert (recipe.shots, recipe.seeds, recipe.views) == ((8,), (5,), 2)
    assert "views" not in caplog.text


def test_the_paper_is_no_data_of_ones_own(own):
    assert usual_profile(["figure3", "table5"]) == "paper"
    assert usual_profile(["figure3"], {"datasets": ["my-photos"]}) == "mine"
    assert usual_profile(["table1"]) == "paper"  # costs: no data at all
    with pytest.raises(UsageError, match="beside figure3 on the paper's"):
        usual_profile([str(own), "figure3"])


def test_feature_files_of_every_format_under_their_backbones_name(recipe, tmp_path, inside):
    folder, rng = tmp_path / "features", np.random.default_rng(0)
    folder.mkdir()
    for name in ("toys", "others"):
        arrays = {"backbone": f"net-{name}", "text": np.eye(3, 8, dtype="float32")}
        for part, count in (("train", 3), ("test", 4)):
            y = np.repeat(np.arange(3), count)
            x = np.eye(3, 8)[y] + 0.1 * rng.normal(size=(len(y), 8))
            arrays |= {f"X_{part}": x.astype("float32"), f"y_{part}": y}
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "notes.txt").write_text("no features")
    label = '{ data = "toys", label = "My toys" }, "others"'
    path = recipe(
        ('columns = "dataset"', 'columns = "backbone"'), ('"toys", "others"', label), name="npz"
    )
    out = tmp_path / "out"
    environment = Environment(out=str(out), features=str(folder))
    outcome = run_bench(
        [path], profile="features", environment=environment, overrides={"seeds": [1]}
    )
    assert (outcome.failed, outcome.missing) == ({}, {})
    write_page(outcome.plans, outcome.results, out)
    page = (out / "TABLES.md").read_text("utf-8")
    for head in ("#### My toys", "#### others", " net-toys ", " net-others "):
        assert head in page
    assert " file " not in page

    (folder / "toys.safetensors").touch()
    with pytest.raises(DataError, match="both called 'toys'"):
        run_bench([path], profile="features", environment=environment)


def test_a_feature_file_among_pictures_is_told_the_way(tmp_path):
    (tmp_path / "feats.npz").touch()
    with pytest.raises(UsageError, match=r'\[profile.features\] datasets = \[{ data = "feats"'):
        open_set(str(tmp_path / "feats.npz"), Environment(out=str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ('[{ label = "x" }]', "data"),
        ('[{ data = "a", lable = "x" }]', "lable"),
        ("[{ data = 3 }]", "3"),
        ('[{ data = "a", label = "b" }, "b"]', "two data sets are called 'b'"),
        ('[{ data = "a", label = "x" }, { data = "b", label = "x" }]', "called 'x'"),
        ('[{ data = "a", label = " " }]', "labels"),
        ("[3]", "datasets"),
    ],
)
def test_a_wrong_label_is_told(datasets, message, tmp_path):
    path = tmp_path / "own.toml"
    system = '[[systems]]\nlabel = "z"\nmethod = "zero-shot"\n'
    path.write_text(f'title = "t"\ndatasets = {datasets}\n{system}')
    with pytest.raises(UsageError, match=message):
        load_recipe(str(path), "mine")
