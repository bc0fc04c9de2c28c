"""TaskRes: scale, recipes, and a class without pictures."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.methods.taskres import FAST_STEPS, published_schedule
from clip_adapter.nn import normalize
from clip_adapter.task import Sizes

C, D = 4, 12


def make(per_class=4):
    generator = torch.Generator().manual_seed(3)
    centres = normalize(torch.randn(C, D, generator=generator))
    text = normalize(centres + 1.2 * torch.randn(C, D, generator=generator) / D**0.5)
    labels = torch.arange(C).repeat_interleave(per_class)
    noise = 0.5 * torch.randn(len(labels), D, generator=generator) / D**0.5
    train = FeatureSet(10 * (centres[labels] + noise), labels, [f"class {i}" for i in range(C)])
    return FewShotTask(train, text, 20.0)


def loss(classifier, task):
    logits = classifier.logits(task.train)
    return torch.nn.functional.cross_entropy(logits, task.train.labels).item()


def test_it_learns_and_scale_0_is_zero_shot():
    task = make()
    zero_shot = learn("zero-shot", task)
    assert loss(learn("taskres", task), task) < loss(zero_shot, task) - 0.01
    still = learn("taskres", task, {"residual_scale": 0}).logits(task.train)
    torch.testing.assert_close(still, zero_shot.logits(task.train))


def test_scale_is_chosen_on_the_shots_when_asked():
    task = make()
    classifier = learn("taskres", task, {"residual_scale": "auto"})
    selection = classifier.info["selection"][0]
    assert selection["candidates"][0] == 0
    assert len(set(selection["loss"])) == len(selection["candidates"])
    assert classifier.info["hyperparameters"]["residual_scale"] == selection["chosen"]
    assert classifier.info["held_out"]["pictures"] == len(task.train)
    one = learn("taskres", make(1), {"residual_scale": "auto"})
    assert one.info["hyperparameters"]["residual_scale"] == 0.5


@pytest.mark.parametrize(
    ("shots", "classes", "rate", "epochs"),
    [(1, 60, 2e-3, 100), (4, 1000, 2e-4, 100), (16, 60, 2e-3, 200)],
)
def test_published_schedule(shots, classes, rate, epochs):
    schedule = published_schedule(shots, classes)
    assert (schedule.lr, schedule.epochs, schedule.batch_size) == (rate, epochs, 256)
    assert (schedule.optimizer, schedule.weight_decay) == ("adam", 5e-4)


def test_fast_goes_as_far_in_fewer_steps():
    few = learn("taskres", make()).info["hyperparameters"]
    assert (few["steps"], few["lr"]) == (100, 2e-3)  # no more than published
    many = learn("taskres", make(16)).info["hyperparameters"]
    assert many["steps"] == FAST_STEPS
    assert many["steps"] * many["lr"] == pytest.approx(200 * 2e-3)
    official = learn("taskres", make(), {"recipe": "official"}).info["hyperparameters"]
    assert (official["epochs"], official["weight_decay"]) == (100, 5e-4)
    assert "steps" not in official
    assert few["weight_decay"] == many["weight_decay"] == 0


def test_a_class_without_pictures_keeps_its_text():
    whole = make()
    rows = torch.nonzero(whole.train.labels != 2).flatten()
    task = dataclasses.replace(whole, train=whole.train.subset(rows))
    learnt = learn("taskres", task).logits(whole.train)
    zero_shot = learn("zero-shot", task).logits(whole.train)
    torch.testing.assert_close(learnt[:, 2], zero_shot[:, 2])
    assert not torch.allclose(learnt[:, 1], zero_shot[:, 1], atol=1e-2)


def test_options_and_parameters():
    for bad in ({"residual_scale": -0.1}, {"lr": 0}, {"recipe": "slow"}):
        with pytest.raises(UsageError):
            make_method("taskres", bad)
    classifier = learn("taskres", make(), {"lr": 1e-3})
    assert classifier.info["hyperparameters"]["lr"] == 1e-3
    assert classifier.parameters == make_method("taskres").parameters(Sizes(D, C, 4)) == C * D
