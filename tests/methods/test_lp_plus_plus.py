"""LP++: its number of steps, and the text of a class without pictures."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.methods.lp_plus_plus import ONE_SHOT_STEPS, STEPS, Blocks
from clip_adapter.nn import normalize
from clip_adapter.task import Sizes

C, D = 5, 16


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(3)
    common = normalize(torch.randn(D, generator=generator))
    centres = common + 0.5 * normalize(torch.randn(C, D, generator=generator))
    text = normalize(centres + 0.3 * torch.randn(C, D, generator=generator) / D**0.5)
    labels = torch.arange(C).repeat_interleave(4)
    noise = 0.6 * torch.randn(len(labels), D, generator=generator) / D**0.5
    names = [f"class {i}" for i in range(C)]
    return FewShotTask(FeatureSet(10 * (centres[labels] + noise), labels, names), text, 50.0)


def test_steps_are_chosen_on_the_shots_along_one_descent(task):
    classifier = learn("lp++", task)
    selection = classifier.info["selection"][0]
    assert selection["candidates"] == list(STEPS)
    assert classifier.info["hyperparameters"]["steps"] == selection["chosen"]
    assert selection["loss"][1] != selection["loss"][2]
    assert classifier.info["held_out"]["pictures"] == len(task.train)
    again = learn("lp++", task, {"steps": selection["chosen"]})
    assert torch.equal(again.logits(task.train), classifier.logits(task.train))


def test_more_steps_fit_the_shots_better(task):
    losses = []
    for steps in (0, 5, 50):
        logits = learn("lp++", task, {"steps": steps}).logits(task.train)
        losses.append(torch.nn.functional.cross_entropy(logits, task.train.labels).item())
    assert losses[0] > losses[1] > losses[2]


def test_one_shot_takes_a_fixed_number(task):
    few = dataclasses.replace(task, train=task.train.subset(list(range(0, 20, 4))))
    assert learn("lp++", few).info["hyperparameters"]["steps"] == ONE_SHOT_STEPS


def test_a_class_without_pictures_keeps_its_text(task):
    rows = torch.nonzero(task.train.labels != 2).flatten()
    part = task.train.subset(rows)
    x = normalize(part.plain_view)
    blocks = Blocks(x, part.labels, task.text_weights)
    start = blocks.alpha.clone()
    for number in range(1, 31):
        blocks.step(number, 0.7)
    assert torch.equal(blocks.weights[2], torch.zeros(D))
    assert blocks.alpha[2] == start[2]
    assert not torch.equal(blocks.alpha, start)
    logits = learn("lp++", dataclasses.replace(task, train=part)).logits(task.train)
    mine = task.train.labels == 2
    assert (logits[mine].argmax(1) == 2).any()


def test_views_are_averaged(task):
    twice = task.train.features.repeat(2, 1, 1)
    doubled = FeatureSet(twice, task.train.labels, task.class_names)
    one = learn("lp++", task, {"steps": 5}).logits(task.train)
    two = learn("lp++", dataclasses.replace(task, train=doubled), {"steps": 5})
    torch.testing.assert_close(two.logits(task.train), one)


def test_equal_pictures_and_bad_options(task):
    task.train.features = torch.ones_like(task.train.features)
    assert torch.isfinite(learn("lp++", task).logits(task.train)).all()
    for bad in ({"steps": -1}, {"momentum": 1.0}, {"steps": "some"}):
        with pytest.raises(UsageError):
            make_method("lp++", bad)


def test_parameters(task):
    classifier = learn("lp++", task)
    assert classifier.parameters == make_method("lp++").parameters(Sizes(D, C, 4)) == C * (D + 1)
