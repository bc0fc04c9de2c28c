"""linear-adapter: its start, its penalty, its steps, and its folds in one pass."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.methods.linear_adapter import EPOCHS_AT_LEAST, SCHEDULE, STEPS, LinearAdapter
from clip_adapter.nn import normalize
from clip_adapter.task import RN50
from clip_adapter.training.folds import folds_of

C, D = 5, 16


def make(counts=(4,) * C, turn=0.8, seed=0):
    """A task whose features are a rotation away from the text, and features to score."""
    generator = torch.Generator().manual_seed(seed)
    text = normalize(torch.randn(C, D, generator=generator))
    skew = torch.randn(D, D, generator=generator) / D**0.5
    rotation = torch.linalg.matrix_exp(turn * (skew - skew.T))

    def draw(numbers):
        labels = torch.arange(C).repeat_interleave(torch.tensor(numbers))
        x = text[labels] @ rotation
        x = x + 0.7 * torch.randn(len(labels), D, generator=generator) / D**0.5
        return FeatureSet(10 * x, labels, [f"class {i}" for i in range(C)])

    return FewShotTask(draw(counts), text, 50.0), draw([60] * C)


def right(classifier, features):
    return (classifier.logits(features).argmax(1) == features.labels).float().mean().item()


def distance(classifier):
    return (classifier.head.image_map.matrix - torch.eye(D)).norm().item()


def test_it_starts_as_zero_shot():
    task, others = make()
    got = learn(LinearAdapter(lr=1e-9, steps=1), task).logits(others)
    want = learn("zero-shot", task).logits(others)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_an_unbearable_penalty_is_zero_shot():
    task, others = make()
    classifier = learn(LinearAdapter(distance_penalty=1e6), task)
    assert distance(classifier) < 0.02 * distance(learn(LinearAdapter(distance_penalty=0), task))
    assert abs(right(classifier, others) - right(learn("zero-shot", task), others)) < 0.02


def test_it_turns_back_features_that_lie_aside():
    task, others = make()
    classifier = learn(LinearAdapter(), task)
    zero = learn("zero-shot", task)
    assert right(classifier, others) > right(zero, others) + 0.05
    assert distance(learn(LinearAdapter(distance_penalty=5), task)) < distance(classifier)


@pytest.mark.parametrize("counts", [(1,) * C, (4,) * C, (6, 1, 1, 3, 0)])
def test_the_penalty_is_one_over_the_mean_number_of_shots(counts):
    classifier = learn(LinearAdapter(), make(counts)[0])
    present = [c for c in counts if c]
    hyperparameters = classifier.info["hyperparameters"]
    assert hyperparameters["distance_penalty"] == pytest.approx(len(present) / sum(present))
    assert classifier.info["selection"] == []
    assert "held_out" not in classifier.info


@pytest.mark.parametrize(("pictures", "steps"), [(20, STEPS), (2560, STEPS), (6400, 100)])
def test_large_sets_get_their_passes(pictures, steps):
    labels = torch.arange(pictures) % 2
    task = FewShotTask(FeatureSet(torch.ones(pictures, 4), labels, ["a", "b"]), torch.eye(4)[:2])
    assert LinearAdapter()._schedule(task).steps == steps
    assert steps * SCHEDULE.batch_size >= EPOCHS_AT_LEAST * pictures
    assert LinearAdapter(steps=3)._schedule(task).steps == 3


def test_held_out_logits_are_those_of_a_fit_without_the_fold():
    """Folds in one pass, against one training each; the penalty stays that of all shots."""
    task, _ = make((6, 6, 1, 3, 0))
    folds = folds_of(task.train, task.seed)
    assert len(folds) > 2
    together = list(LinearAdapter().held_out_logits(task, folds))
    alone = LinearAdapter(distance_penalty=1 / task.mean_shots)
    for fold, got in zip(folds, together, strict=True):
        part = dataclasses.replace(task, train=task.train.subset(fold.fit))
        want = learn(alone, part).logits(task.train.subset(fold.held_out))
        assert got.shape == (len(fold.held_out), C)
        # A shorter fold goes round again within a batch, so its gradients are only about the same.
        assert (got.argmax(1) == want.argmax(1)).float().mean() > 0.7
        assert (got - want).abs().mean() < 0.1 * want.abs().mean()


def test_views_are_trained_on_and_the_plain_one_is_scored():
    task, _ = make()
    views = torch.cat([task.train.features, task.train.features + 0.5])
    plain = task.train.features[0]
    train = FeatureSet(views, task.train.labels, task.class_names, plain=plain)
    folds = folds_of(train, task.seed)
    several = dataclasses.replace(task, train=train)
    flipped = dataclasses.replace(task, train=dataclasses.replace(train, plain=plain.flip(0)))
    a, b = (torch.cat(list(LinearAdapter().held_out_logits(t, folds))) for t in (several, flipped))
    assert not torch.allclose(a, b, atol=0.1)
    assert not torch.equal(
        learn(LinearAdapter(), several).logits(plain), learn(LinearAdapter(), task).logits(plain)
    )


def test_parameters_and_bad_options():
    task, _ = make()
    classifier = learn(LinearAdapter(), task)
    assert classifier.info["trained_parameters"] == D * D
    assert LinearAdapter().parameters(RN50) == 1024 * 1024
    for bad in ({"distance_penalty": -1}, {"distance_penalty": "some"}, {"lr": 0}, {"steps": 0}):
        with pytest.raises(UsageError, match="Allowed"):
            make_method("linear-adapter", bad)
