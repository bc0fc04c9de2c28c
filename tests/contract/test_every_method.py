"""What every registered method must do. A new method is tested here without being listed."""

import copy
import dataclasses
import json
import math
import sys
import typing

import pytest
import torch
from learn import learn
from quick import quick

from clip_adapter.classifier import Classifier
from clip_adapter.errors import ClassifierError, MissingTextError, UsageError
from clip_adapter.fitting import make_classifier
from clip_adapter.known_names import own_methods
from clip_adapter.methods import Method, get_method, make_method, method_names
from clip_adapter.methods.base import LARGEST, SMALLEST
from clip_adapter.task import VIT_B_16, Sizes
from clip_adapter.training.folds import folds_of
from clip_adapter.training.selection import cross_validate

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
    assert cls().parameters(VIT_B_16) is not None or name == "auto"
    assert dataclasses.is_dataclass(cls)
    assert cls().__class__ is cls  # every option has a default


@pytest.mark.parametrize("name", method_names())
def test_unknown_option_names_the_valid_ones(name):
    with pytest.raises(UsageError) as error:
        make_method(name, {"no_such_option": 1})
    for field in dataclasses.fields(get_method(name)):
        assert field.name in str(error.value)


# Its grid takes seconds, where what is looked at is not the choice.
LIGHT = {"linear-probe": {"C": 1.0}}


def short(name):
    """As quick, where one that holds shots out still does."""
    return quick(name, among="zero-shot,wise-ft,gda")


def real_options(name):
    """Names of the options that take any number."""
    hints = typing.get_type_hints(get_method(name))
    for field in dataclasses.fields(get_method(name)):
        if hints[field.name] is float or float in typing.get_args(hints[field.name]):
            yield field.name


