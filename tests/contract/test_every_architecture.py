"""Every method through the public door, on the architectures that users have."""

import functools

import numpy as np
import pytest
from quick import quick

import clip_adapter
from clip_adapter.backbones import load_backbone
from clip_adapter.classifier import Classifier
from clip_adapter.errors import BackboneError
from clip_adapter.methods import get_method, method_names
from clip_adapter.options import SourceOptions

# Searches and blends are tested elsewhere.
ONE = {"C": 1.0, "among": "zero-shot,tip-adapter"}
IN_BLOCKS = dict.fromkeys(
    ("clip-lora", "houlsby", "parallel-adapter"), "goes into the blocks of a vision transformer"
)
BELOW = dict.fromkeys(("l-1p", "prolip"), "has no last projection that can be taken out")
# What cannot be, and what is said of it. Anything else must work.
REFUSED = {"transformer": {}, "resnet": IN_BLOCKS, "siglip": IN_BLOCKS | BELOW}


def test_what_is_refused_is_registered():
    assert {name for refused in REFUSED.values() for name in refused} <= set(method_names())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One feature store for all: pictures and class names are embedded once by each backbone."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module", autouse=True)
def one_for_all_trainings():
    """They share a backbone, and would find what another one left in it; classifiers load anew."""
    load = functools.cache(load_backbone)

    def load_once(options, default=None):
        return load(options.backbone, device=options.device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SourceOptions, "load_backbone", load_once)
        yield


def cases():
    """Each method with each architecture; one that reads features alone sees but their size."""
    for name in method_names():
        for architecture in REFUSED:
            runs_a_tower = get_method(name).reads == "images" or get_method(name).runs_text_tower
            default = runs_a_tower or name == "zero-shot" or architecture == "transformer"
            yield pytest.param(name, architecture, marks=[] if default else pytest.mark.slow)


@pytest.mark.parametrize(("name", "architecture"), list(cases()))
def test_fit_predict_save_load_predict_evaluate(
    name, architecture, uneven, tiny_backbone, store, tmp_path
):
    def fit():
        return clip_adapter.fit(
            uneven,
            method=name,
            options=quick(name, **ONE),
            backbone=tiny_backbone(architecture),
            device="cpu",
            cache=store,
        )

    if (reason := REFUSED[architecture].get(name)) is not None:
        with pytest.raises(BackboneError, match=f"{reason}(.|\n)*Allowed: (.|\n)*Next: "):
            fit()
        return
    classifier = fit()
    paths = sorted((uneven / "test").rglob("*.png"))
    before = classifier.predict_proba(paths)
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    loaded.backbone("cpu")
    assert np.array_equal(loaded.predict_proba(paths), before)
    answers = loaded.predict(paths)
    assert answers == [classifier.class_names[i] for i in before.argmax(1)]
    report = clip_adapter.evaluate(loaded, uneven, cache=store)
    truth = [path.parent.name for path in paths]
    assert report.top1 == pytest.approx(percent(answers, truth))
    plain = [loaded.class_names[i] for i in loaded.zero_shot_logits(paths).argmax(1).tolist()]
    assert report.zero_shot_top1 == pytest.approx(percent(plain, truth))


def percent(answers, truth):
    return 100 * sum(a == b for a, b in zip(answers, truth, strict=True)) / len(truth)
