import os

import pytest

from clip_adapter import doctor
from clip_adapter.errors import DataError
from clip_adapter.hub import in_background


@pytest.fixture(autouse=True)
def offline(hub, tmp_path, monkeypatch):
    """No hub, and a cache of the test's own for what it would fetch."""
    hub.error = ConnectionError("no route to host")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "weights"))
    return hub


def states(health):
    return {check["name"]: check["state"] for check in health["checks"]}


def test_offline_it_checks_what_it_can_and_says_the_rest(run_json, own_cache):
    health = run_json("doctor", "--device", "cpu", "--json")
    assert health["well"]
    assert states(health) == {
        "cache folder": "well",
        "free disk": "well",
        "values of demo": "well",
        "values of ViT-B-32/openai": "not checked",
    }
    assert "no route to host" in health["checks"][-1]["detail"]
    assert health["cache"]["folder"] == str(own_cache)
    assert {"python", "torch", "open_clip_torch", "pillow"} <= set(health["versions"])


def test_for_people(run):
    shown = run("doctor", "--device", "cpu")
    assert shown.exit_code == 0
    assert "All is well, as far as it was checked (1 was not)." in shown.stdout
    assert "torch" in shown.stdout
    assert run("doctor", "--device", "toaster").exit_code == 2


def test_what_is_off_is_exit_1(run, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "DEMO", doctor.Known("demo", doctor.DEMO.texts, (0.5, 0.3, 0.2)))
    monkeypatch.setattr(doctor, "LEAST_FREE", 10**18)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLIP_ADAPTER_CACHE", str(tmp_path / "file" / "cache"))
    shown = run("doctor", "--device", "cpu")
    assert shown.exit_code == 1
    text = " ".join(shown.stdout.split())
    assert "instead of 0.5000, 0.3000, 0.2000" in text
    assert "3 checks are off" in text
    assert "is no folder. --cache DIR names another." in text


def known_of(backbone, picture):
    """What ``backbone`` gives to some texts on a picture."""
    from clip_adapter.features.pictures import embed_pictures

    texts = ("a cat", "a dog", "a diagram")
    vectors = embed_pictures(backbone, [picture]), backbone.encode_text([*texts])
    image, text = (v / v.norm(dim=-1, keepdim=True) for v in vectors)
    values = (backbone.logit_scale * image @ text.T).softmax(-1)[0].tolist()
    return doctor.Known(backbone.name, texts, tuple(values))


def test_real_weights_are_compared_with_the_published_example(tiny, hub, tmp_path, monkeypatch):
    from PIL import Image

    from clip_adapter.backbones import load_backbone

    picture = tmp_path / "CLIP.png"
    Image.new("RGBA", (90, 40), (200, 30, 30, 128)).save(picture)
    backbone = load_backbone(tiny, device="cpu")
    known = known_of(backbone, Image.new("RGB", (32, 32), (200, 30, 30)))
    monkeypatch.setattr(doctor, "OPENAI", known)
    fetched = []

    def download(url, path, **published):
        fetched.append((url, path, published["sha256"]))

    monkeypatch.setattr("clip_adapter.datasets.download.fetch.download", download)
    check = doctor._published(in_background(int), picture, "cpu")
    assert (check.state, fetched) == (
        "well",
        [(doctor.PICTURE_URL, picture, doctor.PICTURE_SHA256)],
    )
    other = doctor.Known(known.backbone, known.texts, (0.9, 0.05, 0.05))
    monkeypatch.setattr(doctor, "OPENAI", other)
    check = doctor._published(in_background(int), picture, "cpu")
    assert check.state == "off"
    assert backbone.fingerprint[:12] in check.detail


def test_another_picture_is_off_and_no_network_is_not_checked(tmp_path, monkeypatch):
    def another(*args, **kwargs):
        raise DataError("CLIP.png is not what was published.")

    def nothing(*args, **kwargs):
        raise DataError("It cannot be downloaded.") from ConnectionError()

    for download, state in ((another, "off"), (nothing, "not checked")):
        monkeypatch.setattr("clip_adapter.datasets.download.fetch.download", download)
        assert doctor._published(in_background(int), tmp_path / "x.png", "cpu").state == state


@pytest.mark.network
def test_openais_published_example(own_cache):
    os.makedirs(own_cache, exist_ok=True)
    (check,) = [c for c in doctor.examine("cpu").checks if "openai" in c.name]
    assert check.state == "well", check.detail