@pytest.mark.parametrize("value", [1e300, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", method_names())
def test_numbers_out_of_any_range_are_refused(name, value):
    for option in real_options(name):
        with pytest.raises(UsageError, match=option) as error:
            make_method(name, {option: value})
        assert "Allowed" in str(error.value)


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_extreme_numbers_give_a_classifier_or_say_what_is_wrong(name, world):
    task, _ = world
    rows = torch.cat([torch.nonzero(task.train.labels == c).flatten()[:2] for c in range(3)])
    few = dataclasses.replace(task, train=task.train.subset(rows))
    # A ratio has no meaning where its branch is left alone.
    both = {"branch": "both"} if name == "clip-adapter" else {}
    for option in real_options(name):
        for value in (SMALLEST, LARGEST):
            try:
                classifier = learn(name, few, {**short(name), option: value, **both})
            except (UsageError, ClassifierError):
                continue
            assert torch.isfinite(classifier.logits(few.train)).all()


@pytest.fixture(scope="module")
def fitted():
    """fitted(name, task): what the defaults learn, and the classifier of it, made once."""
    known = {}

    def fit(name, task):
        if name not in known:
            method = make_method(name)
            result = method.fit(task)
            known[name] = result, make_classifier(result, method, task, {}, 0.0)
        return known[name]

    return fit


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_beats_chance_and_leaves_the_task_alone(name, world, fitted):
    task, test = world
    before = copy.deepcopy(task)
    _, classifier = fitted(name, task)
    assert accuracy(classifier, test) > 3 * 100 / len(task.class_names)
    assert torch.equal(before.train.features, task.train.features)
    assert torch.equal(before.text_weights, task.text_weights)
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
    held = fitted(name, task)[0].held_out
    if held is not None:
        assert held.logits.shape == (len(held.rows), len(task.class_names))
        assert len(held.rows.unique()) == len(held.rows) <= len(task.train)
        hits = held.logits.argmax(1) == task.train.labels[held.rows]
        assert hits.float().mean() > 3 / len(task.class_names)


OWN_PASS = [
    n for n in FEATURE_METHODS if get_method(n).held_out_logits is not Method.held_out_logits
]


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("name", OWN_PASS)
def test_all_folds_in_one_pass_are_as_one_fit_for_each(name, even, world):
    task, _ = world
    if not even:
        labels = task.train.labels.tolist()
        wanted = [8, 8, 3, 3, 1, 0]
        rows = [i for i, c in enumerate(labels) if labels[:i].count(c) < wanted[c]]
        task = dataclasses.replace(task, train=task.train.subset(rows))
    folds = folds_of(task.train, task.seed)
    assert len(folds) > 2
    method = make_method(name)
    together = list(method.held_out_logits(task, folds))
    alone = list(Method.held_out_logits(method, task, folds))
    assert [x.shape for x in together] == [(len(f.held_out), len(task.class_names)) for f in folds]
    got, want = torch.cat(together), torch.cat(alone)
    # Shorter folds go round again, and a penalty may be that of all shots: about the same.
    assert (got - want).abs().mean() < 0.1 * want.std(1).mean()
    assert (got.argmax(1) == want.argmax(1)).float().mean() > 0.9


def everywhere(monkeypatch, name, new):
    """Replaces ``name`` in every module of the package that imported it."""
    for key, module in list(sys.modules.items()):
        if key.startswith("clip_adapter") and name in vars(module):
            monkeypatch.setattr(module, name, new)


@pytest.fixture
def watched_fit(world, monkeypatch):
    """watched_fit(name, features, plain): what was learnt, and all that cross-validation saw.

    Shots are held out in one fold, so that no training sees any of them: (what is chosen, the
    candidate, the rows held out, their logits) of every candidate.
    """
    task, _ = world
    seen = []

    def one_fold(train, seed, enough=None, *, text=True):
        return folds_of(train, seed, text=text)[:1]

    def spy(parameter, candidates, folds, labels, evaluate, reference=0):
        # A fit on a part of the shots numbers its rows anew.
        rows = folds[0].held_out if len(labels) == len(task.train) else None

        def evaluate_and_note(jobs):
            for (_, candidate), logits in zip(jobs, evaluate(jobs), strict=True):
                seen.append((parameter, candidate, rows, logits.clone()))
                yield logits

        return cross_validate(parameter, candidates, folds, labels, evaluate_and_note, reference)

    everywhere(monkeypatch, "folds_of", one_fold)
    everywhere(monkeypatch, "cross_validate", spy)

    def fit(name, features, plain=None):
        seen.clear()
        train = dataclasses.replace(task.train, features=features, plain=plain)
        return make_method(name, short(name)).fit(dataclasses.replace(task, train=train)), list(
            seen
        )

    return fit


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_held_out_pictures_do_not_see_each_other(name, world, watched_fit):
    task, _ = world
    held_out = folds_of(task.train, task.seed)[0].held_out
    noise = torch.randn(task.train.dim, generator=torch.Generator().manual_seed(7))

    def same(before, after, rows):
        others = torch.ones(len(before), dtype=torch.bool) if rows is None else rows != changed
        # Candidates may train for hundreds of steps: what is left is noise of rounding.
        torch.testing.assert_close(after[others], before[others], atol=1e-4, rtol=1e-5)

    def choice(result):
        chosen = [selection["chosen"] for selection in result.selection]
        return chosen, getattr(result.head, "shares", None)

    before, seen_before = watched_fit(name, task.train.features)
    if before.held_out is None:
        assert not seen_before
        return
    compared = 0
    for changed in held_out.tolist():
        features = task.train.features.clone()
        features[:, changed] = 5 * (features[:, changed] + noise)
        after, seen_after = watched_fit(name, features)
        assert len(seen_before) == len(seen_after)
        for one, two in zip(seen_before, seen_after, strict=True):
            assert one[:2] == two[:2]
            same(one[3], two[3], one[2])
            compared += 1
        # The choice itself may follow the picture that was changed.
        if choice(before) == choice(after):
            same(before.held_out.logits, after.held_out.logits, before.held_out.rows)
            compared += 1
        if compared:
            break
    assert compared


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_held_out_pictures_are_scored_on_the_plain_view(name, world, watched_fit):
    task, _ = world
    views = torch.cat([task.train.features, task.train.features + 0.5])
    logits_of = []
    for plain in (None, views[0], views[0].flip(0)):
        result, seen = watched_fit(name, views, plain)
        if result.held_out is None:
            return
        logits_of.append(torch.cat([result.held_out.logits, *(logits for *_, logits in seen)]))
    unknown, first, another = logits_of
    assert torch.equal(unknown, first)
    assert another.shape != first.shape or not torch.allclose(another, first, atol=0.1)


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_same_seed_same_classifier_and_no_backbone(name, world, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a method that reads features loaded a backbone")

    monkeypatch.setattr("clip_adapter.backbones.load_backbone", refuse)
    monkeypatch.setattr("clip_adapter.backbones.load.load_backbone", refuse)
    task, test = world
    assert task.backbone is None
    options = short(name) | LIGHT.get(name, {})
    first = learn(name, task, options).logits(test)
    torch.manual_seed(99)  # the global generator must not matter
    assert torch.equal(first, learn(name, task, options).logits(test))


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_saved_and_loaded_is_the_same_to_the_bit(name, world, fitted, tmp_path):
    task, test = world
    _, classifier = fitted(name, task)
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    assert torch.equal(classifier.logits(test), loaded.logits(test))
    assert torch.equal(classifier.zero_shot_logits(test), loaded.zero_shot_logits(test))
    assert loaded.class_names == classifier.class_names
    assert loaded.info == json.loads(json.dumps(classifier.info))


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_without_text(name, world):
    task, test = world
    blind = dataclasses.replace(task, text_weights=None)
    if get_method(name).needs_text:
        with pytest.raises(MissingTextError, match="backbone"):
            learn(name, blind)
    else:
        classifier = learn(name, blind, LIGHT.get(name))
        assert accuracy(classifier, test) > 3 * 100 / len(task.class_names)
        with pytest.raises(MissingTextError):
            classifier.zero_shot_logits(test)


@pytest.mark.parametrize("name", [n for n in FEATURE_METHODS if not get_method(n).needs_text])
def test_whether_text_speaks_for_a_class_without_pictures(name, world):
    task, test = world
    few = dataclasses.replace(
        task, train=task.train.subset(torch.nonzero(task.train.labels != 2)[:, 0])
    )
    of_class = test.subset(torch.nonzero(test.labels == 2).flatten())

    def recognised(task):
        return bool((learn(name, task, LIGHT.get(name)).logits(of_class).argmax(1) == 2).any())

    assert recognised(few) == get_method(name).uses_text
    assert not recognised(dataclasses.replace(few, text_weights=None))


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_a_class_without_pictures_and_one_shot(name, world):
    task, test = world
    rows = [i for i, c in enumerate(task.train.labels.tolist()) if c != 2][::8]
    few = dataclasses.replace(task, train=task.train.subset(rows))
    logits = learn(name, few, short(name)).logits(test)
    assert logits.shape == (len(test), len(task.class_names))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", sorted({*method_names(), *own_methods()}))
def test_its_name_is_read_from_its_file(name):
    known = name in method_names() and get_method(name).__module__.startswith("clip_adapter.")
    assert (name in own_methods()) == known, (
        f'Begin the decorator of its class with @register(name="{name}": from that line the '
        "command line knows its name without torch."
    )
