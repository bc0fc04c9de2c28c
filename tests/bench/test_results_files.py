"""Results and plans on disk whose content cannot be: told, and never a crash."""

import json

import pytest

from clip_adapter.bench.plans import load_plans, save_plan
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.bench.results import Results
from clip_adapter.bench.runs import Run, Unopened, plan
from clip_adapter.errors import DataError

GOOD = {
    "accuracy": {"top1": 61.5, "n": 200, "shifts": {"far": {"top1": 0}}, "chosen": {}},
    "tsne": {"top1": 100, "silhouette": -0.25, "points": [[0.0, 1.0]]},
    "cost": {"train_seconds": 30.0, "infer_ms": 2, "trained_parameters": None},
}


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results", [].append)


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
            (measure, {"top1": top1})
            for measure in ("accuracy", "tsne")
            for top1 in (None, "61", True, -0.1, 100.1, float("nan"), float("inf"), 10**400, [])
        ),
        ("accuracy", {"shifts": []}),
        ("accuracy", {"shifts": {"far": 5}}),
        ("accuracy", {"shifts": {"far": {"top1": "5"}}}),
        ("accuracy", {"n": "200"}),
        ("accuracy", {"chosen": 3}),
        ("tsne", {"silhouette": "near"}),
        *(("cost", {"train_seconds": s}) for s in (None, "30", -1, float("nan"), 10**400, {})),
        ("cost", {"infer_ms": "2"}),
        ("cost", {"hardware": "fast"}),
    ],
)
def test_a_result_that_cannot_be_is_set_aside(results, measure, changed):
    run = run_of(measure)
    results.write(run, GOOD[measure] | changed)
    assert results.read(run) is None
    path = results.path(run)
    assert results.damaged == [path]
    results.set_aside()
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").is_file()


@pytest.mark.parametrize(("measure", "key"), [("accuracy", "top1"), ("cost", "train_seconds")])
def test_a_result_without_its_number_is_damaged(results, measure, key):
    results.write(run_of(measure), {k: v for k, v in GOOD[measure].items() if k != key})
    assert results.read(run_of(measure)) is None
    assert results.damaged


def test_json_without_an_end_of_depth_is_damaged(results):
    run = run_of("accuracy")
    results.write(run, GOOD["accuracy"])
    results.path(run).write_text("[" * 200_000)
    assert results.read(run) is None


@pytest.fixture
def saved(tmp_path):
    """The path of a plan, and what it holds."""
    path = save_plan(plan(load_recipe("table5", "demo"), Unopened), tmp_path)
    return path, json.loads(path.read_bytes())


@pytest.mark.parametrize("name", ["table1", "table5", "figure6", "peers"])
@pytest.mark.parametrize("protocol", ["ours", "paper"])
def test_a_plan_comes_back_as_it_was(tmp_path, name, protocol):
    made = plan(load_recipe(name, "demo", {"protocol": protocol}), Unopened)
    made.left_out, made.missing = ["a line"], {"a set": "a reason"}
    save_plan(made, tmp_path)
    assert load_plans(tmp_path) == [made]


def test_a_plan_of_a_method_that_is_not_installed_is_read(saved, tmp_path):
    path, told = saved
    told["recipe"]["systems"][0] |= {"method": "of-another", "options": {"what": 1}}
    path.write_text(json.dumps(told))
    assert load_plans(tmp_path)[0].recipe.systems[0].method == "of-another"


@pytest.mark.parametrize(
    "told", [[], 5, None, {}, {"format": 1}, {"format": 1, "runs": []}, {"format": 2}]
)
def test_what_is_no_plan_is_told(saved, tmp_path, told):
    path, _ = saved
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"The plan .*table5\.json cannot be used: "):
        load_plans(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("profile", "nowhere"),
        ("profile", 5),
        ("columns", 5),
        ("columns", "row"),
        ("name", "../x"),
        ("name", None),
        ("title", 5),
        ("shots", ["1"]),
        ("like", {"demo": 5}),
        ("systems", []),
        ("systems", [5]),
        ("systems", [{"label": 5, "method": "zero-shot"}]),
        ("nothing", 5),
    ],
)
def test_a_plan_with_a_wrong_recipe_is_told(saved, tmp_path, key, value):
    path, told = saved
    told["recipe"][key] = value
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"The plan .*table5\.json cannot be used: "):
        load_plans(tmp_path)


def changed_run(told):
    next(iter(told["runs"].values()))["shots"] = "many"


def changed_run_to_nothing(told):
    told["runs"] = dict.fromkeys(told["runs"], 5)


def changed_cell(index, value):
    def change(told):
        told["cells"][0][index] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed_run,
        changed_run_to_nothing,
        *(changed_cell(0, v) for v in (5, [], "nobody")),
        changed_cell(1, {}),
        changed_cell(3, "1"),
        *(changed_cell(4, v) for v in (5, [], [[]], [["no key"]], [[5]], [[[]]])),
        *(lambda told, v=v: told.update(cells=v) for v in (5, [5], [[]], None)),
        *(lambda told, v=v: told.update(left_out=v) for v in (5, [5], None)),
        *(lambda told, v=v: told.update(missing=v) for v in (5, [5], {"a": 5}, None)),
        lambda told: told.update(recipe=[]),
        lambda told: told.pop("recipe"),
    ],
)
def test_a_plan_with_wrong_content_is_told(saved, tmp_path, change):
    path, told = saved
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"The plan .*table5\.json cannot be used: "):
        load_plans(tmp_path)
