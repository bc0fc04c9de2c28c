import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
import typer
from typer.testing import CliRunner

import clip_adapter
from clip_adapter.cli.main import app
from clip_adapter.errors import CancelledError, DataError, MissingExtraError, UsageError
from clip_adapter.features.files import load_features
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import NotesWarning
from clip_adapter.scale.run import embed_shards, predict_shards
from clip_adapter.scale.shards import Shard
from clip_adapter.scale.worker import Job, Worker
from clip_adapter.scale.workers import Workers

pytestmark = pytest.mark.filterwarnings("ignore::clip_adapter.reporting.NotesWarning")


def lines_of(out):
    return [json.loads(path.read_text()) for path in sorted((out / "manifest").iterdir())]


def times_of(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}


def same(features, expected):
    assert sorted(features.digests) == sorted(expected)
    rows = torch.stack([expected[digest] for digest in features.digests])
    torch.testing.assert_close(features.plain_view, rows, rtol=1e-4, atol=1e-5)


def test_every_form_of_input_gives_the_features_of_embed(source, tmp_path, backbone, expected):
    out = tmp_path / "out"
    with pytest.warns(NotesWarning, match="1 picture could not be read"):
        done = embed_shards(source, out, backbone=backbone, shard_size=4)
    assert (done.rows, done.unreadable, done.failed) == (9, 1, {})
    assert done.made == done.shards == (1 if source.suffix in (".tar", ".parquet") else 3)
    read = load_features(out)
    same(read.feature_set, expected)
    assert (read.backbone, read.meta["backbone_fingerprint"]) == ("demo", backbone.fingerprint)
    lines = lines_of(out)
    (failure,) = [failure for line in lines for failure in line["failures"]]
    assert failure["name"].endswith("red/broken.jpg")
    assert failure["reason"]
    assert sum(line["rows"] for line in lines) == 9
    assert len({line["key"] for line in lines}) == 1
    if source.suffix in (".tar", ".parquet"):
        classes = read.feature_set.class_names
        assert classes == ["blue", "green", "red"]
        assert all(
            classes[label] in name or "path" not in source.name
            for label, name in zip(read.feature_set.labels, read.feature_set.names, strict=True)
        )
        assert read.feature_set.labels.bincount().tolist() == [3, 3, 3]


def test_a_data_set_keeps_its_classes_and_is_learned_from(photos, tmp_path, backbone):
    out = tmp_path / "out"
    embed_shards(photos, out, backbone=backbone, shard_size=4, labelled=True)
    classifier = clip_adapter.fit(str(out), method="gda", shots=2)
    assert classifier.class_names == ["blue", "green", "red"]
    assert clip_adapter.evaluate(classifier, str(out)).top1 >= 0
    answers = predict_shards(
        classifier_of(classifier, tmp_path), photos, tmp_path / "answers", top=2
    )
    assert (answers.rows, answers.unreadable) == (9, 1)
    table = pq.read_table(next((tmp_path / "answers").glob("*.parquet")))
    assert {"label", "probability", "label_2", "probability_2"} <= {*table.column_names}
    pictures = [photos / name for name in table["path"].to_pylist()]
    assert table["label"].to_pylist() == classifier.predict(pictures)
    with pytest.raises(UsageError, match="holds what was made otherwise: top"):
        predict_shards(classifier_of(classifier, tmp_path), photos, tmp_path / "answers")


def classifier_of(classifier, folder):
    return classifier.save(folder / "classifier")


def test_what_is_done_stays_and_what_is_not_true_any_more_is_made_again(
    photos, tmp_path, backbone, lines
):
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    for i, path in enumerate(sorted(photos.rglob("*.png"))):
        (mine / f"{i}.png").write_bytes(path.read_bytes())
    options = {"backbone": backbone, "shard_size": 3}
    embed_shards(mine, out, **options)
    before = times_of(out)
    again = embed_shards(mine, out, **options)
    assert (again.made, again.kept, again.rows) == (0, 3, 9)
    assert times_of(out) == before
    (mine / "4.png").write_bytes((mine / "5.png").read_bytes())  # another picture, of one name
    part = out / "000002.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert embed_shards(mine, out, **options).made == 2
    assert any("000002.parquet. It is made again" in line for line in lines.messages)
    with pytest.raises(UsageError, match="made otherwise: transform"):
        embed_shards(mine, out, **options, preprocess="coop")
    with pytest.raises(DataError, match=r"1 other shard: '000002\.parquet'"):
        embed_shards(mine, out, backbone=backbone, shard_size=5)
    (out / "manifest" / "000001.json").unlink()
    assert len(load_features(out).feature_set) == 6
    assert "1 part is missing" in lines.messages[-1]


