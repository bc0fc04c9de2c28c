"""What is stored and recorded of an own backbone is of its weights as they are when it is used."""

import json

import pytest
import torch
from torch import nn

import clip_adapter
from clip_adapter import Classifier, load_backbone
from clip_adapter.backbones import Preprocess
from clip_adapter.errors import ClassifierError

PROBE = {"method": "linear-probe", "options": {"C": 1.0}}


class Colours(nn.Module):
    """Mean colours, mapped to 4 numbers; what it states is nothing of its weights."""

    preprocess = Preprocess(8, (0.4, 0.4, 0.4), (0.25, 0.25, 0.25))
    fingerprint = "colours-1"

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 4, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(4, 3))

    def encode_images(self, images):
        return self.map(images.mean((2, 3)))


class Holder:
    """No torch module; two are among its attributes."""

    preprocess, fingerprint = Colours.preprocess, "holder-1"

    def __init__(self):
        self.colours, self.scale = Colours().eval(), nn.Module()
        self.scale.register_buffer("value", torch.ones(4), persistent=False)

    def encode_images(self, images):
        return self.colours.encode_images(images) * self.scale.value


CHANGES = [
    (Colours, lambda mine: mine.map.weight),
    (Holder, lambda mine: mine.colours.map.weight),
    (Holder, lambda mine: mine.scale.value),
]


@pytest.mark.parametrize(("kind", "weights"), CHANGES)
@pytest.mark.parametrize("loaded", [False, True])
def test_weights_of_later_are_not_taken_for_those_of_before(
    uneven, tmp_path, kind, weights, loaded
):
    def changed(mine):
        with torch.no_grad():
            weights(mine)[1:].mul_(-3).add_(0.5)
        return mine

    mine = kind()
    given = load_backbone(mine) if loaded else mine
    classifier = clip_adapter.fit(uneven, backbone=given, **PROBE)
    changed(mine)
    with pytest.raises(ClassifierError, match="not those that this classifier"):
        Classifier.load(classifier.save(tmp_path / "before"), backbone=given)
    with pytest.raises(ClassifierError, match="not those that this classifier"):
        clip_adapter.evaluate(classifier, uneven)
    after = clip_adapter.fit(uneven, backbone=given, **PROBE)
    fresh = clip_adapter.fit(uneven, backbone=changed(kind()), cache=None, **PROBE)
    assert torch.equal(after.head.weights, fresh.head.weights)
    assert not torch.equal(after.head.weights, classifier.head.weights)


def test_a_record_of_what_the_object_states_alone_is_loaded_with_a_word(uneven, tmp_path):
    mine = Colours()
    folder = clip_adapter.fit(uneven, backbone=mine, **PROBE).save(tmp_path / "c")
    record = json.loads((folder / "classifier.json").read_text())
    record["info"]["backbone_fingerprint"] = "colours-1"  # as it was once
    (folder / "classifier.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="Colours has the weights .* cannot be checked"):
        Classifier.load(folder, backbone=mine)
