"""``clip-adapter bench``: what it prints, where, and how it ends."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clip_adapter.bench import plan
from clip_adapter.cli.main import app
from clip_adapter.errors import MissingExtraError


@pytest.fixture
def run():
    def call(*words):
        return CliRunner().invoke(app, ["bench", *map(str, words)])

    return call


@pytest.fixture
def words(recipe, done):
    """A command whose runs are all there."""
    return ["run", recipe(), "--features", done.features, "--out", done.out]


def test_a_second_call_does_nothing_and_says_so(run, words, done):
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert "All 14 runs have a result: nothing was run." in result.stdout
    page = Path(done.out, "TABLES.md")
    assert str(page) in result.stdout.replace("\n", "")
    before = page.read_bytes()
    assert b"Toys" in before
    page.unlink()
    assert run("tables", "--out", done.out).exit_code == 0
    assert page.read_bytes() == before


@pytest.mark.parametrize("name", ["TABLES.md", "COSTS.md", "tables/mine.csv", "figures/mine.png"])
def test_files_of_somebody_else_are_not_written_over(run, recipe, toys, tmp_path, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    out = ["--features", toys, "--out", tmp_path / "out"]
    result = run("run", recipe(), *out)
    assert result.exit_code == 2
    assert f"out/{name.split('/')[0]}' would be written over" in result.stderr
    assert [p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["mine"]


def test_json_is_one_value_with_everything(run, words):
    data = json.loads(run(*words, "--json").stdout)
    assert (data["done"], data["present"], data["failed"], data["missing"]) == (0, 14, {}, {})
    assert all(Path(path).is_file() for path in data["files"])
    assert data["tables"] in data["files"]


def test_a_missing_set_is_named_and_the_exit_code_is_1(run, recipe, done):
    changed = recipe(('["toys", "others"]', '["toys", "nowhere"]'))
    out = ["--features", done.features, "--out", done.out]
    result = run("run", changed, *out)
    assert result.exit_code == 1
    assert "nowhere cannot be read" in result.stderr
    assert "Traceback" not in result.stderr


def test_one_reason_of_many_runs_is_told_once(run, recipe, done, inside):
    changed = recipe(("visual_ratio = 0.6, steps = 6", "visual_ratio = 0.6, steps = 6, lr = 1e30"))
    result = run("run", changed, "--features", done.features, "--out", done.out)
    assert result.exit_code == 1
    assert "4 runs failed" in result.stderr
    assert "  4 runs, such as " in result.stderr
    assert result.stderr.count("NaN or infinite") == 2  # when it happened, and at the end
    assert result.stderr.count("Next: ") <= 1


@pytest.mark.slow
def test_rows_that_are_the_same_run_are_told(run, recipe, done):
    changed = recipe(("visual_ratio = 0.6, steps = 6", "visual_ratio = 0.2, steps = 6"))
    result = run("run", changed, "--features", done.features, "--out", done.out)
    assert "4 runs served 8 rows" in result.stdout


def test_an_interrupted_run_names_the_command_for_its_tables(run, words, done, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("clip_adapter.bench.benchmark.run_bench", interrupted)
    result = run(*words)
    assert result.exit_code == 130
    assert f"clip-adapter bench tables --out {done.out}" in result.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["run", "tabel6"], "Did you mean 'table6'"),
        (["run", "table6", "--profile", "features"], "without a folder of features"),
        (["run", "table6", "--profile", "demo", "--features", "."], "with a folder of features"),
        (["run", "table6"], "--root DIR with the sets in CoOp's folders"),
        (["run", "nothing.toml"], "cannot be read"),
        (["run", "table6", "--get"], "--get without --root"),
        (["effort", "tabel6"], "Did you mean 'table6'"),
        (["tables", "--out", "nowhere"], "nowhere holds no benchmark"),
    ],
)
def test_wrong_words_are_told(run, tmp_path, monkeypatch, wrong, message):
    monkeypatch.chdir(tmp_path)
    done = run(*wrong)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("more", [["--profile", "demo"], ["--root", "data", "--get"]])
def test_a_device_that_is_not_here_is_told_before_any_work(run, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    done = run("run", "table6", "--device", "nonsense", *more)
    assert done.exit_code == 2
    assert "nonsense" in done.stderr
    assert "Allowed: auto, cpu, cuda" in done.stderr
    assert not list(tmp_path.iterdir())


def test_ls_names_every_recipe(run):
    rows = json.loads(run("ls", "--json").stdout)
    names = [row["name"] for row in rows]
    assert names[:3] == ["table1", "table2", "table3"]
    assert {"figure3", "figure7", "peers"} <= set(names)
    assert "Table 6" in run("ls").stdout


def test_effort_counts_table_6_as_by_hand(run):
    counted = json.loads(run("effort", "table6", "--json").stdout)
    assert counted["runs"] == 2 * 6 * 3
    # Six ratios share their features: three draws of 16 shots in ten views, and each test set once.
    dtd, imagenet = 47 * 16 * 10 * 3 + 1_692, 1000 * 16 * 10 * 3 + 50_000
    assert counted["pictures"] == {"RN50/openai": dtd + imagenet}
    assert counted["by_hand"] == ["imagenet"]
    assert "GB of archives" in run("effort", "table6").stdout


def test_effort_counts_a_run_of_several_recipes_once(run):
    def runs(*names):
        return json.loads(run("effort", *names, "--json").stdout)["runs"]

    assert runs("figure3", "figure4") < runs("figure3") + runs("figure4")


def test_get_fetches_what_is_not_there(run, tmp_path, monkeypatch):
    fetched = []

    class Fetched:
        to_do = ("one file by hand",)

    def fetch(name, root, **_):
        fetched.append((name, root))
        return Fetched()

    monkeypatch.setattr(plan, "fetch_benchmark", fetch)
    root, out = tmp_path / "data", tmp_path / "out"
    done = run("run", "table9", "--get", "--root", root, "--out", out)
    names = ["imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
    assert [name for name, _ in fetched] == names
    assert "imagenet: one file by hand" in done.stderr
    assert done.exit_code == 1  # nothing was really fetched


def test_without_its_packages_the_extra_is_named(run, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pebble" else find_spec(name)
    )
    monkeypatch.delitem(sys.modules, "clip_adapter.bench.extra", raising=False)
    for module in ("benchmark", "page"):
        # As in a process that has not imported it; the one that others hold stays as it is.
        monkeypatch.delitem(sys.modules, f"clip_adapter.bench.{module}", raising=False)
        with pytest.raises(MissingExtraError, match=r"pip install .*'pandas>=.*the extra 'bench'"):
            importlib.import_module(f"clip_adapter.bench.{module}")
    listed = run("ls")  # recipes are read by what is always there
    assert listed.exit_code == 0
    assert "table5" in listed.stdout
