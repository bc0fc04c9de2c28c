"""CLAP: the penalty holds, the recipes agree, and a class without pictures keeps its text."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.methods.clap import distance, penalty_weights
from clip_adapter.nn import normalize
from clip_adapter.nn.cosine import RAW_LENGTH, TextResidual
from clip_adapter.task import Sizes

C, D = 4, 12


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(3)
    centres = normalize(torch.randn(C, D, generator=generator))
    text = normalize(centres + 1.2 * torch.randn(C, D, generator=generator) / D**0.5)
    labels = torch.arange(C).repeat_interleave(4)
    noise = 0.9 * torch.randn(len(labels), D, generator=generator) / D**0.5
    train = FeatureSet(10 * (centres[labels] + noise), labels, [f"class {i}" for i in range(C)])
    return FewShotTask(train, text, 20.0)


def moved(classifier):
    start = RAW_LENGTH * normalize(classifier.text_weights)
    return (classifier.head.weights - start).norm(dim=1)


def objective(classifier, task):
    module = TextResidual(task.text_weights, task.train.labels)
    start = RAW_LENGTH * normalize(task.text_weights)
    with torch.no_grad():
        module.residual.copy_((classifier.head.weights - start)[None])
    held = penalty_weights(
        task.train.features, task.train.labels, task.text_weights, task.logit_scale
    )
    logits = classifier.logits(task.train)
    fit = torch.nn.functional.cross_entropy(logits, task.train.labels)
    return (fit + distance(module, held)).item()


def test_the_penalty_holds_the_weights_near_the_text(task):
    held = learn("clap", task)
    free = learn("clap", task, {"constraint": "none", "lr": 0.03})
    assert (moved(held) > 0.01).all()
    assert moved(held).mean() < 0.7 * moved(free).mean()


def test_fast_comes_near_the_minimum_that_official_finds(task):
    """Here the penalty is strong enough for both to arrive."""
    fast = objective(learn("clap", task, {"lr": 0.02}), task)
    official = objective(learn("clap", task, {"recipe": "official"}), task)
    start = objective(learn("clap", task, {"lr": 1e-9}), task)
    assert official < 0.9 * start
    assert fast < official + 0.05 * (start - official)


def test_a_class_without_pictures_keeps_its_text(task):
    rows = torch.nonzero(task.train.labels != 2).flatten()
    few = dataclasses.replace(task, train=task.train.subset(rows))
    classifier = learn("clap", few)
    assert moved(classifier)[2] == 0
    assert (moved(classifier)[[0, 1, 3]] > 0).all()


def test_record_options_and_parameters(task):
    classifier = learn("clap", task)
    hyperparameters = classifier.info["hyperparameters"]
    assert 0 < hyperparameters["mean_penalty_weight"] < 1
    assert hyperparameters["constraint"] == "l2"
    assert classifier.parameters == make_method("clap").parameters(Sizes(D, C, 4)) == C * D
    for bad in ({"constraint": "l1"}, {"lr": -1}, {"recipe": "slow"}):
        with pytest.raises(UsageError):
            make_method("clap", bad)
