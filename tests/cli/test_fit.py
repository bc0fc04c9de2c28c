import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import clip_adapter
from clip_adapter.errors import UsageError

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
    result = run("fit", photos, "--backbone", tiny, "--out", out, "--verbose")
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
    words = ["fit", photos, "--backbone", tiny, "--method", "clip-adapter", "--out", out]
    words += ["-o", "steps=2"]
    plain = run(*words)
    assert plain.exit_code == 0, plain.stderr
    sentence = "How far your pictures may change what CLIP says was tried out on 18 of them"
    assert sentence in plain.stdout
    for jargon in ("visual_ratio", "candidate", "loss", "Chosen"):
        assert jargon not in plain.stdout
    verbose = run(*words, "-v").stdout
    assert "Chosen: visual_ratio " in verbose
    assert sentence not in verbose
    assert " % clip-adapter" not in verbose
    given = run(*words, "-o", "visual_ratio=0.2").stdout
    assert "How far" not in given
    assert "optimistic" not in given


def test_one_picture_of_each_is_said_plainly(paint_task, run, tmp_path, out):
    words = ["fit", paint_task(tmp_path / "few", {".": 1}), "--backbone", "demo", "--out", out]
    result = run(*words, "--method", "clip-adapter")
    assert result.exit_code == 0, result.stderr
    assert "too few classes have two pictures" in result.stdout


def test_held_out_pictures_by_class(paint_task, paint, run, run_json, tmp_path, out):
    folder = paint_task(tmp_path / "p", {".": 5})
    paint(folder / "white" / "only.png", (250, 250, 250), 1)
    words = ["fit", folder, "--backbone", "demo", "--method", "clip-adapter", "--out", out]
    words += ["-o", "steps=2"]
    held = run_json(*words, "--json")["held_out"]
    assert held["class_counts"] == {"blue": 5, "green": 5, "red": 5, "white": 0}
    assert held["per_class"]["white"] is None
    present = [v for v in held["per_class"].values() if v is not None]
    assert held["accuracy"] == pytest.approx(sum(present) / 3), "classes count alike"
    plain = [v for v in held["zero_shot_per_class"].values() if v is not None]
    assert held["zero_shot_accuracy"] == pytest.approx(sum(plain) / 3)
    shown = run(*words).stdout
    assert "A guide and no test" in shown
    assert shown.index("optimistic") < shown.index("zero-shot %")


def test_hold_out(paint_task, paint, run, run_json, tmp_path, out):
    folder = paint_task(tmp_path / "p", {".": 5})
    paint(folder / "white" / "only.png", (250, 250, 250), 1)
    (folder / "white" / "list.pdf").touch()
    words = ["fit", folder, "--backbone", "demo", "--method", "zero-shot", "--out", out]
    info = run_json(*words, "--hold-out", "20%", "--json")
    assert (info["train_pictures"], info["hold_out"]["pictures"]) == (13, 3)
    assert info["test"]["class_counts"] == {"blue": 1, "green": 1, "red": 1, "white": 0}
    assert info["hold_out"]["top1"] == info["test"]["top1"]
    saved = json.loads((Path(out) / "classifier.json").read_text())["info"]["hold_out"]
    assert saved == info["hold_out"]
    again = run_json("evaluate", out, folder, "--split", "held-out", "--json")
    assert again["per_class"] == info["test"]["per_class"]
    said = run(*words, "--hold-out", "0.2")
    assert "Held out: 3 of 16 pictures are not learned from (seed 1); 1 class has" in said.stderr
    assert said.stderr.count("1 file left out") == 1, "once, and not again for what is held out"
    assert "of 3 pictures right" in said.stdout
    assert "evaluate" not in said.stdout.split("Next:")[1]
    assert run_json(*words, "--hold-out", "1", "--json")["test"] == info["test"]


@pytest.mark.parametrize("asked", ["0", "0%", "100%", "120%", "-1", "1.5", "many", "nan", "%", ""])
def test_hold_out_of_nothing_is_refused(asked, run, photos, out):
    result = run("fit", photos, "--hold-out", asked, "--out", out)
    assert result.exit_code == 2
    assert "such as 20%" in result.stderr


def test_hold_out_beside_test_pictures_or_of_single_ones_is_refused(
    paint_task, run, photos, tmp_path, out
):
    words = ["--backbone", "demo", "--method", "zero-shot", "--hold-out", "20%", "--out", out]
    beside = run("fit", photos, *words)
    assert beside.exit_code == 2
    assert "has test pictures already" in beside.stderr
    single = run("fit", paint_task(tmp_path / "few", {".": 1}), *words)
    assert single.exit_code == 2
    assert "none of 3 classes has two pictures" in single.stderr


