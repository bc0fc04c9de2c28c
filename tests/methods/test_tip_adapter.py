"""Tip-Adapter: what is chosen, what is kept, and what the options say."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.tip_adapter import TipAdapter, TipAdapterF
from clip_adapter.nn import normalize
from clip_adapter.task import RN50
from clip_adapter.training.folds import folds_of

C, D = 5, 16


def make(shots=4, text_noise=0.5, seed=0, scale=50.0, classes=C):
    """A task, and features of the same classes to score."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(classes, D, generator=generator))

    def draw(n, noise):
        labels = torch.arange(classes).repeat_interleave(n)
        x = centres[labels] + noise * torch.randn(len(labels), D, generator=generator) / D**0.5
        return FeatureSet(10 * x, labels, [str(i) for i in range(classes)])

    text = normalize(centres + text_noise * torch.randn(classes, D, generator=generator) / D**0.5)
    return FewShotTask(draw(shots, 0.9), text, scale), draw(60, 0.9)


def right(classifier, features):
    return (classifier.logits(features).argmax(1) == features.labels).float().mean().item()


@pytest.mark.parametrize("method", [TipAdapter, TipAdapterF])
def test_weight_nought_is_zero_shot(method):
    task, others = make()
    classifier = learn(method(cache_weight=0.0, cache_sharpness=2.0), task)
    assert torch.equal(classifier.logits(others), classifier.zero_shot_logits(others))


@pytest.mark.parametrize("method", [TipAdapter, TipAdapterF])
def test_the_cache_helps_where_the_text_is_poor(method):
    task, others = make(text_noise=4.0)
    classifier = learn(method(), task)
    zero_shot = (classifier.zero_shot_logits(others).argmax(1) == others.labels).float().mean()
    assert right(classifier, others) > zero_shot.item() + 0.1
    assert classifier.info["hyperparameters"]["cache_weight"] > 0


@pytest.mark.parametrize("method", [TipAdapter, TipAdapterF])
def test_what_was_chosen_is_recorded_and_used(method):
    task, _ = make()
    classifier = learn(method(), task)
    selection = classifier.info["selection"][0]
    assert selection["parameter"] == "cache_weight, cache_sharpness"
    assert selection["candidates"][0]["cache_weight"] == 0
    assert selection["chosen"] in selection["candidates"]
    assert selection["pictures"] == len(task.train) == classifier.info["held_out"]["pictures"]
    cache = classifier.head.cache
    assert cache.weight.item() == pytest.approx(selection["chosen"]["cache_weight"])
    assert cache.sharpness.item() == pytest.approx(selection["chosen"]["cache_sharpness"])


@pytest.mark.parametrize("kept", [[4, 4, 4, 4, 4], [4, 1, 2, 4, 0]])
def test_held_out_logits_are_those_of_a_cache_without_the_fold(kept):
    """Its classes sum to the shots of the whole: the weight is for so many."""
    whole, _ = make()
    rows = [4 * c + i for c, count in enumerate(kept) for i in range(count)]
    task = dataclasses.replace(whole, train=whole.train.subset(rows))
    chosen = TipAdapter(cache_weight=2.0, cache_sharpness=3.0).fit(task).held_out
    start = 0
    for fold in folds_of(task.train, task.seed):
        less = dataclasses.replace(task, train=task.train.subset(fold.fit))
        weight = 2.0 * task.mean_shots / less.mean_shots
        want = learn(TipAdapter(cache_weight=weight, cache_sharpness=3.0), less)
        got = chosen.logits[start : start + len(fold.held_out)]
        held = task.train.plain_view[fold.held_out]
        torch.testing.assert_close(got, want.logits(held), atol=1e-4, rtol=1e-5)
        start += len(fold.held_out)
    assert start == len(chosen.rows) > 0


def test_weights_follow_the_logit_scale():
    large, small = (make(scale=s)[0] for s in (100.0, 10.0))
    chosen = [
        learn(TipAdapter(cache_sharpness=4.0), t).info["selection"][0] for t in (large, small)
    ]
    tenth = [c["cache_weight"] / 10 for c in chosen[0]["candidates"]]
    assert tenth == pytest.approx([c["cache_weight"] for c in chosen[1]["candidates"]])
    assert 0.0 in tenth


@pytest.mark.parametrize(("shots", "weight"), [(1, 3.0), (2, 3.0), (8, 2.0), (16, 1.0)])
def test_before_any_search_the_published_setting_for_the_shots(shots, weight):
    task, _ = make(shots=shots, scale=100.0)
    assert list(TipAdapter().mild(task).values()) == [pytest.approx(weight), 5.5]


@pytest.mark.parametrize("method", [TipAdapter, TipAdapterF])
def test_one_shot_is_not_searched(method):
    task, _ = make(shots=1, scale=100.0)
    classifier = learn(method(), task)
    assert "held_out" not in classifier.info
    assert classifier.info["selection"][0]["accuracy"] == []
    assert classifier.info["hyperparameters"]["cache_weight"] == 3.0
    assert classifier.info["hyperparameters"]["cache_sharpness"] == 5.5


def test_training_the_keys_fits_the_shots():
    task, _ = make(text_noise=2.0)

    def loss(classifier):
        logits = classifier.logits(task.train.plain_view)
        return torch.nn.functional.cross_entropy(logits, task.train.labels).item()

    given = {"cache_weight": 2.0, "cache_sharpness": 2.0}
    assert (
        loss(learn(TipAdapterF(**given, lr=0.01), task))
        < loss(learn(TipAdapter(**given), task)) - 0.02
    )


def test_fast_takes_fewer_steps_at_a_higher_rate():
    fast, official = (
        TipAdapterF(recipe=r, batch_size=4)._schedule(80) for r in ("fast", "official")
    )
    assert (fast.steps, official.steps) == (50, 400)
    assert fast.lr * fast.steps == pytest.approx(official.lr * official.steps)
    assert official.lr == 1e-3
    assert official.epsilon == 1e-4
    assert TipAdapterF()._schedule(60) == TipAdapterF(recipe="official")._schedule(60)


def test_parameters_are_those_of_the_keys():
    task, _ = make(shots=3)
    assert learn(TipAdapterF(), task).info["trained_parameters"] == 3 * C * D
    assert TipAdapterF().parameters(RN50) == 16_384_000
    assert TipAdapter().parameters(RN50) == 0


def test_bad_options():
    for bad in ({"cache_weight": -1.0}, {"cache_sharpness": 0.0}, {"cache_weight": float("inf")}):
        for method in (TipAdapter, TipAdapterF):
            with pytest.raises(UsageError, match="auto"):
                method(**bad)
    for bad in ({"lr": 0.0}, {"batch_size": 0}, {"epochs": 0}):
        with pytest.raises(UsageError):
            TipAdapterF(**bad)


def test_keys_of_held_out_shots_take_no_part_in_the_training():
    task, _ = make()
    rows = [torch.arange(0, len(task.train), 2)]
    changed = task.train.features.clone()
    changed[:, 1::2] = changed[:, 1::2].flip(1)
    other = FewShotTask(
        FeatureSet(changed, task.train.labels, task.class_names),
        task.text_weights,
        task.logit_scale,
    )
    keys = [TipAdapterF()._train(t, rows).keys.detach()[0] for t in (task, other)]
    assert torch.equal(keys[0][::2], keys[1][::2])
    assert not torch.equal(keys[0][1::2], keys[1][1::2])
