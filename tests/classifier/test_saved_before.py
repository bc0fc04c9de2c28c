"""Classifiers that an earlier version saved: they load, answer as they did, and save the same."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from clip_adapter import Classifier


@pytest.fixture(scope="module")
def fixtures(root):
    return root / "tests" / "fixtures" / "classifiers"


def test_a_mixture_over_features(fixtures):
    expected = load_file(fixtures / "expected.safetensors")
    logits = Classifier.load(fixtures / "auto").logits(expected["auto.inputs"])
    torch.testing.assert_close(logits, expected["auto.logits"], rtol=1e-4, atol=1e-4)


def test_an_adapter_inside_the_tower_over_pictures(fixtures):
    """The fingerprint of the backbone is also what it was, or it would be refused."""
    expected = load_file(fixtures / "expected.safetensors")
    pictures = [Image.fromarray(pixels.numpy()) for pixels in expected["clip-lora.pictures"]]
    classifier = Classifier.load(fixtures / "clip-lora")
    classifier.backbone("cpu")
    logits = classifier.logits(pictures)
    torch.testing.assert_close(logits, expected["clip-lora.logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["auto", "clip-lora"])
def test_saved_again_it_is_the_same(name, fixtures, tmp_path):
    before, again = fixtures / name, Classifier.load(fixtures / name).save(tmp_path / "again")
    assert {p.name for p in again.iterdir()} == {p.name for p in before.iterdir()}
    for file in ("classifier.json", "seen.json"):  # with the digests of all tensors
        saved, known = (json.loads((folder / file).read_text()) for folder in (again, before))
        if file == "classifier.json":
            assert saved.pop("side_files").keys() == {"seen.json", "README.md"}
        assert saved == known
    assert (again / "README.md").read_text() == (before / "README.md").read_text()
