"""ONNX Runtime for convolutional towers: torch's features, kept apart, and refused elsewhere."""

import json
import sys

import pytest
import torch
from typer.testing import CliRunner

import clip_adapter
from clip_adapter import Classifier
from clip_adapter.backbones import load_backbone
from clip_adapter.cli.main import app
from clip_adapter.errors import BackboneError, ClipAdapterError, MissingExtraError, UsageError
from clip_adapter.features.store import FeatureStore

RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 64}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def resnet(make_folder):
    """CLIP's kind of ResNet, as small as it goes."""
    return str(make_folder(vision_cfg=RESNET))


@pytest.fixture
def installed():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra 'onnx'")


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


def near(backbone, plain):
    size = plain.preprocess.image_size
    images = torch.randn(7, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = backbone.encode_images(images)
    expected = plain.encode_images(images)
    off = (features - expected).norm(dim=-1)
    assert (off < 1e-4 * expected.norm(dim=-1)).all()
    assert off.max() < 0.01 * torch.pdist(expected).median()  # the gate is 0.05
    assert features.dtype == torch.float32
    assert torch.equal(features, backbone.encode_images(images))
    assert not torch.equal(features, expected)  # so it is another runtime


def test_features_are_those_of_torch(resnet, installed):
    backbone, plain = (
        load_backbone(resnet, device="cpu", runtime=runtime) for runtime in ("onnx", "torch")
    )
    near(backbone, plain)
    assert backbone.fingerprint == plain.fingerprint
    assert torch.equal(backbone.encode_text(["a"]), plain.encode_text(["a"]))
    again = load_backbone(resnet, device="cpu", runtime="onnx")
    images = torch.ones(3, 3, 64, 64)
    assert torch.equal(again.encode_images(images), backbone.encode_images(images))


@pytest.mark.slow
def test_the_true_architecture(installed):
    near(*(load_backbone("RN50/random", device="cpu", runtime=each) for each in ("onnx", "torch")))


def command(*words):
    result = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"])
    assert result.exit_code == 0, result.stderr


def test_a_classifier_keeps_its_runtime_and_the_store_keeps_features_apart(
    resnet, installed, uneven, tmp_path
):
    cache, logits = tmp_path / "cache", {}
    pictures = sorted((uneven / "test").rglob("*.png"))
    for runtime in ("torch", "onnx"):
        how = ["--backbone", resnet, "--runtime", runtime, "--method", "linear-probe"]
        command("fit", uneven, *how, "--cache", cache, "--out", tmp_path / runtime)
        info = json.loads((tmp_path / runtime / "classifier.json").read_text())["info"]
        assert info.get("runtime", "torch") == runtime
        classifier = Classifier.load(tmp_path / runtime, device="cpu")
        logits[runtime] = classifier.logits(pictures)
        assert classifier.backbone().runtime == runtime
    assert torch.allclose(logits["torch"], logits["onnx"], **CLOSE)
    keys = [each["key"] for each in FeatureStore(cache).info() if each["key"]["kind"] == "image"]
    assert sorted(key.get("runtime", "torch") for key in keys) == ["onnx", "torch"]
    assert len({key["fingerprint"] for key in keys}) == 1
    # One that was fitted with either takes the other.
    other = Classifier.load(tmp_path / "onnx", load_backbone(resnet, device="cpu"))
    assert torch.allclose(other.logits(pictures), logits["onnx"], **CLOSE)


def test_a_file_of_features_says_by_what_it_was_made(resnet, installed, uneven, tmp_path):
    file = tmp_path / "f.safetensors"
    how = ["--backbone", resnet, "--runtime", "onnx", "--cache", tmp_path / "cache"]
    command("embed", uneven, *how, "--out", file)
    classifier = clip_adapter.fit(f"{file}#train", method="linear-probe")
    assert classifier.info["runtime"] == "onnx"
    with pytest.raises(UsageError, match="--runtime"):
        clip_adapter.fit(f"{file}#train", method="linear-probe", runtime="onnx")


def test_shards_say_it_too(resnet, installed, uneven, tmp_path):
    keys = set()
    for runtime in ("torch", "onnx"):
        out = tmp_path / runtime
        how = ["--backbone", resnet, "--runtime", runtime]
        command("scale", "embed", uneven, *how, "--labelled", "--out", out)
        keys.add(json.loads((out / "features.json").read_text())["key"])
    assert len(keys) == 2


def test_what_trains_inside_the_tower_needs_torch(resnet, installed, uneven):
    with pytest.raises(UsageError, match="nothing inside it can be trained"):
        clip_adapter.fit(uneven, method="fine-tune", backbone=resnet, runtime="onnx", device="cpu")


def test_a_tower_that_cannot_be_exported(resnet, installed, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: 1 / 0)
    with pytest.raises(BackboneError, match=r"cannot be run by ONNX Runtime.*division"):
        load_backbone(resnet, device="cpu", runtime="onnx")


def test_it_is_an_extra(resnet, missing):
    with pytest.raises(MissingExtraError, match="the extra 'onnx'"):
        load_backbone(resnet, device="cpu", runtime="onnx")


def test_torch_takes_its_place_in_a_saved_classifier(resnet, missing, uneven, tmp_path, caplog):
    plain = clip_adapter.fit(
        uneven, method="linear-probe", backbone=resnet, cache=tmp_path, device="cpu"
    )
    with pytest.raises(UsageError, match="runtime"):
        clip_adapter.evaluate(plain, uneven, runtime="onnx")
    plain.info["runtime"] = "onnx"
    loaded = Classifier.load(plain.save(tmp_path / "saved"), device="cpu")
    pictures = sorted((uneven / "test").rglob("*.png"))
    with caplog.at_level("INFO", "clip_adapter"):
        assert torch.equal(loaded.logits(pictures), plain.logits(pictures))
    assert "onnxruntime" in caplog.text
    assert "torch takes its place" in caplog.text


@pytest.mark.parametrize(
    ("name", "given", "match"),
    [
        ("RN50/random", {"runtime": "onxx"}, "Did you mean 'onnx'"),
        ("RN50/random", {"dtype": "bfloat16"}, "device cpu and dtype bfloat16"),
        ("RN50/random", {"device": "meta"}, "device cpu with dtype float32"),
        ("ViT-B-32/random", {}, "hardly quicker"),
        ("convnext_base/random", {}, "hardly quicker"),
        ("demo", {}, "hardly quicker"),
    ],
)
def test_what_it_does_not_help_is_refused_before_weights_are_looked_for(name, given, match):
    with pytest.raises(ClipAdapterError, match=match) as refused:
        load_backbone(name, **{"device": "cpu", "runtime": "onnx"} | given)
    assert refused.value.exit_code == 2


def test_an_object_runs_as_it_is(tiny):
    with pytest.raises(UsageError, match="runtime = onnx"):
        load_backbone(tiny, runtime="onnx")
