"""A unit of runs on pictures: its records, shifts, changed towers, features in the plane."""

import dataclasses
import functools
import json

import pytest
import torch

from clip_adapter.bench.benchmark import units
from clip_adapter.bench.data import Environment, PictureSet
from clip_adapter.bench.execute import in_the_plane, records_of
from clip_adapter.bench.results import Run
from clip_adapter.classifier import Classifier
from clip_adapter.demo import sets, task
from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.store import FeatureStore
from clip_adapter.fitting import fit_task
from clip_adapter.heads import Head

SHOTS = 2


@pytest.fixture(scope="module")
def small():
    """Few and small pictures in the demo's sets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "PER_CLASS", {"train": 3, "test": 2})
        patch.setattr(task, "TASK_PICTURE_SIZE", 24)
        yield


@pytest.fixture(scope="module")
def environment(tmp_path_factory, small):
    folder = tmp_path_factory.mktemp("bench")
    return Environment(out=str(folder), cache=str(folder / "cache"), device="cpu")


@pytest.fixture
def do(environment):
    return functools.partial(records_of, environment)


def a_run(method, options=None, **more):
    run = Run(
        *("demo", "accuracy", "demo", "digest", "demo", "clip", 1, ()),
        *(method, options or {}, SHOTS, 1),
    )
    return dataclasses.replace(run, **more)


def test_a_record_tells_all_of_it(do):
    [record] = do([a_run("clip-adapter", {"visual_ratio": 0.2, "steps": 2})])
    assert record["n"] == 16 * 2
    assert 0 <= record["top1"] <= 100
    assert record["train_pictures"] == 16 * SHOTS
    assert record["chosen"] == {}
    assert record["backbone"]["name"] == "demo"
    assert len(record["backbone"]["fingerprint"]) > 12
    assert record["templates"] == ["a photo of a {}."]
    assert record["trained_parameters"] == 2 * 128 * 32
    assert record["train_seconds"] > 0
    assert (record["skipped"], record["test_skipped"]) == (0, 0)


def test_shifts_are_scored_among_their_own_classes(do, environment):
    shifts = ("demo-v2", "demo-a")
    [record] = do([a_run("zero-shot", shifts=shifts)])
    assert {k: v["n"] for k, v in record["shifts"].items()} == {"demo-v2": 32, "demo-a": 16}
    # Among 8 classes instead of 16 the same pictures cannot be judged worse.
    data = PictureSet("demo", environment)
    run = a_run("zero-shot")
    task, _ = data.task(run, run.instance())
    classifier = fit_task(run.instance(), task, {})
    features, unread = PictureSet("demo-a", environment).test(run, classifier)
    assert unread == 0
    names = [classifier.class_names[i] for i in classifier.logits(features).argmax(1).tolist()]
    truth = [features.class_names[i] for i in features.labels.tolist()]
    among_all = 100 * sum(a == b for a, b in zip(names, truth, strict=True)) / len(truth)
    assert record["shifts"]["demo-a"]["top1"] >= among_all


def test_prompts_of_a_system_take_the_place_of_the_sets_own(do):
    [record] = do([a_run("zero-shot", prompts=("a drawing of the {}.",))])
    assert record["templates"] == ["a drawing of the {}."]


def test_a_changed_tower_scores_its_own_features(do, environment):
    [record] = do([a_run("houlsby", {"epochs": 1, "lr": 1e-2})])
    [frozen] = do([a_run("zero-shot")])
    assert record["trained_parameters"] > 0
    assert record["zero_shot_top1"] is None or record["n"] == frozen["n"]
    # Nothing of a tower that nobody sees again is kept.
    kept = {entry["key"]["fingerprint"] for entry in FeatureStore(environment.cache).info()}
    assert kept == {frozen["backbone"]["fingerprint"]}


def test_a_unit_trained_together_is_as_its_runs_alone(do):
    runs = [
        a_run("clip-adapter", {"visual_ratio": r, "steps": 60}, seed=seed)
        for r in (0.2, 0.6)
        for seed in (1, 2)
    ]
    assert [len(unit) for unit in units(runs)] == [4]
    together = do(runs)
    alone = [do([run])[0] for run in runs]
    for a, b in zip(together, alone, strict=True):
        assert a["top1"] == b["top1"]
        assert a["hyperparameters"] == b["hyperparameters"]
    assert len({r["top1"] for r in together}) > 1


def test_what_chooses_for_itself_is_alone():
    auto = [a_run("clip-adapter", seed=seed) for seed in (1, 2)]
    zero = [a_run("clip-adapter", {"visual_ratio": 0.0}, seed=seed) for seed in (1, 2)]
    probes = [a_run("linear-probe", seed=seed) for seed in (1, 2)]
    assert [len(unit) for unit in units([*auto, *zero, *probes])] == [1] * 6
    other = a_run("clip-adapter", {"visual_ratio": 0.2})
    sets = [other, dataclasses.replace(other, dataset="demo-colours")]
    assert [len(unit) for unit in units(sets)] == [1, 1]


def test_the_identity_of_a_set_does_not_tell_where_it_lies(tmp_path, small):
    environments = [Environment(out=str(tmp_path / name)) for name in "ab"]
    one, two = (PictureSet("demo-colours", environment).identity for environment in environments)
    assert one == two
    assert one != PictureSet("demo-textures", environments[0]).identity


def test_pictures_that_cannot_be_read_are_counted_and_cost_no_run(tmp_path, small):
    environment = Environment(out=str(tmp_path), cache=str(tmp_path / "cache"), device="cpu")
    folder = sets.demo_set("demo", tmp_path / "data")
    whole = PictureSet("demo", environment).identity
    first = sorted((folder / "train").iterdir())[0]
    # One of three: some draws of two have it, so that the draws are of two sizes.
    (first / "00.png").write_bytes(b"no picture")
    for path in sorted((folder / "test").iterdir())[1].iterdir():
        path.write_bytes(b"no picture")
    runs = [
        a_run("clip-adapter", {"visual_ratio": 0.5, "steps": 2}, seed=seed) for seed in range(6)
    ]
    assert [len(unit) for unit in units(runs)] == [6]
    with pytest.warns(UserWarning, match="pictures skipped"):
        records = records_of(environment, runs)
    assert {r["skipped"] for r in records} == {0, 1}
    assert {r["test_skipped"] for r in records} == {2}
    assert {r["train_pictures"] for r in records} == {16 * SHOTS, 16 * SHOTS - 1}
    assert PictureSet("demo", environment).identity == whole  # the same files are there


def test_a_set_with_files_that_are_gone_is_another_one(tmp_path):
    folder = tmp_path / "eurosat"
    rows = [[f"a/{i}.jpg", i % 2, "ab"[i % 2]] for i in range(6)]
    split = {"train": rows[:2], "val": [], "test": rows[2:]}
    (folder / "2750" / "a").mkdir(parents=True)
    (folder / "split_zhou_EuroSAT.json").write_text(json.dumps(split))
    for name, *_ in rows:
        (folder / "2750" / name).write_bytes(b"x")
    environment = Environment(out=str(tmp_path / "out"), root=str(tmp_path))
    whole = PictureSet("eurosat", environment).identity
    (folder / "2750" / "a" / "3.jpg").unlink()
    partial = PictureSet("eurosat", environment).identity
    assert partial != whole
    (folder / "2750" / "a" / "3.jpg").write_bytes(b"x")
    assert PictureSet("eurosat", environment).identity == whole


def clusters(apart):
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    rows = torch.randn(40, 8, generator=draw) + apart * torch.eye(8)[labels]
    return FeatureSet(rows, labels, list("abcd"))


def test_features_in_the_plane_repeat_and_tell_how_far_classes_are_apart():
    classifier = Classifier(Head(torch.eye(8)[:4]), list("abcd"))
    far = in_the_plane(classifier, clusters(20.0), 1)
    assert far == in_the_plane(classifier, clusters(20.0), 1)
    assert len(far["points"]) == len(far["labels"]) == 40
    assert far["silhouette"] > 0.8 > in_the_plane(classifier, clusters(0.5), 1)["silhouette"]


def test_a_linear_head_has_no_features_to_show():
    linear = Classifier(Head(torch.eye(8)[:4], kind="linear"), list("abcd"))
    with pytest.raises(UsageError, match="no features to show"):
        in_the_plane(linear, clusters(1.0), 1)
