"""GDA: what it chooses, and what it does without text, spread or pictures."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.methods.gda import MILD_WEIGHT, WEIGHT_ALONE, WEIGHTS, Gaussians
from clip_adapter.nn import normalize
from clip_adapter.task import Sizes

C, D = 5, 16


def make(per_class=4, text=True, noise=0.6, seed=0, views=1):
    generator = torch.Generator().manual_seed(3)
    centres = normalize(torch.randn(C, D, generator=generator))
    words = normalize(centres + torch.randn(C, D, generator=generator) / D**0.5)
    labels = torch.arange(C).repeat_interleave(per_class)
    draws = torch.Generator().manual_seed(seed)
    spread = noise * torch.randn(views, len(labels), D, generator=draws) / D**0.5
    names = [f"class {i}" for i in range(C)]
    train = FeatureSet(10 * (centres[labels] + spread), labels, names)
    return FewShotTask(train, words if text else None, 20.0)


def accuracy(classifier, task):
    hits = classifier.logits(task.train.plain_view).argmax(1) == task.train.labels
    return hits.float().mean().item()


def test_weight_0_is_zero_shot():
    task = make()
    zero_shot = learn("zero-shot", task).logits(task.train)
    gda = learn("gda", task, {"gaussian_weight": 0}).logits(task.train)
    torch.testing.assert_close(gda, zero_shot)


def test_weight_and_shrinkage_are_chosen_on_the_shots():
    task = make(6)
    classifier = learn("gda", task, {"shrinkage": "auto"})
    selection = classifier.info["selection"][0]
    assert selection["parameter"] == "gaussian_weight, shrinkage"
    mild, zero = selection["candidates"][:2]
    gaussians = Gaussians.fit(task.train.features, task.train.labels, C)
    assert mild["gaussian_weight"] == pytest.approx(MILD_WEIGHT * gaussians.spread, rel=0.05)
    assert zero == {"gaussian_weight": 0.0, "shrinkage": 1.0}
    assert {c["gaussian_weight"] for c in selection["candidates"][1:]} == {0.0, *WEIGHTS}
    assert selection["chosen"]["gaussian_weight"] > 0
    assert {c["shrinkage"] for c in selection["candidates"]} > {0.1, 1.0, 10.0}
    assert classifier.info["held_out"]["pictures"] == len(task.train)
    fixed = learn("gda", task, {"gaussian_weight": "0.2", "shrinkage": "3"})
    assert fixed.info["hyperparameters"]["gaussian_weight"] == 0.2
    assert fixed.info["hyperparameters"]["shrinkage"] == 3


def test_a_text_that_says_all_is_kept():
    """Pictures of pure noise: no weight but 0 is safe."""
    task = make(4, noise=30.0)
    labels = task.train.labels
    assert task.text_weights is not None
    task.train.features = task.train.features + 400 * task.text_weights[labels]
    classifier = learn("gda", task)
    assert accuracy(classifier, task) == 1


def test_one_shot_has_a_fixed_weight_and_the_spread_around_the_mean_of_all():
    task = make(1)
    numbers = learn("gda", task).info["hyperparameters"]
    spread = Gaussians.fit(task.train.features, task.train.labels, C).spread
    assert numbers["gaussian_weight"] == pytest.approx(MILD_WEIGHT * spread, rel=0.05)
    assert numbers["covariance"] == "around the mean of all"
    alone = learn("gda", make(1, text=False)).info["hyperparameters"]
    assert alone["gaussian_weight"] == WEIGHT_ALONE
    two = learn("gda", make(2)).info["hyperparameters"]
    assert two["covariance"] == "within classes"


def test_views_are_pictures_so_one_shot_with_views_has_a_spread_of_its_own():
    task = make(1, views=5)
    numbers = learn("gda", task).info["hyperparameters"]
    assert numbers["covariance"] == "within classes"
    assert Gaussians.fit(task.train.features, task.train.labels, C).count == 5 * C


def test_alone_it_beats_the_nearest_class_mean():
    """One direction is noise: the covariance finds it, a mean does not."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(C).repeat_interleave(12)
    centres = torch.randn(C, D, generator=generator)
    loud = torch.zeros(D)
    loud[0] = 8

    def draw(seed):
        own = torch.Generator().manual_seed(seed)
        x = centres[labels] + 0.7 * torch.randn(len(labels), D, generator=own)
        return x + loud * torch.randn(len(labels), 1, generator=own)

    task = FewShotTask(FeatureSet(draw(2), labels, [str(i) for i in range(C)]), None)
    held = draw(3)
    gda = learn("gda", task).logits(held).argmax(1)
    x = normalize(task.train.plain_view)
    means = torch.stack([x[labels == c].mean(0) for c in range(C)])
    nearest = torch.cdist(normalize(held), means).argmin(1)
    assert (gda == labels).float().mean() > (nearest == labels).float().mean() + 0.1


def test_a_class_without_pictures():
    whole = make(4)
    rows = torch.nonzero(whole.train.labels != 2).flatten()
    task = dataclasses.replace(whole, train=whole.train.subset(rows))
    missing = whole.train.plain_view[whole.train.labels == 2]
    with_text = learn("gda", task).logits(missing)
    assert (with_text.argmax(1) == 2).float().mean() >= 0.5  # its text still finds it
    alone = learn("gda", dataclasses.replace(task, text_weights=None))
    assert alone.predict_proba(whole.train)[:, 2].max() == 0


def test_equal_pictures_of_a_class_and_of_all():
    task = make(3, noise=0.0)
    assert accuracy(learn("gda", task), task) == 1
    task.train.features = torch.ones_like(task.train.features)
    assert torch.isfinite(learn("gda", task).logits(task.train)).all()


def test_bad_options_and_tasks():
    for bad in ({"gaussian_weight": -1}, {"shrinkage": 0}, {"shrinkage": "some"}):
        with pytest.raises(UsageError):
            make_method("gda", bad)
    blind = make(text=False)
    with pytest.raises(UsageError, match="nothing to classify by"):
        learn("gda", blind, {"gaussian_weight": 0})
    with pytest.raises(DataError, match="two classes"):
        learn("gda", dataclasses.replace(blind, train=blind.train.subset([0, 1])))


def test_parameters_are_the_fitted_numbers():
    classifier = learn("gda", make())
    assert classifier.parameters == make_method("gda").parameters(Sizes(D, C, 4)) == C * (D + 1)