def test_every_suggested_evaluation_works(paint_task, run, tmp_path, out):
    folder = paint_task(tmp_path / "p", {".": 4})
    rows = torch.nn.functional.normalize(torch.randn(12, 8), dim=-1)
    file = tmp_path / "f.safetensors"
    sets = {f"{name}.features": rows + i for i, name in enumerate(("train", "unseen", "mytest"))}
    labels = {key.replace("features", "labels"): torch.arange(12) % 3 for key in sets}
    save_file(sets | labels, file)
    only_train = paint_task(tmp_path / "t", {"train": 4})
    cases = {
        (folder,): None,
        (folder, "--shots", "2"): [folder, "--split", "held-out"],
        (only_train,): None,
        (only_train, "--shots", "2"): [only_train, "--split", "held-out"],
        (paint_task(tmp_path / "bo#th", {"train": 2, "test": 2}),): [tmp_path / "bo#th"],
        (f"{file}#train",): [f"{file}#mytest"],
    }
    for given, wanted in cases.items():
        images = [] if "safetensors" in str(given[0]) else ["--backbone", "demo"]
        method = ["--method", "zero-shot"] if images else ["--method", "linear-probe", "-o", "C=1"]
        result = run("fit", *given, *images, *method, "--out", out)
        assert result.exit_code == 0, result.stderr
        steps = [line for line in result.stdout.splitlines() if "clip-adapter evaluate" in line]
        if wanted is None:
            assert not [line for line in steps if out in line]
            assert "No picture was kept apart" in result.stdout
        else:
            command = shlex.split(steps[0].removeprefix("Next:"))
            assert command == ["clip-adapter", "evaluate", out, *map(str, wanted)]
            done = run(*command[1:])
            assert done.exit_code == 0, done.stderr


def test_the_demo_backbone_warns_of_photographs(paint_task, run, tmp_path, out):
    folder = paint_task(tmp_path / "p", {".": 2})
    words = ["--backbone", "demo", "--method", "zero-shot", "--out", out]
    assert "The demo backbone" not in run("fit", folder, *words).stderr
    for name in ("cat", "Red_Star"):
        (folder / "red").rename(folder / name)
        said = run("fit", folder, *words).stderr + run("fit", folder, *words).stderr
        assert said.count("The demo backbone knows drawings") == (name == "cat")  # once a process
        (folder / name).rename(folder / "red")


def test_rare_options_stand_apart(run):
    text = run("fit", "--help").stdout
    parts = re.split(r"─ ([A-Z][A-Za-z ]+) ─", text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for rare in ("--dtype", "--batch-size", "--views", "--feature-norm"):
        assert rare in sections["Rarely needed"]
    assert "--backbone" in sections["How pictures are read"]
    assert "--dtype" not in sections["How pictures are read"]


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


@pytest.mark.parametrize("place", ["", "train", "train/red"])
def test_the_pictures_are_never_in_the_way(run, paint_task, tiny, tmp_path, place):
    photos = paint_task(tmp_path / "My photos", {"train": 1})
    result = run("fit", photos / "train", "--backbone", tiny, "--out", photos / place)
    assert result.exit_code == 1
    assert "other things are in it" in result.stderr
    assert result.stderr.endswith("Next: Choose a new folder.\n")


@pytest.mark.parametrize("preprocess", ["--preprocess", "--style"])
def test_prompts_names_views_and_preprocessing(preprocess, run_json, photos, tiny, out, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("folder,name\nred,ruby\ngreen,emerald\nblue,sapphire\n")
    info = run_json(
        *("fit", photos, "--backbone", tiny, "--method", "zero-shot", "--out", out, "--json"),
        *("--class-names", names),
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
    probe = run(
        "fit", f"{path}#train", "--method", "linear-probe", "-o", "C=1", "--out", out, "--json"
    )
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


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--shots", "0"], "--method zero-shot"),
        (["--hold-out", "20%"], "has test pictures already"),
    ],
)
def test_what_is_wrong_is_said_before_weights_are_loaded(
    run, photos, out, monkeypatch, words, error
):
    monkeypatch.delattr("clip_adapter.options.SourceOptions.load_backbone")
    result = run("fit", photos, "--backbone", "demo", *words, "--out", out)
    assert result.exit_code == 2
    assert error in result.stderr
    with pytest.raises(UsageError, match="0 shots"):
        clip_adapter.fit(photos, backbone="demo", shots=0)
