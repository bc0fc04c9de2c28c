import json
import shutil
from pathlib import Path

import pytest
from PIL import Image


def test_json_contract(run_json, saved, photos):
    record = run_json("evaluate", saved, photos, "--json")
    assert record["n"] == 12
    assert 0 <= record["top1"] <= 100
    assert 0 <= record["zero_shot_top1"] <= 100
    assert set(record["per_class"]) == {"red", "green", "blue"}
    mean = sum(record["per_class"].values()) / 3
    assert record["top1"] == pytest.approx(mean, abs=0.01)
    assert sum(map(sum, record["confusion"])) == 12
    assert record["seen_in_training"] == 0


def test_tables_and_plots(run, saved, photos, tmp_path):
    result = run("evaluate", saved, photos, "--plots", tmp_path / "plots")
    assert result.exit_code == 0, result.stderr
    for words in ("of 12 pictures right", "Zero-shot CLIP: ", "worst first", "zero-shot %"):
        assert words in result.stdout
    with Image.open(tmp_path / "plots" / "confusion.png") as image:
        assert image.width > 300
    assert "older" not in result.stderr
    again = run("evaluate", saved, photos, "--plots", tmp_path / "plots", "--json")
    assert "confusion.png, in the place of an older file" in again.stderr
    both = run("evaluate", saved, photos, "--json", "--answers", "/dev/fd/1")
    assert (both.exit_code, "standard output" in both.stderr) == (2, True)


def test_pictures_that_were_learned_from_are_told(run_json, run, saved, photos, tmp_path):
    record = run_json("evaluate", saved, photos, "--split", "train", "--json")
    assert record["seen_in_training"] == 12  # 4 shots of 3 classes, of 18 pictures
    assert record["n"] == 18
    flat = tmp_path / "flat"
    shutil.copytree(Path(photos) / "train", flat)
    record = run_json("evaluate", saved, flat, "--json")
    assert (record["n"], record["left_out"]) == (6, 12)


def test_a_split_that_is_not_there_is_told_before_a_backbone_is_loaded(
    run, saved, photos, tmp_path, monkeypatch
):
    from clip_adapter.classifier import Classifier

    monkeypatch.setattr(Classifier, "encoder", lambda *_: pytest.fail("a backbone is loaded"))
    flat = tmp_path / "photos#1"
    shutil.copytree(f"{photos}/test", flat / "test")
    for data, split in ((photos, "val"), (flat, "train"), (flat, "held-out")):
        result = run("evaluate", saved, data, "--split", split)
        assert result.exit_code == 1
        name = "train" if split == "held-out" else split
        assert f"no pictures in split '{name}'" in result.stderr


def test_errors(run, saved, photos, tmp_path):
    split = run("evaluate", saved, photos, "--split", "val", "--json")
    assert split.exit_code == 1
    assert "train (18), test (12)" in json.loads(split.stdout)["error"]
    unknown = run("evaluate", saved, photos, "--split", "tset")
    assert unknown.exit_code == 2
    assert "Did you mean 'test'" in unknown.stderr
    other = tmp_path / "other"
    shutil.copytree(Path(photos) / "test", other)
    (other / "red").rename(other / "crimson")
    strange = run("evaluate", saved, other)
    assert strange.exit_code == 1
    assert "'crimson'" in strange.stderr
    assert run("evaluate", tmp_path / "none", photos).exit_code == 1
    damaged = tmp_path / "damaged"
    shutil.copytree(saved, damaged)
    (damaged / "class_weights.safetensors").write_bytes(b"no")
    result = run("evaluate", damaged, photos)
    assert result.exit_code == 1
    assert "damaged" in result.stderr


def test_many_classes_are_cut():
    from clip_adapter.cli.evaluate import worst
    from clip_adapter.evaluation import Report
    from clip_adapter.wording import CLASSES_SHOWN

    names = [f"class [{i}]" for i in range(1000)]
    per_class = {n: float(i % 100) for i, n in enumerate(names)} | {names[0]: None}
    report = Report(
        "m", "d", 1, 1.0, 1.0, 1.0, None, per_class, None, dict.fromkeys(names, 1), [], names
    )
    table = worst(report)
    assert table.row_count == CLASSES_SHOWN
    assert str(999 - CLASSES_SHOWN) in str(table.caption)


def test_what_would_be_ignored_ends_with_2(run, saved, photos, tiny, tmp_path):
    file = tmp_path / "f.safetensors"
    assert run("embed", photos, "--backbone", tiny, "--out", file).exit_code == 0
    refused = {
        "--root": ("evaluate", saved, f"{file}#test", "--root", tmp_path),
        "name after #": ("evaluate", saved, f"{file}#test", "--split", "val"),
        "--feature-norm": ("evaluate", saved, photos, "--feature-norm", "unit"),
        "Leave --backbone away": ("fit", f"{file}#train", "--backbone", tiny),
        "--prompt)": ("fit", f"{file}#train", "--prompt", "a {}."),
        "--views": ("fit", f"{file}#train", "--views", "2"),
    }
    for words, call in refused.items():
        result = run(*call)
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert run("evaluate", saved, f"{file}#test").exit_code == 0


def test_features_of_another_backbone(run, saved, photos, make_folder, tmp_path):
    file, other = tmp_path / "f.safetensors", make_folder(quick_gelu=True)
    assert run("embed", photos, "--backbone", other, "--out", file).exit_code == 0
    result = run("evaluate", saved, f"{file}#test")
    assert result.exit_code == 1
    assert "Embed the pictures with the classifier's backbone" in result.stderr
