"""What every registered method must do. A new method is tested here without being listed."""

import copy
import dataclasses
import json

import pytest
import torch

from clip_adapter.classifier import Classifier
from clip_adapter.errors import MissingTextError, UsageError
from clip_adapter.methods import Method, get_method, make_method, method_names
from clip_adapter.methods.sizes import Sizes

FEATURE_METHODS = [
    n
    for n in method_names()
    if get_method(n).reads == "features" and not get_method(n).runs_text_tower
]


def accuracy(classifier, features):
    hits = classifier.logits(features).argmax(1) == features.labels
    return 100 * hits.float().mean().item()


@pytest.mark.parametrize("name", method_names())
def test_documented(name):
    cls = get_method(name)
    assert cls.name == name
    assert cls.summary
    assert cls.citation
    assert cls.__doc__
    assert cls.trains
    assert cls.trains != "unknown"
    assert cls.parameters is not Method.parameters or name == "auto"
    assert dataclasses.is_dataclass(cls)
    assert cls().__class__ is cls  # every option has a default


@pytest.mark.parametrize("name", method_names())
def test_unknown_option_names_the_valid_ones(name):
    with pytest.raises(UsageError) as error:
        make_method(name, {"no_such_option": 1})
    for field in dataclasses.fields(get_method(name)):
        assert field.name in str(error.value)


@pytest.fixture(scope="module")
def fitted():
    """fitted(name, task): the classifier of the defaults, made once."""
    known = {}

    def fit(name, task):
        if name not in known:
            known[name] = make_method(name).fit(task)
        return known[name]

    return fit


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_beats_chance_and_leaves_the_task_alone(name, world, fitted):
    task, test = world
    before = copy.deepcopy(task)
    classifier = fitted(name, task)
    assert accuracy(classifier, test) > 3 * 100 / len(task.class_names)
    assert torch.equal(before.train.features, task.train.features)
    assert torch.equal(before.classifier_weights, task.classifier_weights)
    json.dumps(classifier.info)
    assert "hyperparameters" in classifier.info
    # Selection may choose to train nothing, which is zero-shot.
    sizes = Sizes(task.train.dim, len(task.class_names), task.shots)
    assert classifier.info["trained_parameters"] in (0, make_method(name).parameters(sizes)) or (
        make_method(name).parameters(sizes) is None
    )


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_held_out_logits_are_of_rows_of_the_shots(name, world, fitted):
    task, _ = world
    held = fitted(name, task).held_out
    if held is not None:
        assert held.logits.shape == (len(held.rows), len(task.class_names))
        assert len(held.rows.unique()) == len(held.rows) <= len(task.train)
        hits = held.logits.argmax(1) == task.train.labels[held.rows]
        assert hits.float().mean() > 3 / len(task.class_names)


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_same_seed_same_classifier_and_no_backbone(name, world, fitted, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a method that reads features loaded a backbone")

    monkeypatch.setattr("clip_adapter.backbones.load_backbone", refuse)
    monkeypatch.setattr("clip_adapter.backbones.registry.load_backbone", refuse)
    task, test = world
    assert task.backbone is None
    first = fitted(name, task).logits(test)
    torch.manual_seed(99)  # the global generator must not matter
    assert torch.equal(first, make_method(name).fit(task).logits(test))


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_saved_and_loaded_is_the_same_to_the_bit(name, world, fitted, tmp_path):
    task, test = world
    classifier = fitted(name, task)
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    assert torch.equal(classifier.logits(test), loaded.logits(test))
    assert torch.equal(classifier.zero_shot_logits(test), loaded.zero_shot_logits(test))
    assert loaded.class_names == classifier.class_names
    assert loaded.info == json.loads(json.dumps(classifier.info))


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_without_text(name, world):
    task, test = world
    blind = dataclasses.replace(task, classifier_weights=None)
    if get_method(name).needs_text:
        with pytest.raises(MissingTextError, match="backbone"):
            make_method(name).fit(blind)
    else:
        classifier = make_method(name).fit(blind)
        assert accuracy(classifier, test) > 3 * 100 / len(task.class_names)
        with pytest.raises(MissingTextError):
            classifier.zero_shot_logits(test)


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_a_class_without_pictures_and_one_shot(name, world):
    task, test = world
    rows = [i for i, c in enumerate(task.train.labels.tolist()) if c != 2][::8]
    few = dataclasses.replace(task, train=task.train.subset(rows))
    logits = make_method(name).fit(few).logits(test)
    assert logits.shape == (len(test), len(task.class_names))
    assert torch.isfinite(logits).all()
