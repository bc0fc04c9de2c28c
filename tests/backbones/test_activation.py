"""A checkpoint file runs with the activation that it was trained with, or not at all."""

import hashlib
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_adapter import Classifier, fit
from clip_adapter.backbones import load_backbone
from clip_adapter.errors import BackboneError, UsageError

QUICK, PLAIN = "Tiny-quickgelu", "Tiny"


pytestmark = pytest.mark.usefixtures("architectures")


@pytest.fixture
def tensors(folder):
    return load_file(folder / "open_clip_model.safetensors")


@pytest.fixture
def file(tensors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(tensors, "w.safetensors")
    return tmp_path / "w.safetensors"


def activations(name, **options):
    backbone = load_backbone(name, device="cpu", **options)
    kinds = {type(block.mlp.gelu).__name__ for block in backbone.model.transformer.resblocks}
    return backbone.name, *kinds


def test_a_file_that_says_nothing_is_refused_with_both_spellings(file):
    with pytest.raises(BackboneError) as error:
        load_backbone("Tiny/./w.safetensors", device="cpu")
    for spelling in ("Tiny-quickgelu/./w.safetensors", "Tiny@gelu/./w.safetensors"):
        assert spelling in error.value.allowed
        load_backbone(spelling, device="cpu")
    assert activations("Tiny@gelu/./w.safetensors") == ("Tiny@gelu/./w.safetensors", "GELU")
    name = "Tiny-quickgelu/./w.safetensors"
    assert activations(name) == activations("Tiny@quickgelu/./w.safetensors") == (name, "QuickGELU")


def test_an_architecture_with_one_activation_needs_no_word(file):
    assert activations("Alone/./w.safetensors") == ("Alone/./w.safetensors", "GELU")
    name = "Alone@quickgelu/./w.safetensors"
    assert activations(name) == (name, "QuickGELU")


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("quick_gelu", "true", "QuickGELU"),
        ("quick_gelu", "False", "GELU"),
        ("hidden_act", "quick_gelu", "QuickGELU"),
        ("activation", "gelu", "GELU"),
    ],
)
def test_the_metadata_of_a_file_say_it(file, tensors, lines, key, value, kind):
    save_file(tensors, file, {key: value})
    quick = kind == "QuickGELU"
    name = f"{QUICK if quick else PLAIN}/./w.safetensors"
    assert activations("Tiny/./w.safetensors") == (name, kind)
    assert any("Activation: QuickGELU" in line for line in lines.messages) == quick
    assert activations(name) == (name, kind)


@pytest.mark.parametrize("quick", [False, True])
def test_the_configuration_beside_a_file_says_it(file, tiny_config, quick):
    config = {"model_cfg": tiny_config | {"quick_gelu": quick}}
    beside = file.with_name("open_clip_config.json")
    beside.write_text(json.dumps(config))
    assert activations("Tiny/./w.safetensors")[1] == ("QuickGELU" if quick else "GELU")
    config["model_cfg"] |= {"embed_dim": 8}  # that of another model
    beside.write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="Nothing says"):
        load_backbone("Tiny/./w.safetensors", device="cpu")


def test_a_configuration_beside_several_files_is_that_of_none(file, tensors, tiny_config):
    config = {"model_cfg": tiny_config | {"quick_gelu": True}}
    file.with_name("open_clip_config.json").write_text(json.dumps(config))
    save_file(tensors, "open_clip_model.safetensors")
    assert activations("Tiny/./open_clip_model.safetensors")[1] == "QuickGELU"
    with pytest.raises(BackboneError, match="Nothing says"):
        load_backbone("Tiny/./w.safetensors", device="cpu")


def test_published_weights_are_known_by_their_checksum(tensors, tmp_path, monkeypatch):
    from open_clip import pretrained

    monkeypatch.chdir(tmp_path)
    torch.save(tensors, "renamed.pt")
    digest = hashlib.sha256((tmp_path / "renamed.pt").read_bytes()).hexdigest()
    for url, quick in [
        (f"https://openaipublic.azureedge.net/clip/models/{digest}/Tiny.pt", True),
        (f"https://github.com/mlfoundations/open_clip/releases/tiny-{digest[:8]}.pt", False),
    ]:
        entry = pretrained._pcfg(url, quick_gelu=quick)
        monkeypatch.setitem(pretrained._PRETRAINED, "Tiny", {"first": entry})
        assert activations("Tiny/./renamed.pt")[1] == ("QuickGELU" if quick else "GELU")


def test_another_activation_than_stated_is_warned_of(file, tensors, lines):
    save_file(tensors, file, {"quick_gelu": "true"})
    assert activations("Tiny@gelu/./w.safetensors")[1] == "GELU"
    assert ["QuickGELU" in line and "worse" in line for line in lines.messages] == [True]


def test_words_that_cannot_be_followed(file):
    with pytest.raises(UsageError, match="Tiny@gelu/") as error:
        load_backbone("Tiny-quickgelu@gelu/./w.safetensors", device="cpu")
    assert "has QuickGELU" in error.value.found
    with pytest.raises(UsageError, match="Unknown activation"):
        load_backbone("Tiny@relu/./w.safetensors", device="cpu")
    for name in ("RN50@gelu/openai", "Tiny@gelu"):
        with pytest.raises(UsageError, match="for checkpoint files"):
            load_backbone(name, device="cpu")
    with pytest.raises(BackboneError, match=r"No checkpoint file '\./gone"):
        load_backbone("Tiny@gelu/./gone.safetensors", device="cpu")


def test_a_classifier_of_before_runs_as_it_did(file, uneven, tmp_path):
    made = fit(uneven, method="zero-shot", backbone="Tiny@gelu/./w.safetensors", device="cpu")
    made.info["backbone"] = "Tiny/./w.safetensors"  # as it was recorded
    again = Classifier.load(made.save(tmp_path / "made"))
    picture = uneven / "test" / "red" / "0.png"
    assert (again.predict_proba(picture) == made.predict_proba(picture)).all()
    assert again.backbone().name == "Tiny@gelu/./w.safetensors"


def test_openais_own_archive_is_told_how_to_convert(tensors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Archive(torch.nn.Module):
        def forward(self, x):
            return x

    archive = Archive()
    for name, tensor in tensors.items():
        archive.register_buffer(name.replace(".", "_"), tensor)
    archive.register_buffer("context_length", torch.tensor(16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have another format
        torch.jit.script(archive).save("FILE.pt")
    with pytest.raises(BackboneError) as error:
        load_backbone("Tiny-quickgelu/./FILE.pt", device="cpu")
    line = next(line for line in error.value.hint.splitlines() if "python -c" in line)
    code = line.partition('"')[2].rpartition('"')[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})
    assert "context_length" not in load_file("FILE.safetensors")
