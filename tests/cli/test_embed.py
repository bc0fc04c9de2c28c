import json

import pytest
import torch
from safetensors.torch import load_file


@pytest.mark.parametrize(
    "suffix", [".safetensors", pytest.param(".parquet", marks=pytest.mark.slow)]
)
def test_features_serve_in_place_of_pictures(run_json, photos, tiny, tmp_path, suffix):
    file = tmp_path / f"features{suffix}"
    printed = run_json("embed", photos, "--backbone", tiny, "--out", file, "--json")
    assert printed["sets"] == {"train": 18, "test": 12}
    assert printed["backbone"] == f"local-dir:{tiny}"
    assert printed["backbone_fingerprint"]
    classifier = tmp_path / "made"
    words = ("--shots", "4", "--method", "clip-adapter", "-o", "visual_ratio=0.5", "-o", "steps=20")
    fitted = run_json("fit", f"{file}#train", *words, "--out", classifier, "--json")
    assert fitted["backbone_fingerprint"] == printed["backbone_fingerprint"]
    plain = tmp_path / "plain"
    run_json("fit", photos, "--backbone", tiny, *words, "--out", plain, "--json")
    for name in ("adapter", "class_weights"):
        pair = [load_file(where / f"{name}.safetensors") for where in (classifier, plain)]
        assert pair[0].keys() == pair[1].keys()
        for key, tensor in pair[0].items():
            # The pictures were in batches of other sizes: the last bits of a feature may differ.
            torch.testing.assert_close(tensor, pair[1][key], rtol=1e-3, atol=1e-4)
    score = run_json("evaluate", classifier, f"{file}#test", "--json")
    assert score["top1"] == run_json("evaluate", plain, photos, "--json")["top1"]
    # it can read pictures, for the file tells which backbone made the features
    answers = run_json("predict", classifier, f"{photos}/test", "--json")
    assert {one["label"] for one in answers} <= {"red", "green", "blue"}
    from_features = run_json("predict", classifier, f"{file}#test", "--json")
    assert [a["label"] for a in from_features] == [
        a["label"]
        for a in sorted(
            answers, key=lambda a: ["blue", "green", "red"].index(a["path"].split("/")[-2])
        )
    ]


def test_one_split_with_views(run_json, run, photos, tiny, tmp_path):
    file = tmp_path / "f.safetensors"
    words = ["embed", photos, "--backbone", tiny, "--split", "train", "--views", "2"]
    printed = run_json(*words, "--out", file, "--json")
    assert printed["sets"] == {"train": 18}
    assert printed["views"] == 2
    result = run(*words, "--out", tmp_path / "f.parquet", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["next"]
    assert run(*words, "--out", tmp_path / "f.txt").exit_code == 2


def test_unlabelled(run_json, run, saved, photos, tiny, tmp_path):
    file = tmp_path / "new.safetensors"
    words = ["embed", f"{photos}/test/red", "--backbone", tiny, "--out", file]
    assert run(*words).exit_code == 1  # no classes, and nothing says that this is meant
    shown = run(*words, "--unlabelled")
    assert shown.exit_code == 0, shown.stderr
    assert f"{file}#all" in shown.stdout
    answers = run_json("predict", saved, f"{file}#all", "--json")
    assert len(answers) == 4
    assert run("fit", f"{file}#all", "--out", tmp_path / "made").exit_code == 1
