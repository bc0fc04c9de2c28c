"""The classifier: inputs, saving, loading, and what it says when something is wrong."""

import io
import json
import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from clip_adapter.backbones import load_backbone
from clip_adapter.backbones.open_clip import OpenClipBackbone
from clip_adapter.classifier import Classifier
from clip_adapter.classifier import classifier as classifier_module
from clip_adapter.errors import CancelledError, ClassifierError, DecodeError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.heads import Head
from clip_adapter.nn import ResidualAdapter, normalize
from clip_adapter.reporting import NotesWarning

C, D = 3, 1024


@pytest.fixture
def classifier():
    generator = torch.Generator().manual_seed(0)
    text = normalize(torch.randn(C, D, generator=generator))
    adapter = ResidualAdapter.build(D, D // 4, ratio=0.3, generator=generator)
    return Classifier(
        Head(text, adapter, logit_scale=100.0),
        ["a cat", "ein Käfer", "猫 'quoted'"],
        text_weights=text,
        info={"method": "clip-adapter", "backbone": "RN50/random", "shots": 4},
        train_digests=["ab", "cd"],
    )


@pytest.fixture
def x():
    return torch.randn(5, D, generator=torch.Generator().manual_seed(1))


def test_same_answers_for_tensors_arrays_and_feature_sets(classifier, x):
    logits = classifier.logits(x)
    assert torch.equal(logits, classifier.logits(x.numpy()))
    features = FeatureSet(x, torch.zeros(5), classifier.class_names)
    assert torch.equal(logits, classifier.logits(features))
    np.testing.assert_allclose(classifier.predict_proba(x).sum(1), 1, rtol=1e-5)
    names = [classifier.class_names[i] for i in logits.argmax(1)]
    assert classifier.predict(x) == names
    with pytest.warns(NotesWarning, match="nothing to classify"):
        assert classifier.logits(torch.empty(0, D)).shape == (0, C)


def test_unit_features_are_normalised_by_a_classifier_of_unit_features(classifier, x):
    classifier.feature_norm = "unit"
    torch.testing.assert_close(classifier.logits(x), classifier.logits(normalize(x)))


@pytest.fixture
def demo_folder(tmp_path):
    backbone = load_backbone("demo", device="cpu")
    weights = torch.eye(C, backbone.embed_dim)
    info = {"backbone": "demo", "backbone_fingerprint": backbone.fingerprint}
    return Classifier(Head(weights), ["a", "b", "c"], info=info).save(tmp_path / "classifier")


def test_a_warm_classifier_has_looked_at_a_picture(demo_folder, monkeypatch):
    batches = []
    encode = OpenClipBackbone.encode_images
    monkeypatch.setattr(
        OpenClipBackbone, "encode_images", lambda b, x: batches.append(len(x)) or encode(b, x)
    )
    Classifier.load(demo_folder, device="cpu")
    assert batches == []
    warm = Classifier.from_pretrained(str(demo_folder), device="cpu", warm=True)
    assert batches == [1, 1]  # the backbone looks at its own size first
    assert warm.backbone().device == "cpu"
    monkeypatch.setattr(classifier_module, "load_backbone", None)
    assert warm.predict(Image.new("RGB", (9, 9), "red"))[0] in "abc"


@pytest.mark.parametrize(
    ("kept", "asked"),
    [(None, "float32"), ("float32", "float32"), ("float16", "auto"), ("bfloat16", "bfloat16")],
)
def test_float16_is_for_the_device_to_take(demo_folder, monkeypatch, kept, asked):
    loaded, dtypes = Classifier.load(demo_folder, device="cpu"), []
    loaded.info["dtype"] = kept
    load = classifier_module.load_backbone
    monkeypatch.setattr(
        classifier_module,
        "load_backbone",
        lambda *a, **k: dtypes.append(k.get("dtype")) or load(*a, **{**k, "dtype": "float32"}),
    )
    loaded.backbone()
    assert dtypes[0] == asked


def test_the_device_of_a_loaded_classifier(demo_folder):
    with pytest.raises(UsageError, match="toaster"):
        Classifier.load(demo_folder, device="toaster")
    assert Classifier.load(demo_folder, device="cpu").encoder().device == "cpu"
    with pytest.raises(UsageError, match="is on cpu"):
        Classifier.load(demo_folder, load_backbone("demo", device="cpu"), device="cuda:1")


def test_other_dimension_says_what_is_expected(classifier):
    with pytest.raises(ClassifierError, match="1024"):
        classifier.logits(torch.randn(2, 512))


def test_a_classifier_of_file_features_says_why_it_cannot_read_pictures(classifier):
    with pytest.raises(ClassifierError, match="features"):
        classifier.predict(["picture.jpg"])


@pytest.mark.slow
def test_new_process_predicts_the_same_to_the_bit(classifier, x, tmp_path):
    folder = classifier.save(tmp_path / "with space")
    np.save(tmp_path / "x.npy", x.numpy())
    code = (
        "import sys, numpy as np; from clip_adapter import Classifier; "
        "c = Classifier.load(sys.argv[1]); np.save(sys.argv[3], c.logits(np.load(sys.argv[2])))"
    )
    arguments = [str(folder), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), classifier.logits(x).numpy())


