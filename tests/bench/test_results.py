"""Results and plans on disk whose content cannot be: told, and never a crash."""

import json

import pytest

from clip_adapter.bench.data import Named
from clip_adapter.bench.plan import load_plans, make_plan, save_plan
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.bench.results import Results, Run
from clip_adapter.errors import DataError

GOOD = {
    "accuracy": {"top1": 61.5, "n": 200, "shifts": {"far": {"top1": 0}}, "chosen": {}},
    "tsne": {"top1": 100, "silhouette": -0.25, "points": [[0.0, 1.0]]},
    "cost": {"train_seconds": 30.0, "infer_ms": 2, "trained_parameters": None},
}


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def run_of(measure):
    return Run("demo", measure, "demo", "d", "demo", "clip", 1, (), "zero-shot", {}, 1, 1)


@pytest.mark.parametrize("measure", GOOD)
def test_a_result_that_can_be_is_read(results, measure):
    run = run_of(measure)
    results.write(run, GOOD[measure])
    assert results.read(run).items() >= GOOD[measure].items()
    assert not results.damaged


@pytest.mark.parametrize(
    ("measure", "changed"),
    [
        *(
            ("accuracy", {"top1": top1})
            for top1 in (None, "61", True, -0.1, 100.1, float("nan"), float("inf"), 10**400, [])
        ),
        ("accuracy", {"shifts": []}),
        ("accuracy", {"shifts": {"far": 5}}),
        ("accuracy", {"shifts": {"far": {"top1": "5"}}}),
        ("accuracy", {"n": "200"}),
        ("accuracy", {"chosen": 3}),
        ("tsne", {"silhouette": "near"}),
        *(("cost", {"train_seconds": s}) for s in (None, "30", -1, float("nan"), {})),
        ("cost", {"infer_ms": "2"}),
        ("cost", {"hardware": "fast"}),
    ],
)
def test_a_result_that_cannot_be_is_set_aside(results, measure, changed):
    run = run_of(measure)
    results.write(run, GOOD[measure] | changed)
    assert results.read(run) is None
    path = results.path(run)
    assert list(results.damaged) == [path]
    results.set_aside()
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").is_file()


@pytest.mark.parametrize("content", ["[" * 200_000, "[]", "5", '{"format": 1}', "{}"])
def test_what_is_no_result_is_damaged(results, content):
    run = run_of("accuracy")
    results.write(run, GOOD["accuracy"])
    results.path(run).write_text(content)
    assert results.read(run) is None
    assert results.damaged


@pytest.fixture
def saved(tmp_path):
    """The path of a plan, and what it holds."""
    path = save_plan(make_plan(load_recipe("table5", "demo"), Named), tmp_path)
    return path, json.loads(path.read_bytes())


@pytest.mark.parametrize("name", ["table1", "table5", "figure6", "peers"])
@pytest.mark.parametrize("protocol", ["ours", "paper"])
def test_a_plan_comes_back_with_its_runs(tmp_path, name, protocol):
    plan = make_plan(load_recipe(name, "demo", {"protocol": protocol}), Named)
    save_plan(plan, tmp_path)
    [loaded] = load_plans(tmp_path)
    assert loaded == plan
    assert list(loaded.runs()) == list(plan.runs())


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        ((), 5, ""),
        ((), {"format": 1}, "format"),
        (("format",), 1, "format = 1"),
        (("recipe",), [], "recipe"),
        (("recipe", "profile"), "nowhere", "'nowhere'"),
        (("recipe", "columns"), 5, "columns"),
        (("recipe", "name"), "../x", "name"),
        (("recipe", "title"), 5, "title"),
        (("recipe", "shots"), ["1"], "shots"),
        (("recipe", "systems"), [], "systems"),
        (("recipe", "systems"), [{"label": 5, "method": "zero-shot"}], "system 1"),
        (("recipe", "systems"), [{"label": "a", "method": "of-another"}], "of-another"),
        (("recipe", "nothing"), 5, "nothing"),
        (("data",), [], "data"),
        (("left_out",), [5], "left_out"),
        (("missing",), {"a": 5}, "missing"),
    ],
)
def test_what_is_no_plan_is_told(saved, tmp_path, keys, value, reason):
    path, content = saved
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if keys:
        inner[keys[-1]] = value
    path.write_text(json.dumps(content if keys else value))
    with pytest.raises(DataError, match=r"The plan .*table5\.json cannot be used: ") as error:
        load_plans(tmp_path)
    assert reason in str(error.value)
