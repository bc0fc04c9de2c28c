"""What a source records, and what it refuses: nothing is ignored in silence."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import clip_adapter
from clip_adapter.backbones import load_backbone
from clip_adapter.errors import DataError, UsageError
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import NotesWarning
from clip_adapter.sources import open_source


@pytest.fixture(scope="module")
def tiny(make_folder):
    return str(make_folder())


@pytest.fixture
def make_file(tmp_path):
    """A file of twelve features of three classes; ``meta`` goes into its header."""

    def make(text=False, **meta):
        labels = torch.arange(12) % 3
        generator = torch.Generator().manual_seed(0)
        features = torch.eye(3, 16)[labels] + 0.1 * torch.randn(12, 16, generator=generator)
        tensors = {"train.features": features, "train.labels": labels}
        if text:
            tensors["text"] = torch.eye(len(json.loads(meta.get("classes", "[1, 2, 3]"))), 16)
        path = tmp_path / "features.safetensors"
        save_file(tensors, path, {"classes": '["red", "green", "blue"]', **meta})
        return f"{path}#train"

    return make


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("red", (200, 9, 9)), ("blue", (9, 9, 200))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (32, 32), (*colour[:2], colour[2] + i)).save(
                tmp_path / "photos" / name / f"{i}.png"
            )
    return str(tmp_path / "photos")


@pytest.mark.parametrize(
    ("method", "given", "dtype"),
    [
        ("linear-probe", {}, "auto"),
        ("clip-lora", {}, "float32"),
        ("coop", {}, "float32"),
        ("coop", {"dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_what_is_trained_is_not_rounded_first(folder, monkeypatch, method, given, dtype):
    class Loaded(Exception):  # noqa: N818
        pass

    def load(options):
        raise Loaded(options.dtype)

    monkeypatch.setattr(SourceOptions, "load_backbone", load)
    with pytest.raises(Loaded, match=f"^{dtype}$"):
        clip_adapter.fit(folder, method=method, shots=1, **given)


def test_a_backbone_beside_text_in_the_file_is_refused(make_file, tiny):
    spec = make_file(text=True, backbone="RN50/openai")
    with pytest.raises(UsageError, match="holds text weights"):
        clip_adapter.fit(spec, method="zero-shot", backbone=tiny)
    source = open_source(spec, SourceOptions())
    source.text_weights()
    assert source.facts()["backbone"] == "RN50/openai"
    assert source.facts()["backbone_fingerprint"] is None


def test_the_backbone_that_made_the_text_is_recorded_whole(make_file, tiny):
    source = open_source(make_file(), SourceOptions(backbone=tiny))
    assert source.facts()["backbone"] is None  # nothing was made by it so far
    assert source.text_weights().shape == (3, 16)
    backbone = load_backbone(tiny, device="cpu")
    facts = source.facts()
    assert (facts["backbone"], facts["backbone_fingerprint"]) == (
        backbone.name,
        backbone.fingerprint,
    )


def test_such_a_classifier_reads_pictures(make_file, tiny, folder):
    classifier = clip_adapter.fit(make_file(), method="zero-shot", backbone=tiny)
    assert classifier.predict([f"{folder}/red/0.png"])[0] in ("red", "green", "blue")


def test_other_weights_are_an_error_and_another_name_a_warning(make_file, tiny, lines):
    spec = make_file(backbone="RN50/openai", backbone_fingerprint="0" * 64)
    with pytest.raises(DataError, match="000000000000"):
        open_source(spec, SourceOptions(backbone=tiny)).text_weights()
    spec = make_file(backbone="RN50/openai")
    open_source(spec, SourceOptions(backbone=tiny)).text_weights()
    assert any("scores mean nothing" in line and "'RN50/openai'" in line for line in lines.messages)
    same = load_backbone(tiny, device="cpu")
    spec = make_file(backbone="x", backbone_fingerprint=same.fingerprint)
    lines.clear()
    open_source(spec, SourceOptions(backbone=tiny)).text_weights()
    assert not any("Warning" in line for line in lines.messages)


COOP = {"method": "coop", "options": {"epochs": 1, "context_length": 4}}


def test_a_backbone_beside_text_serves_methods_that_run_the_text_tower(make_file, tiny):
    backbone = load_backbone(tiny, device="cpu")
    spec = make_file(text=True, backbone_fingerprint=backbone.fingerprint)
    classifier = clip_adapter.fit(spec, backbone=tiny, **COOP)
    assert torch.equal(classifier.text_weights, torch.eye(3, 16))  # the file's own text
    assert classifier.info["backbone_fingerprint"] == backbone.fingerprint
    assert classifier.head.logit_scale == backbone.logit_scale
    with pytest.raises(UsageError, match="--backbone"):
        clip_adapter.fit(spec, **COOP)


def test_the_backbone_of_a_text_tower_is_checked_too(make_file, tiny, make_folder):
    spec = make_file(text=True, backbone="RN50/openai", backbone_fingerprint="0" * 64)
    with pytest.raises(DataError, match="000000000000"):
        clip_adapter.fit(spec, backbone=tiny, **COOP)
    other = str(make_folder(embed_dim=24))
    with pytest.raises(DataError, match=r"features of 16 numbers.*24"):
        clip_adapter.fit(make_file(text=True), backbone=other, **COOP)


@pytest.fixture
def descriptions(tmp_path):
    path = tmp_path / "told.json"
    path.write_text('{"red": ["A red.", "Warm."], "green": ["Moss."], "blue": ["Sky.", "Sea."]}')
    return path


def test_descriptions_stand_alone_or_beside_prompts(make_file, tiny, descriptions, folder):
    backbone = load_backbone(tiny, device="cpu")

    def unit(*texts):
        rows = backbone.encode_text(list(texts))
        mean = (rows / rows.norm(dim=1, keepdim=True)).mean(0)
        return mean / mean.norm()

    options = SourceOptions(backbone=tiny, descriptions=descriptions)
    both = SourceOptions(backbone=tiny, descriptions=descriptions, prompts="a {}.")
    for spec in (make_file(), folder):
        source = open_source(spec, options)
        red = source.class_names.index("red")
        torch.testing.assert_close(source.text_weights()[red], unit("A red.", "Warm."))
        assert source.facts()["templates"] == []
        assert source.facts()["descriptions"]["file"] == "told.json"
        beside = open_source(spec, both)
        torch.testing.assert_close(beside.text_weights()[red], unit("a red.", "A red.", "Warm."))
        assert beside.facts()["templates"] == ["a {}."]


def test_descriptions_reach_the_record_and_the_card(descriptions, tiny, folder, tmp_path, lines):
    classifier = clip_adapter.fit(
        folder, method="zero-shot", backbone=tiny, descriptions=descriptions
    )
    assert "told.json also describes other classes: 'green'." in lines.messages
    assert classifier.info["descriptions"]["sentences"] == 4
    card = (classifier.save(tmp_path / "made") / "README.md").read_text()
    assert "4 sentences of `told.json`" in card
    with pytest.raises(UsageError, match="--descriptions"):
        clip_adapter.evaluate(classifier, folder, descriptions=descriptions)


def test_descriptions_that_nothing_would_embed(make_file, tiny, descriptions):
    with pytest.raises(UsageError, match=r"holds text weights.*--descriptions"):
        open_source(make_file(text=True), SourceOptions(descriptions=descriptions, backbone=tiny))
    with pytest.raises(UsageError, match="no backbone is named"):
        open_source(make_file(), SourceOptions(descriptions=descriptions))


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"prompts": ("a {}.",)}, "--prompt"),
        ({"class_names": ["a", "b", "c"]}, "--class-names"),
        ({"views": 2}, "--views"),
        ({"preprocess": "coop"}, "--preprocess"),
        ({"root": "."}, "--root"),
    ],
)
def test_options_that_a_feature_file_would_ignore(make_file, given, flag):
    with pytest.raises(UsageError, match=flag):
        open_source(make_file(text=True), SourceOptions(**given))


def test_prompts_count_where_the_file_has_no_text(make_file, tiny):
    source = open_source(make_file(), SourceOptions(backbone=tiny, prompts=("a {}.",)))
    assert source.text_weights() is not None
    assert source.facts()["templates"] == ["a {}."]


@pytest.mark.parametrize("given", [{"root": "."}, {"feature_norm": "unit"}])
def test_options_that_a_folder_would_ignore(folder, given):
    with pytest.raises(UsageError, match=next(iter(given))):
        open_source(folder, SourceOptions(**given))


def test_an_unknown_feature_norm_is_a_usage_error():
    with pytest.raises(UsageError, match="Did you mean 'unit'"):
        SourceOptions(feature_norm="unitt")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"views": 0}, "views = 0"),
        ({"batch_size": 2.5}, "a whole number, 1 or more"),
        ({"views": "2"}, "a whole number, 1 or more"),
        ({"preprocess": "clp"}, "Did you mean 'clip'"),
        ({"dtype": "float23"}, "Did you mean 'float32'"),
        ({"style": "coop"}, "'style' is called 'preprocess'"),
        ({"colour": "red"}, r"Unknown arguments: colour"),
    ],
)
def test_options_are_checked_before_anything_is_read(given, words):
    with pytest.raises(UsageError, match=words):
        clip_adapter.fit("no such folder", **given)


@pytest.mark.parametrize("data", [[1], None, b"x", Image.new("RGB", (3, 3)), torch.zeros(2, 3)])
def test_data_that_is_no_path_is_told(data):
    with pytest.raises(UsageError, match=f"given as {type(data).__name__}"):
        clip_adapter.fit(data, method="zero-shot")


def test_one_prompt_may_be_a_plain_string(folder):
    source = open_source(folder, SourceOptions(prompts="a drawing of {}."))
    assert source.templates == ["a drawing of {}."]
    assert SourceOptions(prompts="").prompts == ()


def test_classes_that_lost_their_pictures_are_named(folder, tiny, tmp_path, lines):
    for i in range(3):
        (tmp_path / "photos" / "red" / f"{i}.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="3 of 6 pictures skipped"):
        clip_adapter.fit(folder, method="zero-shot", backbone=tiny)
    assert "1 class has no training picture left that can be read: 'red'." in lines.messages


NEVER = "can never be the answer"


@pytest.mark.parametrize(
    ("method", "text", "words"),
    [
        ("zero-shot", True, "Text alone speaks for what has none."),
        ("gda", True, "Text alone speaks for what has none."),
        ("gda", False, f"What has none {NEVER}."),
        ("linear-probe", True, f"What has none {NEVER}."),
    ],
)
def test_classes_without_features_are_named(make_file, method, text, words, lines):
    names = '["red", "green", "blue", "mauve", "ochre"]'
    with pytest.warns(NotesWarning, match="mauve"):
        classifier = clip_adapter.fit(make_file(text, classes=names), method=method)
    line = f"2 classes have no training picture: 'mauve', 'ochre'. {words}"
    assert [one for one in lines.messages if "mauve" in one] == [line]
    assert classifier.info["notes"][-1] == line


def test_nothing_is_said_where_all_classes_have_features(make_file, lines):
    clip_adapter.fit(make_file(), method="linear-probe")
    assert not any("training picture" in line for line in lines.messages)


@pytest.mark.parametrize("method", ["zero-shot", "linear-probe"])
def test_empty_folders_are_named_once(folder, tiny, tmp_path, method, lines):
    (tmp_path / "photos" / "mauve").mkdir()
    with pytest.warns(NotesWarning, match="mauve"):
        clip_adapter.fit(folder, method=method, backbone=tiny)
    assert sum("mauve" in line for line in lines.messages) == 1
    assert any(NEVER in line for line in lines.messages) == (method == "linear-probe")


def test_classes_with_fewer_pictures_than_drawn_are_named(folder, tiny, tmp_path, lines):
    (tmp_path / "photos" / "red" / "0.png").unlink()
    given = {"method": "zero-shot", "backbone": tiny}
    clip_adapter.fit(folder, **given)
    assert not any("fewer" in line for line in lines.messages)
    with pytest.warns(NotesWarning, match="fewer"):
        clip_adapter.fit(folder, shots=3, **given)
    assert any(
        "3 pictures to learn from, and all of theirs are used: 'red' (2)." in m
        for m in lines.messages
    )


def test_fit_and_evaluate_name_classes_that_text_cannot_tell_apart(folder, tiny, lines):
    names = {"red": "Circle", "blue": "circle"}
    with pytest.warns(NotesWarning, match="apart: 'circle' and 'Circle'"):
        classifier = clip_adapter.fit(folder, backbone=tiny, method="zero-shot", class_names=names)
    lines.clear()
    with pytest.raises(DataError, match="trained on"):
        clip_adapter.evaluate(classifier, folder, class_names=names)
    assert any("apart: 'circle' and 'Circle'" in message for message in lines.messages)
    lines.clear()
    clip_adapter.fit(folder, backbone=tiny, method="zero-shot")
    assert not any("apart" in message for message in lines.messages)