def test_another_input_is_refused_and_one_that_grew_is_not(photos, tmp_path, backbone):
    out, options = tmp_path / "out", {"backbone": backbone, "shard_size": 4}
    names = [str(path) for path in sorted(photos.rglob("*.png"))]
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("\n".join(names[:3]))
    other.write_text("\n".join(names[3:6]))
    embed_shards(one, out, **options)
    before = times_of(out)
    for source, more in ((other, {}), (one, {"root": tmp_path}), (photos / "red", {})):
        with pytest.raises(UsageError, match=r"made of .*one\.txt, and the input is "):
            embed_shards(source, out, **options, **more)
    assert times_of(out) == before
    one.write_text("\n".join(names[:4]))
    assert embed_shards(one, out, **options).made == 1
    entry = json.loads((out / "features.json").read_text())
    del entry["input"]  # as in folders of before
    (out / "features.json").write_text(json.dumps(entry))
    assert embed_shards(one, out, **options).kept == 1
    with pytest.raises(UsageError, match="made of"):
        embed_shards(other, out, **options)


@pytest.mark.parametrize("name", ["000000.parquet", "manifest/000000.json", "classifier.json"])
def test_a_folder_of_somebody_else_is_refused(photos, tmp_path, name):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    for place, words in ((out, "is not empty"), (out / name, "is no folder")):
        called = ["scale", "embed", str(photos), "--out", str(place), "--backbone", "demo"]
        result = CliRunner().invoke(app, called)
        assert words in result.stderr
        assert result.exit_code == 2
    assert [p.read_text() for p in out.rglob("*") if p.is_file()] == ["mine"]
    assert not (out / ".work").exists()


def test_a_kill_between_writing_and_renaming_costs_one_shard(
    photos, tmp_path, backbone, expected, monkeypatch
):
    out, replace = tmp_path / "out", os.replace

    class Killed(BaseException):
        pass

    def dies(source, target):
        if Path(target).name == "000001.parquet":
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(Killed):
            embed_shards(photos, out, backbone=backbone, shard_size=4)
    assert (out / ".work" / "000001.parquet").exists()
    assert [*times_of(out)] == ["000000.parquet"]
    done = embed_shards(photos, out, backbone=backbone, shard_size=4)
    assert (done.made, done.kept) == (2, 1)
    same(load_features(out).feature_set, expected)
    assert not [*(out / ".work").glob("*.parquet")]


def test_two_at_once_share_the_shards(photos, tmp_path, backbone, expected):
    out = tmp_path / "out"
    with ThreadPoolExecutor(2) as pool:  # locks keep threads apart as they do processes
        runs = [
            pool.submit(embed_shards, photos, out, backbone=backbone, shard_size=2)
            for _ in range(2)
        ]
    both = [run.result() for run in runs]
    assert sum(one.made for one in both) == 5
    assert all(one.made + one.kept == 5 for one in both)
    same(load_features(out).feature_set, expected)
    worker = Worker(Job(str(out), 5, SourceOptions(backbone=backbone)))
    worker.start()
    with worker._out.hold("000000", wait=False):
        assert worker.work(Shard("000000", ""), wait=False).state == "held"


def test_parts_of_a_job_array_make_the_whole(photos, tmp_path, backbone, expected):
    out = tmp_path / "out"
    parts = [
        embed_shards(photos, out, backbone=backbone, shard_size=2, shard=(i, 3)) for i in range(3)
    ]
    assert [part.made for part in parts] == [2, 2, 1]
    same(load_features(out).feature_set, expected)


def test_a_store_of_objects(as_tar, photos, tmp_path, backbone, expected):
    files = fsspec.filesystem("memory")
    as_tar(photos, tmp_path)
    files.put(str(tmp_path / "all.tar"), "/in/deep/all.tar")
    files.put(str(photos), "/pictures", recursive=True)
    for source, shards in (("memory://in", 1), ("memory://pictures", 3)):
        out = f"memory://out{shards}"
        done = embed_shards(source, out, backbone=backbone, shard_size=4)
        assert (done.made, done.rows, done.unreadable) == (shards, 9, 1)
        assert embed_shards(source, out, backbone=backbone, shard_size=4).kept == shards
        files.get(f"/out{shards}", str(tmp_path / str(shards)), recursive=True)
        same(load_features(tmp_path / str(shards)).feature_set, expected)


