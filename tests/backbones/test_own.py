"""Backbones of one's own: an object in place of a name, or a name that a package gave."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import clip_adapter
from clip_adapter import Classifier, FeatureStore, load_backbone
from clip_adapter.backbones import Preprocess, names, own
from clip_adapter.errors import (
    BackboneError,
    ClassifierError,
    MissingTextError,
    PluginError,
    UsageError,
)

WORDS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
SIZE = 8


class Colours(nn.Module):
    """Mean colours, mapped to 4 numbers."""

    preprocess = Preprocess(SIZE, (0.4, 0.4, 0.4), (0.25, 0.25, 0.25))
    fingerprint = "colours-1"

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 4, bias=False)
        self.noise = nn.Dropout(0.5)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(4, 3))
        self.passes = 0

    def encode_images(self, images):
        self.passes += 1
        return self.noise(self.map(images.mean((2, 3))))


class WithText(Colours):
    logit_scale = 20.0

    def encode_text(self, texts):
        words = [next(w for w in WORDS if w in text) for text in texts]
        return self.map(torch.tensor([WORDS[word] for word in words]))


class Plain:
    """No torch module, its preprocessing a function, and no fingerprint."""

    name = "plain"

    def preprocess(self, picture):
        pixels = np.asarray(picture.resize((SIZE, SIZE)), np.float32) / 255 - 0.4
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def encode_images(self, images):
        return images.mean((2, 3))


@pytest.fixture
def pictures():
    """One of each colour, in the order of the class names."""
    colours = [(40, 50, 220), (30, 200, 40), (220, 30, 30)]
    return [Image.new("RGB", (20, 16), colour) for colour in colours]


CLASSES = ["blue", "green", "red"]
PROBE = {"method": "linear-probe", "options": {"C": 1.0}}


@pytest.mark.parametrize("method", [{"method": "zero-shot"}, PROBE])
def test_an_object_with_text(method, uneven, pictures, tmp_path):
    mine = WithText()
    classifier = clip_adapter.fit(uneven, backbone=mine, **method)
    assert classifier.predict(pictures) == CLASSES
    assert classifier.info["backbone"] == "WithText"
    assert classifier.info["backbone_fingerprint"].startswith("colours-1 weights:")
    assert not mine.training
    folder = classifier.save(tmp_path / "classifier")
    loaded = Classifier.load(folder, backbone=mine)
    assert torch.equal(loaded.logits(pictures), classifier.logits(pictures))
    assert clip_adapter.evaluate(loaded, uneven).top1 == 100
    with pytest.raises(ClassifierError, match="has no name here") as caught:
        Classifier.load(folder).predict(pictures)
    assert "backbone=" in caught.value.hint


def test_a_number_that_may_be_the_logarithm_of_the_scale_is_told(lines):
    mine = Colours()
    mine.logit_scale = 4.6052
    assert load_backbone(mine).logit_scale == 4.6052
    assert "nearly alike; read as a logarithm" in lines.messages[-1]


def test_its_sizes_are_found_and_its_scale_is_its_own():
    backbone = load_backbone(WithText())
    assert (backbone.embed_dim, backbone.logit_scale, backbone.dtype) == (4, 20.0, "float32")
    assert backbone.describe()["image_size"] == SIZE
    backbone = load_backbone(Colours())
    assert backbone.logit_scale == 100
    clip = Colours()
    clip.logit_scale = nn.Parameter(torch.tensor(3.0))  # CLIP trains the logarithm
    assert load_backbone(clip).logit_scale == pytest.approx(20.0855, rel=1e-4)
    assert load_backbone(Plain()).preprocess.image_size == SIZE
    assert load_backbone(load_backbone("demo", device="cpu")).name == "demo"


def test_an_object_without_text(uneven, pictures, tmp_path):
    mine = Colours()
    classifier = clip_adapter.fit(uneven, backbone=mine, **PROBE)
    assert classifier.predict(pictures) == CLASSES
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"), backbone=mine)
    assert loaded.predict(pictures) == CLASSES
    for asks in (loaded.zero_shot_logits, load_backbone(mine).encode_text):
        with pytest.raises(MissingTextError, match="encode_text"):
            asks(pictures)
    with pytest.raises(MissingTextError, match="no encode_text"):
        clip_adapter.fit(uneven, backbone=mine, prompts=["a {}"], **PROBE)


def test_features_are_stored_by_the_fingerprint(uneven, own_cache):
    mine = Colours()
    clip_adapter.fit(uneven, backbone=mine, **PROBE)
    first = mine.passes
    clip_adapter.fit(uneven, backbone=mine, **PROBE)
    assert mine.passes == first + 1  # the picture that finds the sizes
    assert FeatureStore(own_cache)


def test_without_a_fingerprint_nothing_is_stored(uneven, pictures, tmp_path, own_cache, caplog):
    classifier = clip_adapter.fit(uneven, backbone=Plain(), **PROBE)
    assert classifier.predict(pictures) == CLASSES
    assert "plain has no fingerprint" in caplog.text
    assert not list(own_cache.rglob("*.safetensors"))
    folder = classifier.save(tmp_path / "classifier")
    with pytest.warns(UserWarning, match="plain has the weights .* cannot be checked") as warned:
        loaded = Classifier.load(folder, backbone=Plain())
    assert loaded.predict(pictures) == CLASSES
    assert len(warned) == 1
    with pytest.raises(ClassifierError, match="cannot read pictures by itself") as caught:
        Classifier.load(folder).predict(pictures)
    assert "backbone=" in caught.value.hint
    with pytest.raises(ClassifierError, match="4 numbers"):
        Classifier.load(folder, backbone=Colours())


def test_another_backbone_is_refused_on_load(uneven, tmp_path):
    classifier = clip_adapter.fit(uneven, backbone=Colours(), **PROBE)
    folder = classifier.save(tmp_path / "classifier")
    other = Colours()
    other.fingerprint = "colours-2"
    for wrong in (other, Plain(), "demo"):
        with pytest.raises(ClassifierError, match=r"not those that .*, of Colours \(") as caught:
            Classifier.load(folder, backbone=wrong)
        assert "Give that one, Colours" in caught.value.hint


@pytest.mark.parametrize("name", ["demo", "auto", "RN50", "their/colours", "hf-hub:mine"])
def test_an_object_called_as_a_backbone_of_ours_is_refused(uneven, name):
    mine = Colours()
    mine.name = name
    with pytest.raises(UsageError, match=f"it is called '{name}'") as caught:
        clip_adapter.fit(uneven, backbone=mine, **PROBE)
    assert "another attribute" in caught.value.hint


def test_two_backbones_of_one_name_are_told_apart_by_their_fingerprints(uneven, tmp_path):
    mine, other = Colours(), Colours()
    mine.fingerprint, other.fingerprint = "small-conv-1 0a1b2c3d4e5f", "small-conv-1 f5e4d3c2b1a0"
    folder = clip_adapter.fit(uneven, backbone=mine, **PROBE).save(tmp_path / "c")
    words = r"\(now \.\.\.onv-1 f5e4d3, then \.\.\.onv-1 0a1b2c\)"
    with pytest.raises(ClassifierError, match=words):
        Classifier.load(folder, backbone=other)
    with pytest.raises(ClassifierError, match=r"\(now no fingerprint, then small-conv-1\)"):
        Classifier.load(folder, backbone=Plain())


def test_features_that_are_no_numbers_name_the_backbone_and_are_not_kept(uneven, own_cache):
    mine = Colours()
    torch.nn.init.constant_(mine.map.weight, torch.nan)
    with pytest.raises(BackboneError, match="The backbone Colours gives NaN"):
        clip_adapter.fit(uneven, backbone=mine, **PROBE)
    assert not list(own_cache.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("method", "message"), [("clip-lora", "cannot be reached"), ("coop", "no token embeddings")]
)
def test_methods_that_reach_into_a_tower_say_so(method, message, uneven):
    with pytest.raises(BackboneError, match=message):
        clip_adapter.fit(uneven, method=method, backbone=WithText())


def test_a_function_has_no_random_views(uneven):
    with pytest.raises(UsageError, match="no random views"):
        clip_adapter.fit(uneven, backbone=Plain(), views=2, **PROBE)


class Entry(EntryPoint):
    def load(self):
        return {"broken": None, "thing": object, "blind": Colours}.get(self.name, WithText)


@pytest.fixture
def installed(monkeypatch):
    """A package that makes backbones known; two do not work, two are called as ours are."""
    given = (
        "colours",
        "blind",
        "broken",
        "thing",
        "demo",
        "ViT-B-32/random",
        "their/colours",
        "RN50/mine",
    )
    entries = [Entry(name, "their_package", names.GROUP) for name in given]

    def entry_points(group, name=None):
        return [e for e in entries if group == names.GROUP and name in (None, e.name)]

    for module in (names, own):
        monkeypatch.setattr(module, "entry_points", entry_points)


def test_a_name_that_a_package_gave(installed, uneven, pictures, tmp_path):
    assert {"colours", "broken"} <= {row["name"] for row in clip_adapter.list_backbones()}
    options = {"backbone": "colours", "device": "cpu"}
    classifier = clip_adapter.fit(uneven, method="zero-shot", **options)
    assert classifier.info["backbone"] == "colours"
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    assert loaded.backbone("cpu").name == "colours"
    assert loaded.predict(pictures) == CLASSES
    with pytest.raises(UsageError, match="computes in float32"):
        load_backbone("colours", device="cpu", dtype="float16")
    for name, words in {"broken": "NoneType", "thing": "has no encode_images"}.items():
        with pytest.raises(BackboneError, match=f"'{name}' of .*their_package.*{words}"):
            load_backbone(name, device="cpu")


def test_a_package_does_not_take_the_place_of_a_backbone_of_ours(installed):
    assert not isinstance(load_backbone("demo", device="cpu"), own.OwnBackbone)
    listed = [row["name"] for row in clip_adapter.list_backbones()]
    assert listed.count("demo") == 1
    assert {"demo", "ViT-B-32/random"}.isdisjoint(names.own_names())


def test_an_unknown_name_is_answered_with_those_that_packages_gave(installed):
    with pytest.raises(UsageError, match="Did you mean 'colours'") as caught:
        load_backbone("colors")
    assert caught.value.allowed.endswith(", demo, blind, broken, colours, thing")
    for name in ("their/colours", "RN50/mine"):
        with pytest.raises(UsageError) as caught:
            load_backbone(name)
        assert f"'{name}' known, but a name with a slash" in caught.value.hint


def test_the_command_line_takes_the_name(installed, uneven, tmp_path):
    from typer.testing import CliRunner

    from clip_adapter.cli.main import app

    def run(*words):
        return CliRunner().invoke(app, [*map(str, words), "--device", "cpu"])

    out, blind = tmp_path / "classifier", tmp_path / "blind"
    done = run("fit", uneven, "--method", "zero-shot", "--backbone", "colours", "--out", out)
    assert done.exit_code == 0, done.output
    done = run("fit", uneven, "--method", "gda", "--backbone", "blind", "--out", blind)
    assert done.exit_code == 0, done.output
    assert "Settings were tried out on 9 of your pictures" in done.stdout
    assert "CLIP says" not in done.stdout
    done = run("predict", out, uneven / "test" / "red")
    assert done.exit_code == 0, done.output
    assert "red" in done.stdout


@pytest.mark.parametrize("thing", [None, 5, object(), nn.Linear(3, 4), [Colours()]])
def test_what_is_no_backbone_is_told_what_one_has(thing):
    with pytest.raises(UsageError, match=r"is no backbone.* no encode_images") as caught:
        load_backbone(thing)
    assert "encode_images" in caught.value.allowed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fingerprint": 5}, "fingerprint = 5"),
        ({"logit_scale": "x"}, "logit_scale = 'x'"),
        ({"logit_scale": 0}, "logit_scale = 0"),
        ({"logit_scale": torch.tensor(100.0)}, r"logit_scale = tensor\(100"),
        ({"logit_scale": torch.ones(2)}, "logit_scale = tensor"),
        ({"encode_images": 5}, "encode_images is no function"),
        ({"preprocess": 5}, "preprocess = 5"),
        ({"preprocess": lambda picture: picture}, "preprocess gives Image"),
        ({"preprocess": lambda picture: torch.zeros(8, 8)}, r"preprocess gives \(8, 8\)"),
        ({"preprocess": lambda picture: torch.zeros(8, 8, 3)}, r"preprocess gives \(8, 8, 3\)"),
        ({"preprocess": lambda picture: torch.zeros(3, *picture.size)}, "a wider one"),
    ],
)
def test_an_attribute_of_another_kind_is_named(changes, words, uneven):
    mine = Plain()
    vars(mine).update(changes)
    with pytest.raises(UsageError, match=words) as caught:
        clip_adapter.fit(uneven, backbone=mine, **PROBE)
    assert caught.value.allowed


def test_a_class_is_no_object(uneven):
    with pytest.raises(UsageError, match="Colours is a class") as caught:
        clip_adapter.fit(uneven, backbone=Colours, **PROBE)
    assert "Colours()" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"interpolation": "foo"}, "interpolation 'foo'"),
        ({"resize_mode": "widest"}, "resize mode 'widest'"),
        ({"std": (0.0, 0.2, 0.2)}, "std = .*Allowed: three numbers above 0"),
        ({"mean": 0.5}, "mean = 0.5"),
        ({"image_size": 0}, "image_size = 0"),
    ],
)
def test_a_preprocess_is_checked_where_it_is_made(changes, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        Preprocess(**{"image_size": SIZE, "mean": (0.4,) * 3, "std": (0.2,) * 3, **changes})


def test_features_of_another_shape_are_told():
    mine = Colours()
    mine.encode_images = lambda images: images
    with pytest.raises(BackboneError, match=r"\(1, 3, 8, 8\) for 1 picture or text\."):
        load_backbone(mine)


@pytest.mark.parametrize("given", [{"device": "cuda"}, {"dtype": "float16"}])
def test_another_device_or_dtype_beside_an_object_is_refused(given, uneven):
    words = f"{next(iter(given))} = .*: Colours (is on cpu|computes in float32)"
    with pytest.raises(UsageError, match=words):
        clip_adapter.fit(uneven, backbone=Colours(), **given, **PROBE)
    clip_adapter.fit(uneven, backbone=Colours(), device="cpu", dtype="float32", **PROBE)


def test_a_method_that_needs_text_says_how_to_give_it(uneven):
    with pytest.raises(MissingTextError, match="needs text weights") as caught:
        clip_adapter.fit(uneven, method="zero-shot", backbone=Colours())
    assert "Colours encodes pictures only. Give it encode_text" in caught.value.hint
    assert "linear-probe" in caught.value.hint
    assert "feature file" not in caught.value.hint


def test_what_breaks_in_its_code_is_told_as_its_own(uneven):
    mine = Colours()
    mine.encode_images = lambda images: images[5]
    with pytest.raises(PluginError, match=r"test_own\.Colours failed with IndexError") as caught:
        clip_adapter.fit(uneven, backbone=mine, **PROBE)
    assert isinstance(caught.value.__cause__, IndexError)
    assert "no part of clip-adapter" in caught.value.hint
