"""A model repository that asks for its own code to be run."""

import json
import os

import pytest
import torch

from clip_adapter.backbones import load_backbone
from clip_adapter.backbones.weights import (
    TOKENIZER_OPTIONS,
    check_config,
    model_config,
    tokenizer_options,
)
from clip_adapter.errors import BackboneError

EVIL = "import pathlib; pathlib.Path({!r}).write_text('run')\n"


def edit(folder, tower, **entries):
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"][tower] |= entries
    path.write_text(json.dumps(config))


def with_code(folder, trace):
    """Puts a tokenizer and a text model of the repository's own into ``folder``."""
    folder.mkdir(exist_ok=True)
    classes = {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": classes})
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": classes}))
    code = EVIL.format(str(trace)) + "class Evil: pass\n"
    (folder / "evil.py").write_text(code)


@pytest.mark.parametrize(
    "options",
    [
        {"trust_remote_code": True},
        {"trust_remote_code": False},
        {"clean": "lower", "trust_remote_code": True},
        {"tokenizer_file": "/etc/passwd"},
        {"clean": {"a": 1}},
        ["trust_remote_code"],
        "trust_remote_code",
    ],
)
def test_unknown_options_of_a_tokenizer_are_refused(options, make_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, trace = make_folder(), tmp_path / "trace"
    with_code(folder, trace)
    edit(folder, "text_cfg", tokenizer_kwargs=options, hf_tokenizer_name="org/repo")
    with pytest.raises(BackboneError, match="options") as caught:
        load_backbone(str(folder), device="cpu").encode_text(["a"])
    assert "strip_sep_token" in caught.value.allowed
    assert not trace.exists()


def test_a_tokenizer_that_is_code_is_refused_without_a_question(make_folder, tmp_path, monkeypatch):
    pytest.importorskip("transformers")

    def ask(*args):
        raise AssertionError("a person was asked")

    monkeypatch.setattr("builtins.input", ask)
    folder, trace = make_folder(), tmp_path / "trace"
    with_code(folder, trace)
    edit(folder, "text_cfg", hf_tokenizer_name="org/repo")
    backbone = load_backbone(str(folder), device="cpu")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        backbone.encode_text(["a"])
    assert not trace.exists()


def test_a_configuration_that_changes_after_loading_is_checked_again(make_folder):
    folder = make_folder()
    backbone = load_backbone(str(folder), device="cpu")
    edit(folder, "text_cfg", tokenizer_kwargs={"trust_remote_code": True})
    with pytest.raises(BackboneError, match="options"):
        backbone.encode_text(["a"])


def test_transformers_is_told_no(monkeypatch):
    transformers = pytest.importorskip("transformers")
    passed = {}

    def tokenizer(source, **options):
        passed.update(options, source=source)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", tokenizer)
    import open_clip

    options = tokenizer_options(model_config("ViT-B-16-SigLIP"))
    open_clip.get_tokenizer("ViT-B-16-SigLIP", **options)
    assert passed["trust_remote_code"] is False


def test_a_text_tower_that_is_code_is_refused(make_folder, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    folder, trace = make_folder(), tmp_path / "trace"
    with_code(tmp_path / "evil", trace)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    for name in ("evil", "./evil", str(tmp_path / "evil"), "../evil", ["evil"]):
        edit(folder, "text_cfg", hf_model_name=name)
        with pytest.raises(BackboneError, match="text tower"):
            load_backbone(str(folder), device="cpu")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["hf-hub:org/repo", "local-dir:/tmp", "timm/x", "../x"])
def test_a_visual_tower_of_another_repository_is_refused(name, make_folder):
    folder = make_folder()
    edit(folder, "vision_cfg", timm_model_name=name)
    with pytest.raises(BackboneError, match="visual tower"):
        load_backbone(str(folder), device="cpu")


def test_everything_that_open_clip_itself_sets_is_allowed(monkeypatch):
    import open_clip

    checked = []
    monkeypatch.setattr(
        "clip_adapter.backbones.weights.check_transformers", lambda *args: checked.append(args)
    )
    for name in open_clip.list_models():
        check_config(name, model_config(name))
    assert checked
    assert "trust_remote_code" not in TOKENIZER_OPTIONS
    with pytest.raises(BackboneError, match="no towers"):
        check_config("x", {"text_cfg": "evil"})


def test_harmless_options_still_work(make_folder):
    folder = make_folder()
    edit(folder, "text_cfg", tokenizer_kwargs={"clean": "canonicalize"})
    backbone = load_backbone(str(folder), device="cpu")
    assert backbone.encode_text(["a cat"]).shape == (1, backbone.embed_dim)


class Runs:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize("content", [{"a": Runs()}, torch.nn.Linear(2, 2)], ids=["call", "module"])
def test_nobody_is_told_to_open_a_pickle_all_the_same(content, make_folder):
    folder = make_folder()
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(content, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(BackboneError, match="a pickle of more than tensors") as caught:
        load_backbone(str(folder), device="cpu")
    assert "weights_only" not in str(caught.value)