def test_a_shard_that_cannot_be_read_fails_alone(as_tar, photos, tmp_path, backbone):
    shards = tmp_path / "shards"
    shards.mkdir()
    whole = as_tar(photos, shards).read_bytes()
    (shards / "cut.tar").write_bytes(whole[: len(whole) // 2 // 512 * 512])
    (shards / "no.parquet").write_bytes(b"PAR1")
    (shards / "empty.txt").write_text("\n")
    out = str(tmp_path / "out")
    words = ["scale", "embed", str(shards), "--out", out, "--backbone", "demo", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["made"], told["rows"]) == (1, 9)
    assert sorted(told["failed"]) == ["cut.tar", "empty.txt", "no.parquet"]
    assert "cut off" in told["failed"]["cut.tar"] or "end of data" in told["failed"]["cut.tar"]
    assert "no pictures" in told["failed"]["empty.txt"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--shard", "4/4"], "--shard 4/4"),
        (["--shard", "x"], "from 0 to N - 1"),
        (["--workers", "2"], "--workers with --engine local"),
        (["--backbone", "Demo"], "demo"),
    ],
)
def test_wrong_words_end_with_2(photos, tmp_path, words, found):
    out = str(tmp_path / "out")
    result = CliRunner().invoke(app, ["scale", "embed", str(photos), "--out", out, *words])
    assert result.exit_code == 2
    assert found in result.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_inputs_are_told(photos, tmp_path, backbone):
    (tmp_path / "none").mkdir()
    for source, found in (
        (tmp_path / "gone", "does not exist"),
        (tmp_path / "none", "neither shards nor pictures"),
        (photos.parent, "lies in"),
        ("nosuch://x", "cannot be opened"),
    ):
        with pytest.raises((UsageError, DataError), match=found):
            embed_shards(source, photos.parent / "out", backbone=backbone)
    with pytest.raises(UsageError, match="views would change nothing"):
        embed_shards(photos, tmp_path / "out", views=2)


def test_a_listener_hears_and_stops_it(photos, tmp_path, backbone):
    stages, cancel = [], threading.Event()

    def listener(stage):
        stages.append((stage.title, stage.done, stage.total))
        cancel.set()

    with pytest.raises(CancelledError):
        embed_shards(photos, tmp_path / "out", backbone=backbone, progress=listener, cancel=cancel)
    assert stages == [("Shards", 0, 1)]


def test_ray_is_an_extra_and_workers_fit_the_cluster(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="the extra 'ray'"):
        embed_shards(photos, tmp_path / "out", engine="ray", backbone="demo")
    cpus = [{"CPU": 4.0}, {"CPU": 4.0}]
    assert Workers().sized(cpus) == (2, {"num_cpus": 4, "num_gpus": 0})
    assert Workers(worker_cpus=1).sized(cpus)[0] == 8
    gpus = [{"CPU": 2.0}, {"CPU": 16.0, "GPU": 2.0}]
    assert Workers().sized(gpus) == (2, {"num_cpus": 8, "num_gpus": 1})
    assert Workers(worker_gpus=0.5).sized(gpus) == (4, {"num_cpus": 4, "num_gpus": 0.5})
    assert Workers(workers=9).sized([])[0] == 9
    with pytest.raises(UsageError, match="the cluster has none"):
        Workers(worker_gpus=1).sized(cpus)


def test_pictures_that_are_all_broken_end_with_1(tmp_path, backbone):
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.jpg").write_text("no picture")
    words = ["scale", "embed", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*words, "--backbone", "demo"])
    assert result.exit_code == 1
    assert "Not read: 2, named in manifest/." in result.stdout
    (line,) = lines_of(tmp_path / "out")
    assert [failure["name"] for failure in line["failures"]] == ["a.jpg", "b.jpg"]
    assert len(load_features(tmp_path / "out").feature_set) == 0


@pytest.mark.parametrize("example", ["slurm.sh", "kubernetes.yaml"])
def test_the_job_arrays_say_what_the_command_takes(example, root, tmp_path):
    program = tmp_path / "clip-adapter"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    script = (root / "examples" / "cluster" / example).read_text("utf-8")
    if example.endswith(".yaml"):
        script = script.partition(">-\n")[2].partition("resources:")[0].replace("\n", " ")
    done = subprocess.run(
        ["bash", "-c", script],
        env={
            **{"PATH": f"{tmp_path}:{os.environ['PATH']}", "INPUT": "in", "OUT": "out"},
            **{"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "64"},
            **{"JOB_COMPLETION_INDEX": "5", "BACKBONE": "demo"},
        },
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.split()
    assert words[words.index("--shard") + 1] == "5/64"
    scale = typer.main.get_command(app).commands["scale"]
    with scale.commands[words[1]].make_context("embed", words[2:]) as context:
        assert context.params["dtype"] == "float16"


def test_a_slip_in_the_path_is_told_before_weights_are_fetched(tmp_path):
    words = ["scale", "embed", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "nowhere does not exist" in result.stderr


@pytest.mark.parametrize(
    ("root", "code", "found"),
    [([], 2, "say where it lies with --root"), (["--root", "."], 1, "EuroSAT is not in '.'")],
)
def test_a_labelled_input_may_be_the_name_of_a_data_set(root, code, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["scale", "embed", "eurosat", "--labelled", "--out", "out", *root]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code
    assert found in result.stderr
