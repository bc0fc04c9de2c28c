"""What the command line says of a better backbone, and ``--backbone auto``."""

import json

import pytest

BETTER = "As published ViT-B-32/datacomp_xl_s13b_b90k is better at no more cost: 69.2 % zero-shot"


@pytest.fixture
def as_default(tiny, monkeypatch):
    """A tiny CLIP under the name of the default backbone."""
    from clip_adapter.backbones import load_backbone
    from clip_adapter.options import DEFAULT_BACKBONE

    def load(name, **options):
        backbone = load_backbone(tiny if name == DEFAULT_BACKBONE else name, **options)
        if name == DEFAULT_BACKBONE:
            backbone.name = name
        return backbone

    monkeypatch.setattr("clip_adapter.backbones.load_backbone", load)
    monkeypatch.setattr("clip_adapter.backbones.names.check_reach", lambda origin: None)


def test_fit_with_the_default_backbone_names_the_better_one(
    run, photos, tiny, as_default, tmp_path
):
    words = ("fit", photos, "--method", "zero-shot", "--out", tmp_path / "made")
    shown = run(*words)
    assert shown.exit_code == 0, shown.stderr
    lines = [line for line in shown.stdout.splitlines() if BETTER in line]
    assert len(lines) == 1
    assert "against 63.3 (clip-adapter ls backbones compares them)." in lines[0]
    assert BETTER not in run(*words, "--json").stdout
    assert BETTER not in run(*words, "--backbone", tiny).stdout
    assert BETTER not in run(*words, "--backbone", "ViT-B-32/openai").stdout  # asked for


def test_features_were_made_by_what_made_them(run, photos, as_default, tmp_path):
    file = tmp_path / "photos.safetensors"
    assert run("embed", photos, "--out", file).exit_code == 0
    result = run("fit", f"{file}#train", "--method", "zero-shot", "--out", tmp_path / "made")
    assert result.exit_code == 0, result.stderr
    assert "Backbone: ViT-B-32/openai." in result.stdout
    assert BETTER not in result.stdout


@pytest.mark.parametrize("unlabelled", [False, True])
def test_embed_by_auto_tells_its_choice_and_records_the_name(
    run, photos, tiny, tmp_path, monkeypatch, unlabelled
):
    numbers = []

    def choose(pictures, device, dtype):
        numbers.append(pictures)
        return f"local-dir:{tiny}", "for a test"

    monkeypatch.setattr("clip_adapter.backbones.choice.choose", choose)
    words = ["embed", photos, "--backbone", "auto", "--out", tmp_path / "made.safetensors"]
    result = run(*words, *["--unlabelled"] * unlabelled, "--json")
    assert result.exit_code == 0, result.stderr
    assert numbers == [30]
    assert f"Backbone: local-dir:{tiny}, for a test." in result.stderr
    assert json.loads(result.stdout)["backbone"] == f"local-dir:{tiny}"


def test_auto_is_for_pictures(run, photos, tiny, tmp_path):
    file = tmp_path / "photos.safetensors"
    assert run("embed", photos, "--backbone", tiny, "--out", file).exit_code == 0
    words = ("fit", f"{file}#train", "--backbone", "auto", "--out", tmp_path / "made")
    result = run(*words, "--method", "clip-adapter")
    assert result.exit_code == 2
    assert "--backbone auto" in result.stderr
    result = run(*words, "--method", "coop")
    assert result.exit_code == 2
    assert "'auto' is chosen for pictures" in result.stderr
