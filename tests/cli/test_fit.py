import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

FIELDS = {
    "schema",
    "method",
    "backbone",
    "shots",
    "seed",
    "hyperparameters",
    "seconds",
    "classes",
    "train_pictures",
    "skipped",
    "selection",
    "out",
    "embed_seconds",
    "versions",
}


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "made")


def test_json_contract(run, photos, tiny, out):
    result = run("fit", photos, "--backbone", tiny, "--shots", "4", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    info = json.loads(result.stdout)
    assert set(info) >= FIELDS
    assert info["method"] == "auto"
    assert info["backbone"] == f"local-dir:{tiny}"
    assert (info["shots"], info["seed"], info["classes"], info["train_pictures"]) == (4, 1, 3, 12)
    members = info["hyperparameters"]["members"]
    assert sum(m["share"] for m in members.values()) == pytest.approx(1, abs=1e-3)
    chosen = info["selection"][0]["chosen"].split(", ")
    assert sorted(chosen) == sorted(f"{100 * m['share']:.0f} % {n}" for n, m in members.items())
    assert info["skipped"] == []
    assert "Device: " in result.stderr
    assert (Path(out) / "classifier.json").is_file()


def test_plain_words(run, photos, tiny, out):
    result = run("fit", photos, "--backbone", tiny, "--out", out)
    assert result.exit_code == 0, result.stderr
    for words in ("3 classes (blue, green, red)", "18 pictures", "Chosen: members = "):
        assert words in result.stdout
    parts = re.findall(r"^ +(\d+) % ([a-z+-]+): .+", result.stdout, re.MULTILINE)
    assert "wise-ft" in [name for _, name in parts]
    shares = [int(share) for share, _ in parts]
    assert shares == sorted(shares, reverse=True)
    assert 97 <= sum(shares) <= 103
    assert f"Next: clip-adapter evaluate {out} {photos}" in result.stdout
    assert "Device" not in result.stdout


def test_plain_words_of_one_method(run, photos, tiny, out):
    result = run("fit", photos, "--backbone", tiny, "--method", "clip-adapter", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "Chosen: visual_ratio " in result.stdout
    assert " % clip-adapter" not in result.stdout


def test_same_seed_same_classifier(run_json, photos, tiny, tmp_path):
    for name in "ab":
        run_json(
            "fit", photos, "--backbone", tiny, "--shots", "3", "--out", tmp_path / name, "--json"
        )
    first, second = ((tmp_path / n / "adapter.safetensors").read_bytes() for n in "ab")
    assert first == second


def test_options_reach_the_method(run_json, run, photos, tiny, out):
    words = ["fit", photos, "--backbone", tiny, "--out", out, "--json"]
    words += ["--method", "clip-adapter"]
    info = run_json(*words, "-o", "visual_ratio=0.25", "-o", "steps=3")
    assert info["hyperparameters"]["visual_ratio"] == 0.25
    assert info["hyperparameters"]["steps"] == 3
    for wrong in ("visual_ratio", "visual_ratio=much", "ratio=1", "=1"):
        result = run(*words, "-o", wrong)
        assert result.exit_code == 2, wrong
        assert json.loads(result.stdout)["allowed"]
    assert run(*words, "-o", "steps=1", "-o", "steps=2").exit_code == 2


def test_unknown_method_and_backbone_name_the_nearest(run, photos, tiny, out):
    method = run("fit", photos, "--method", "clip-adaptor", "--out", out)
    assert method.exit_code == 2
    assert "Did you mean 'clip-adapter'" in method.stderr
    backbone = run("fit", photos, "--backbone", "ViT-B-33/openai", "--out", out)
    assert backbone.exit_code == 2
    assert "ViT-B-32" in backbone.stderr


def test_a_folder_of_other_things_is_kept(run, photos, tiny, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    result = run("fit", photos, "--backbone", tiny, "--out", tmp_path)
    assert result.exit_code == 1
    assert "is not a saved classifier" in result.stderr
    assert "Device" not in result.stderr, "it is told before the work, not after"
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("preprocess", ["--preprocess", "--style"])
def test_prompts_names_views_and_preprocessing(preprocess, run_json, photos, tiny, out, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("folder,name\nred,ruby\ngreen,emerald\nblue,sapphire\n")
    info = run_json(
        *("fit", photos, "--backbone", tiny, "--out", out, "--json", "--class-names", names),
        *("--prompt", "a {}.", "--prompt", "the {}.", "--views", "2", preprocess, "coop"),
    )
    assert info["templates"] == ["a {}.", "the {}."]
    assert (info["views"], info["preprocess"]) == (2, "coop")
    saved = json.loads((Path(out) / "classifier.json").read_text())
    assert saved["class_names"] == ["sapphire", "emerald", "ruby"]


def test_descriptions(run_json, run, photos, tiny, out, tmp_path):
    path = tmp_path / "told.json"
    path.write_text(json.dumps({n: [f"{n} things", "a thing"] for n in ("red", "green", "blue")}))
    words = ["fit", photos, "--backbone", tiny, "--out", out, "--json", "--descriptions", path]
    info = run_json(*words, "--method", "zero-shot")
    assert info["templates"] == []
    assert info["descriptions"]["sentences"] == 6
    path.write_text(json.dumps({"red": ["red things"], "geen": ["x"], "blue": ["x"]}))
    result = run(*words)
    assert result.exit_code == 1
    assert "leaves out 'green' (the file has 'geen')" in json.loads(result.stdout)["error"]


def test_features_without_text_say_what_is_missing(run, out, tmp_path):
    path = tmp_path / "plain.safetensors"
    labels = torch.arange(12) % 3
    features = torch.eye(3)[labels].repeat(1, 4) + 0.1 * torch.randn(12, 12)
    save_file({"train.features": features, "train.labels": labels}, path)
    asked = run("fit", f"{path}#train", "--method", "zero-shot", "--out", out)
    assert asked.exit_code == 1
    assert "needs text weights" in asked.stderr
    assert "--backbone" in asked.stderr
    assert "'text'" in asked.stderr
    assert "linear-probe" in asked.stderr
    probe = run("fit", f"{path}#train", "--method", "linear-probe", "--out", out, "--json")
    assert probe.exit_code == 0, probe.stderr
    assert json.loads(probe.stdout)["backbone"] is None
    score = run("evaluate", out, f"{path}#train", "--json")
    assert json.loads(score.stdout)["zero_shot_top1"] is None
    picture = run("predict", out, path.parent / "x.png", "--json")
    assert picture.exit_code == 1
    (path.parent / "x.png").write_bytes(b"x")
    picture = run("predict", out, path.parent / "x.png", "--json")
    assert "fit it again with --backbone" in picture.stderr


def test_a_set_must_be_named(run, out, tmp_path):
    path = tmp_path / "two.safetensors"
    both = {f"{s}.features": torch.randn(4, 3) for s in ("train", "test")}
    save_file(both | {f"{s}.labels": torch.arange(4) % 2 for s in ("train", "test")}, path)
    result = run("fit", path, "--out", out)
    assert result.exit_code == 2
    assert f"{path}#test" in result.stderr