def test_saved_files(classifier, tmp_path):
    classifier.info["notes"] = ["One copy counts", "no second time."]
    folder = classifier.save(tmp_path / "m")
    assert (folder / "adapter.safetensors").stat().st_size < 2_500_000  # RN50: D = 1024
    assert not list(tmp_path.glob(".m.*"))
    card = (folder / "README.md").read_text("utf-8")
    assert "RN50/random" in card
    assert "Käfer" in card
    assert card.count("Of the training data") == 1
    assert "\n- One copy counts\n- no second time.\n" in card
    loaded = Classifier.load(folder)
    assert loaded.train_digests == {"ab", "cd"}
    assert loaded.class_names == classifier.class_names
    # Saved again over itself, with a smaller head: no stale adapter stays.
    Classifier(Head(classifier.head.weights), classifier.class_names).save(folder)
    again = Classifier.load(folder)
    assert again.head.image_map is None
    assert again.text_weights is None
    assert not (folder / "adapter.safetensors").exists()


def test_it_never_replaces_a_folder_of_other_things(classifier, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(ClassifierError, match="not a saved classifier"):
        classifier.save(tmp_path)
    with pytest.raises(ClassifierError, match="not a saved classifier"):
        classifier.save(tmp_path / "holiday.jpg")
    assert (tmp_path / "holiday.jpg").read_bytes() == b"x"


def flip(data):
    return data[:-7] + bytes([data[-7] ^ 64]) + data[-6:]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("classifier.json", lambda data: b"{"),
        ("class_weights.safetensors", None),
        ("class_weights.safetensors", lambda data: data[:-100]),
        ("class_weights.safetensors", flip),
        ("adapter.safetensors", flip),
    ],
)
def test_damage_is_an_error_that_names_the_folder(classifier, tmp_path, file, damage):
    path = classifier.save(tmp_path / "m") / file
    data = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(data))
    with pytest.raises(ClassifierError, match="/m is damaged"):
        Classifier.load(tmp_path / "m")


def test_newer_format_and_missing_folder(classifier, tmp_path):
    folder = classifier.save(tmp_path / "m")
    config = json.loads((folder / "classifier.json").read_text("utf-8"))
    (folder / "classifier.json").write_text(json.dumps(config | {"format": 99}), "utf-8")
    with pytest.raises(ClassifierError, match="Update"):
        Classifier.load(folder)
    with pytest.raises(ClassifierError, match="There is no folder"):
        Classifier.load(tmp_path / "nowhere")


def test_hub_names_that_cannot_be_had_say_so(classifier):
    with pytest.raises(ClassifierError, match="neither a folder"):
        Classifier.from_pretrained("nobody/no-such-classifier")
    with pytest.raises(ClassifierError, match="auth login"):
        classifier.push_to_hub("nobody/no-such-classifier")


def test_push_to_hub_uploads_what_save_writes(classifier, monkeypatch):
    uploaded = {}

    class Hub:
        def create_repo(self, repo, private, exist_ok):
            uploaded["repo"] = (repo, private, exist_ok)
            return f"https://huggingface.co/{repo}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploaded["files"] = sorted(p.name for p in folder_path.iterdir())

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert classifier.push_to_hub("me/mine").endswith("me/mine")
    assert uploaded["repo"] == ("me/mine", True, True)
    assert "class_weights.safetensors" in uploaded["files"]


def test_not_a_number_is_refused(classifier, x):
    x[1, 3] = float("nan")
    with pytest.raises(ClassifierError, match="NaN"):
        classifier.logits(x)
    with pytest.raises(ClassifierError, match="diverged"):
        Classifier(Head(x), [str(i) for i in range(5)])


class Mean:
    name, fingerprint = "mean", "mean-1"

    def preprocess(self, picture):
        return torch.tensor(picture.getpixel((0, 0)), dtype=torch.float32).view(3, 1, 1)

    def encode_images(self, images):
        return images.flatten(1)


def test_pictures_can_be_watched_and_cancelled():
    classifier = Classifier(Head(torch.eye(3)), ["r", "g", "b"])
    classifier.use(load_backbone(Mean()), same=True)
    pictures = [Image.new("RGB", (2, 2), colour) for colour in ("blue", "red")]
    stages = []
    assert classifier.predict(pictures, progress=stages.append) == ["b", "r"]
    assert [(s.title, s.done, s.total) for s in stages] == [("Embedding", 2, 2)]
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        classifier.predict_proba(pictures, cancel=stop)


def test_pickled_without_its_backbone(classifier, x):
    classifier._backbone = lambda: None  # what a loaded backbone holds cannot be pickled
    again = pickle.loads(pickle.dumps(classifier))
    assert again._backbone is None
    assert torch.equal(again.logits(x), classifier.logits(x))


@pytest.fixture
def colours(tmp_path):
    """A classifier of three colours, and pictures of which some cannot be read."""
    classifier = Classifier(Head(torch.eye(3)), ["r", "g", "b"], text_weights=torch.eye(3))
    classifier.use(load_backbone(Mean()), same=True)
    for name in ("blue", "red"):
        Image.new("RGB", (2, 2), name).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    names = ["missing.png", "blue.png", "text.png", "red.png", "blue.png", "empty.png"]
    return classifier, [tmp_path / name for name in names]


