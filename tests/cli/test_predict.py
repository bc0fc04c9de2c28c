import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from clip_adapter import Classifier
from clip_adapter.cli import predictions
from clip_adapter.errors import DecodeError
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import listening


@pytest.fixture
def test_folder(photos):
    return Path(photos) / "test"


def test_json_contract(run_json, saved, test_folder, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    good = test_folder / "red" / "00.png"
    records = run_json(
        "predict", saved, good, tmp_path / "broken.jpg", "missing.png", good, "--json"
    )
    assert [set(one) for one in records] == [
        {"schema", "path", "label", "probability"},
        {"schema", "path", "error"},
        {"schema", "path", "error"},
        {"schema", "path", "label", "probability"},
    ]
    assert records[0] == records[3]
    assert records[0]["label"] == Classifier.load(saved).predict([good])[0]
    assert records[1]["path"] == str(tmp_path / "broken.jpg")


def test_the_same_numbers_as_in_python(run_json, saved, test_folder):
    records = run_json("predict", saved, test_folder, "--json", "--top", "3")
    paths = sorted(test_folder.rglob("*.png"))
    assert [one["path"] for one in records] == list(map(str, paths))
    classifier = Classifier.load(saved)
    shares = classifier.predict_proba(paths)
    for row, one in zip(shares, records, strict=True):
        assert [g["label"] for g in one["top"]] == [
            classifier.class_names[i] for i in np.argsort(-row)
        ]
        assert sum(g["probability"] for g in one["top"]) == pytest.approx(1, abs=1e-5)
        assert one["probability"] == pytest.approx(row.max(), abs=1e-5)


def test_many_pictures_are_answered_a_part_at_a_time(
    run_json, saved, test_folder, tmp_path, monkeypatch
):
    (tmp_path / "broken.jpg").write_text("no picture")
    paths = sorted(test_folder.rglob("*.png"))[:5]
    words = "predict", saved, *paths[:3], tmp_path / "broken.jpg", *paths[3:], "--json"
    whole = run_json(*words)
    monkeypatch.setattr(predictions, "AT_ONCE", 2)
    for one, other in zip(run_json(*words), whole, strict=True):
        assert one.pop("probability", 0) == pytest.approx(other.pop("probability", 0), abs=1e-5)
        assert one == other
    stages = []
    records = [{"path": str(path)} for path in paths]
    with listening(stages.append):
        predictions.of_pictures(Classifier.load(saved), records, 1, SourceOptions(), cache=None)
    assert {stage.total for stage in stages} == {5}
    assert [stage.done for stage in stages] == sorted(stage.done for stage in stages)
    assert stages[-1].done == 5


def test_exit_code_only_when_all_failed(run, saved, test_folder):
    good = test_folder / "red" / "00.png"
    assert run("predict", saved, "a.png", good).exit_code == 0
    result = run("predict", saved, "a.png", "b.png", "--json")
    assert result.exit_code == 1
    assert [set(one) for one in json.loads(result.stdout)] == [{"schema", "path", "error"}] * 2
    assert "2 of 2 pictures could not be read" in result.stderr


def test_folders_without_pictures_are_told_in_one_plain_error(run, saved, test_folder, tmp_path):
    empty, out = tmp_path / "empty", tmp_path / "all.csv"
    empty.mkdir()
    for words in ((), ("--top", "2"), ("--out", out)):
        result = run("predict", saved, empty, *words)
        assert result.exit_code == 1
        assert f"Error: No picture in {empty}." in result.stderr
        assert "could not be read" not in result.stderr
        assert "┃" not in result.stdout
    assert not out.exists()
    assert run("predict", saved, empty, test_folder / "red").exit_code == 0


def test_what_was_answered_is_counted_where_it_goes_into_a_file(run, saved, test_folder, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    out = tmp_path / "all.csv"
    result = run("predict", saved, test_folder, tmp_path / "broken.jpg", "--out", out)
    with out.open(newline="") as lines:
        labels = [row["label"] for row in csv.DictReader(lines)]
    counts = Counter(filter(None, labels)).most_common()
    answers = ", ".join(f"{label} {count}" for label, count in counts)
    assert f"Answers: {answers}; 1 of 13 pictures could not be read." in result.stderr


def test_broken_pictures_alone(run, saved, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    result = run("predict", saved, tmp_path / "a.png", "--json")
    assert result.exit_code == 1
    assert "empty" in json.loads(result.stdout)[0]["error"]


@pytest.mark.parametrize("end", ["\n", "\0", "\r\n"])
def test_standard_input(run_json, saved, test_folder, end):
    paths = [str(test_folder / "red" / f"0{i}.png") for i in range(2)]
    records = run_json("predict", saved, "-", "--json", stdin=end.join([*paths, ""]))
    assert [one["path"] for one in records] == paths


def test_folders_globs_and_depth(run_json, saved, test_folder, tmp_path, monkeypatch):
    assert len(run_json("predict", saved, test_folder, "--json")) == 12
    assert len(run_json("predict", saved, f"{test_folder}/*/0[01].png", "--json")) == 6
    assert len(run_json("predict", saved, f"{test_folder}/**/*.png", "--json")) == 12
    everything = [one["path"] for one in run_json("predict", saved, f"{test_folder}/**", "--json")]
    assert sorted(everything) == sorted(map(str, test_folder.rglob("*.png")))
    flat = run_json("predict", saved, test_folder / "red", "--no-recursive", "--json")
    assert len(flat) == 4
    odd = tmp_path / "a [1] 'b' *.png"
    odd.write_bytes((test_folder / "red" / "00.png").read_bytes())
    assert "label" in run_json("predict", saved, odd, "--json")[0]


def test_nothing_is_an_answer_too(run, saved, tmp_path):
    for words in ([tmp_path], [tmp_path / "*.png"], ["x" * 5000], ["a\udcff.png"]):
        result = run("predict", saved, *words, "--json")
        assert result.exit_code == 1, result.stderr
        assert "error" in json.loads(result.stdout)[0]
    assert run("predict", saved, "-", stdin="").exit_code == 2


def test_csv_parquet_and_table_agree(run, run_json, saved, test_folder, tmp_path):
    words = ["predict", saved, test_folder, "none.png", "--top", "2"]
    records = run_json(*words, "--json")
    rows = list(csv.DictReader(io.StringIO(run(*words, "--format", "csv").stdout)))
    assert [r["path"] for r in rows] == [t["path"] for t in records]
    assert rows[0]["label"] == records[0]["label"]
    assert rows[0]["label_2"] == records[0]["top"][1]["label"]
    assert rows[-1]["error"] == records[-1]["error"]
    out = tmp_path / "deep" / "answers.parquet"
    assert run(*words, "--format", "parquet", "--out", out).exit_code == 0
    table = pq.read_table(out).to_pylist()
    assert [r["label"] for r in table[:-1]] == [t["label"] for t in records[:-1]]
    assert table[-1]["label"] is None
    shown = run(*words).stdout
    assert records[0]["label"] in shown
    assert records[-1]["error"] in shown
    written = tmp_path / "answers.json"
    assert run(*words, "--json", "--out", written).exit_code == 0
    assert json.loads(written.read_text()) == records


def test_wrong_formats(run, saved, test_folder):
    assert run("predict", saved, test_folder, "--format", "parquet").exit_code == 2
    assert run("predict", saved, test_folder, "--format", "csv", "--json").exit_code == 2
    assert run("predict", saved, test_folder, "a.safetensors").exit_code == 2


def test_another_backbone_is_refused(run, saved, test_folder, tmp_path):
    import shutil

    other = tmp_path / "classifier"
    shutil.copytree(saved, other)
    config = json.loads((other / "classifier.json").read_text())
    config["info"]["backbone_fingerprint"] = "0" * 64
    (other / "classifier.json").write_text(json.dumps(config))
    result = run("predict", other, test_folder)
    assert result.exit_code == 1
    assert "are not those that this classifier was trained with" in result.stderr


@pytest.mark.parametrize(
    ("dim", "fingerprint", "norm", "words"),
    [
        (16, "b" * 64, "raw", "with the weights bbbbbbbbbbbb; the classifier was trained on"),
        (16, "", "unit", "whose length counts in its scores"),
        (15, "", "raw", "Features of shape (4, 15)"),
        (16, "", "raw", ""),
    ],
)
def test_features_are_checked_as_evaluate_does(run, tmp_path, dim, fingerprint, norm, words):
    from clip_adapter.features.feature_set import FeatureSet
    from clip_adapter.features.files import write_features
    from clip_adapter.heads import Head

    generator = torch.Generator().manual_seed(0)
    head = Head(torch.randn(2, 16, generator=generator), bias=torch.ones(2), kind="linear")
    info = {"backbone": "mine", "backbone_fingerprint": "a" * 64}
    saved = Classifier(head, ["x", "y"], info=info).save(tmp_path / "classifier")
    rows = torch.randn(4, dim, generator=generator) * 3
    features = FeatureSet(rows, torch.tensor([0, 1, 0, 1]), ["x", "y"], feature_norm=norm)
    meta = {"backbone": "mine", "backbone_fingerprint": fingerprint or None}
    write_features(tmp_path / "f.safetensors", {"test": features}, None, meta)
    results = [
        run(command, saved, f"{tmp_path}/f.safetensors#test", "--json")
        for command in ("predict", "evaluate")
    ]
    for result in results:
        assert result.exit_code == (1 if words else 0), result.stderr
        assert words in result.stderr
    if words:
        assert results[0].stdout == results[1].stdout
    else:
        answers = Classifier.load(saved).predict(features)
        assert [one["label"] for one in json.loads(results[0].stdout)] == answers


def test_a_folder_in_python_says_what_to_pass(saved, test_folder):
    for folder in (test_folder, [str(test_folder)]):
        with pytest.raises(DecodeError, match="is a folder") as caught:
            Classifier.load(saved).predict(folder)
        assert "rglob" in caught.value.hint


@pytest.mark.skipif(os.name == "nt", reason="names of bytes")
def test_names_of_any_bytes(run_json, saved, test_folder, tmp_path):
    data = (test_folder / "red" / "00.png").read_bytes()
    names = [b"caf\xe9.png", "花 \"quoted\" 'name'.png".encode(), b"new\nline.png"]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(data)
    printed = run_json("predict", saved, tmp_path, "--json")
    assert {os.fsencode(Path(one["path"]).name) for one in printed} == set(names)
    assert all("label" in one for one in printed)
    from clip_adapter.cli.predictions import as_bytes

    records = [{key: one[key] for key in ("path", "label", "probability")} for one in printed]
    assert pq.read_table(io.BytesIO(as_bytes(records, "parquet"))).num_rows == 3
    assert b"caf\xe9.png" in as_bytes(records, "csv")
    assert "caf\N{REPLACEMENT CHARACTER}.png".encode() in as_bytes(records, "table")
    assert json.loads(as_bytes(printed, "json")) == printed


def test_a_pipe_that_is_named_is_no_picture_and_does_not_wait(run, saved, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    result = run("predict", saved, tmp_path / "pipe.png")
    assert result.exit_code == 1
    assert "a pipe or device, no picture" in result.stdout


def test_a_list_skips_lines_of_blanks_and_is_text(run, run_json, saved, photos):
    good = Path(photos) / "test" / "red" / "00.png"
    assert len(run_json("predict", saved, "-", "--json", stdin=f"\n  \n{good}\n\t\n")) == 1
    compressed = bytes(range(1, 256)) * 9  # of no two NUL in a row
    for binary in (good.read_bytes(), compressed):
        result = run("predict", saved, "-", stdin=binary)
        assert result.exit_code == 2
        assert "- takes a list of paths, one a line" in result.stderr
