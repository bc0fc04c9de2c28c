"""What every method must do that runs a tower of the backbone, on the demo backbone."""

import functools
import json

import pytest
import torch
from quick import quick

import clip_adapter
from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.methods import get_method, make_method, method_names
from clip_adapter.task import Sizes

IMAGE_METHODS = [n for n in method_names() if get_method(n).reads == "images"]
TOWER_METHODS = IMAGE_METHODS + [n for n in method_names() if get_method(n).runs_text_tower]
CLASSES, SHOTS = 6, 2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One feature store for all: pictures and class names are embedded once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def fitted(pictures, store):
    """fitted(name): a new classifier of the demo pictures."""

    def fit(name):
        options = {"shots": SHOTS, "backbone": "demo", "device": "cpu", "cache": store}
        return clip_adapter.fit(pictures, method=name, options=quick(name), **options)

    return fit


@pytest.fixture(scope="module")
def fits(fitted):
    """fits(name): a classifier of the demo pictures, made once."""
    return functools.cache(fitted)


@pytest.fixture(scope="module")
def zero_shot_top1(pictures, store):
    plain = clip_adapter.fit(pictures, method="zero-shot", backbone="demo", cache=store)
    return clip_adapter.evaluate(plain, pictures, cache=store).top1


@pytest.mark.parametrize("name", TOWER_METHODS)
def test_beats_chance_beside_the_true_zero_shot(name, fits, pictures, store, zero_shot_top1):
    report = clip_adapter.evaluate(fits(name), pictures, cache=store)
    assert report.top1 > 2 * 100 / CLASSES
    assert report.zero_shot_top1 == zero_shot_top1


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
def test_same_seed_same_classifier_to_the_bit_and_an_untouched_backbone(
    name, fits, fitted, pictures, monkeypatch
):
    once = fits(name)
    backbone = clip_adapter.load_backbone("demo", device="cpu")
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    hooks = sum(len(m._forward_hooks) for m in backbone.model.modules())
    torch.manual_seed(99)  # the global generator must not matter, nor be moved
    state = torch.get_rng_state()
    with monkeypatch.context() as patch:
        patch.setattr("clip_adapter.backbones.load_backbone", lambda *args, **kwargs: backbone)
        again = fitted(name)
    assert torch.equal(torch.get_rng_state(), state)
    after = backbone.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert sum(len(m._forward_hooks) for m in backbone.model.modules()) == hooks
    assert not any(p.requires_grad for p in backbone.model.parameters())
    paths = sorted((pictures / "test").glob("*/00.png"))
    assert torch.equal(once.logits(paths), again.logits(paths))


@pytest.mark.parametrize("name", TOWER_METHODS)
def test_saved_and_loaded_is_the_same_to_the_bit(name, fits, pictures, tmp_path):
    classifier = fits(name)
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    paths = sorted((pictures / "test").glob("*/*"))[::5]
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