def test_pictures_that_cannot_be_read_do_not_cost_the_others(colours, lines):
    classifier, pictures = colours
    with pytest.warns(NotesWarning, match="^3 of 6 pictures cannot be read") as warned:
        assert classifier.predict(pictures) == [None, "b", None, "r", "b", None]
    assert [w.filename for w in warned] == [__file__]
    assert [m.split("/")[-1] for m in lines.messages] == [
        "missing.png: No such file or directory",
        "text.png: a text file, not a picture.",
        "empty.png: the file is empty.",
        "3 of 6 pictures cannot be read: they get no answer.",
    ]
    good = classifier.predict_proba([pictures[i] for i in (1, 3, 4)])
    for call in (classifier.logits, classifier.zero_shot_logits, classifier.embed):
        with pytest.warns(NotesWarning, match="3 of 6"):
            rows = call(pictures)
        assert rows.isnan().all(1).tolist() == [True, False, True, False, False, True]
    with pytest.warns(NotesWarning, match="3 of 6"):
        shares = classifier.predict_proba(pictures, progress=False)
    np.testing.assert_array_equal(shares[[1, 3, 4]], good)
    assert np.isnan(shares[[0, 2, 5]]).all()


def test_names_that_can_be_none_of_a_picture_do_not_cost_the_others(colours, tmp_path, lines):
    classifier, (_, good, *_) = colours
    gone = io.BytesIO()
    gone.close()
    (tmp_path / "rows.npz").touch()
    wrong = ["a\0b", "", "https://example.org/a.jpg", str(tmp_path), tmp_path / "rows.npz", gone]
    with pytest.warns(NotesWarning, match="^6 of 7 pictures cannot be read") as warned:
        assert classifier.predict([*wrong, good]) == [None] * 6 + ["b"]
    assert [w.filename for w in warned] == [__file__]
    faults = ("is no path", "is no path", "an address", "a folder", "holds features", "closed file")
    assert all(map(operator.contains, lines.messages, faults))
    for slip in (None, 3):
        with pytest.raises(DecodeError, match=rf"^pictures\[1\]: {type(slip).__name__} is not"):
            classifier.predict([good, slip, "a\0b"])
    with pytest.raises(DecodeError, match="is a folder"):
        classifier.predict([good, tmp_path], unreadable="stop")


def test_pixels_of_floats_are_told(colours):
    classifier, _ = colours
    for shape in ((40, 48, 3), (2, 40, 48, 3), (2, 3, 40, 48)):
        for pixels in (np.ones(shape, np.float32), torch.ones(shape)):
            with pytest.raises(ClassifierError, match="float32; which number is black") as caught:
                classifier.predict(pixels)
            assert "Give 8-bit pixels, 0 to 255" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_answers_as_its_parent(colours):
    classifier, (_, good, *_) = colours
    before, big = torch.get_num_threads(), torch.ones(700, 700)
    torch.set_num_threads(2)
    try:
        torch.mm(big, big)  # its threads are awake from here on
        expected = classifier.predict_proba([good])
        child = os.fork()
        if not child:
            torch.mm(big, big)
            os._exit(0 if (classifier.predict_proba([good]) == expected).all() else 1)
    finally:
        torch.set_num_threads(before)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert status == 0


def test_one_that_cannot_be_read_ends_the_work_where_this_is_asked_for(colours):
    classifier, pictures = colours
    for call in (classifier.predict, classifier.predict_proba, classifier.embed):
        with pytest.raises(DecodeError, match=r"missing\.png: No such file"):
            call(pictures, unreadable="stop")
    with pytest.raises(UsageError, match="Unknown unreadable 'skip'"):
        classifier.predict(pictures, unreadable="skip")


def test_nothing_that_can_be_read_is_an_error(colours):
    classifier, pictures = colours
    for some in ([pictures[0]], pictures[0], [pictures[0], pictures[2]]):
        with pytest.raises(DecodeError, match=r"missing\.png"):
            classifier.predict(some)
    with pytest.warns(NotesWarning, match="nothing to classify"):
        assert classifier.predict([]) == []


def test_in_a_notebook_it_is_a_table_of_what_it_is(classifier):
    classifier.class_names[0] = "<img src=x onerror=alert(1)>"
    classifier.info |= {"held_out": {"accuracy": 71.25}, "train_pictures": 12}
    html = classifier._repr_html_()
    assert "<img" not in html
    assert "&lt;img src=x" in html
    assert "<td>method</td><td>clip-adapter</td>" in html
    assert "<td>right by cross-validation (optimistic)</td><td>71.2 %</td>" in html
    assert "held out" not in html
    classifier.info["hold_out"] = {"asked": "20%", "top1": 0.0}
    assert "<td>right on pictures held out</td><td>0.0 %</td>" in classifier._repr_html_()
    assert "classes" in Classifier(classifier.head, ["a", "b", "c"])._repr_html_()
