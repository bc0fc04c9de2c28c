"""What every method must do that runs a tower of the backbone, on the demo backbone."""

import dataclasses
import json

import pytest
import torch

import clip_adapter
from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.methods import get_method, make_method, method_names
from clip_adapter.task import Sizes

IMAGE_METHODS = [n for n in method_names() if get_method(n).reads == "images"]
TOWER_METHODS = IMAGE_METHODS + [n for n in method_names() if get_method(n).runs_text_tower]
CLASSES, SHOTS = 6, 3


def quick(name):
    """The defaults, for a few epochs."""
    fields = {f.name for f in dataclasses.fields(get_method(name))}
    assert "epochs" in fields, "methods that run a tower have the option epochs"
    return {"epochs": 3}


def fitted(name, folder):
    return clip_adapter.fit(
        folder, method=name, options=quick(name), shots=SHOTS, backbone="demo", device="cpu"
    )


@pytest.fixture(scope="module")
def fits(pictures):
    """fits(name): a classifier of the demo pictures, made once."""
    known = {}

    def fit(name):
        if name not in known:
            known[name] = fitted(name, pictures)
        return known[name]

    return fit


@pytest.mark.parametrize("name", TOWER_METHODS)
def test_beats_chance_beside_the_true_zero_shot(name, fits, pictures):
    report = clip_adapter.evaluate(fits(name), pictures)
    assert report.top1 > 2 * 100 / CLASSES
    plain = clip_adapter.fit(pictures, method="zero-shot", backbone="demo")
    assert report.zero_shot_top1 == clip_adapter.evaluate(plain, pictures).top1


@pytest.mark.parametrize("name", TOWER_METHODS)
def test_record_and_count(name, fits):
    classifier = fits(name)
    json.dumps(classifier.info)
    assert "hyperparameters" in classifier.info
    model = classifier.backbone().model
    visual, text = (sum(p.numel() for p in m.parameters()) for m in (model.visual, model))
    sizes = Sizes(
        dim=classifier.backbone().embed_dim,
        classes=CLASSES,
        shots=SHOTS,
        trunk=model.visual.transformer.width,
        blocks=len(model.visual.transformer.resblocks),
        text_width=model.transformer.width,
        text_blocks=len(model.transformer.resblocks),
        visual_parameters=visual,
        text_parameters=text - visual - 1,  # without the logit scale
    )
    expected = make_method(name, quick(name)).parameters(sizes)
    assert classifier.info["trained_parameters"] == expected > 0


@pytest.mark.parametrize("name", TOWER_METHODS)
def test_the_backbone_is_untouched(name, pictures, monkeypatch):
    backbone = clip_adapter.load_backbone("demo", device="cpu")
    monkeypatch.setattr("clip_adapter.backbones.load_backbone", lambda *args, **kwargs: backbone)
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    hooks = sum(len(m._forward_hooks) for m in backbone.model.modules())
    fitted(name, pictures)
    after = backbone.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert sum(len(m._forward_hooks) for m in backbone.model.modules()) == hooks
    assert not any(p.requires_grad for p in backbone.model.parameters())


@pytest.mark.parametrize("name", TOWER_METHODS)
def test_same_seed_same_classifier_to_the_bit(name, fits, pictures):
    torch.manual_seed(99)  # the global generator must not matter, nor be moved
    state = torch.get_rng_state()
    again = fitted(name, pictures)
    assert torch.equal(torch.get_rng_state(), state)
    paths = sorted((pictures / "test").glob("*/*"))
    assert torch.equal(fits(name).logits(paths), again.logits(paths))


@pytest.mark.parametrize("name", TOWER_METHODS)
def test_saved_and_loaded_is_the_same_to_the_bit(name, fits, pictures, tmp_path):
    classifier = fits(name)
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    paths = sorted((pictures / "test").glob("*/*"))
    assert torch.equal(classifier.logits(paths), loaded.logits(paths))
    assert torch.equal(classifier.zero_shot_logits(paths), loaded.zero_shot_logits(paths))
    assert loaded.info == json.loads(json.dumps(classifier.info))


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_features_are_refused_with_what_to_do(name, fits, pictures, tmp_path):
    task = clip_adapter.FewShotTask(
        clip_adapter.FeatureSet(torch.randn(4, 8), torch.tensor([0, 0, 1, 1]), ["a", "b"]),
        torch.randn(2, 8),
    )
    with pytest.raises(UsageError, match="ls methods"):
        make_method(name, quick(name)).fit(task)
