"""CLIP-Adapter with a cache: it contains both of its parts, and chooses between them."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.cached_adapter import CachedAdapter
from clip_adapter.methods.clip_adapter import CLIPAdapter
from clip_adapter.methods.tip_adapter import TipAdapter
from clip_adapter.nn import normalize
from clip_adapter.task import RN50
from clip_adapter.training.recipes import CANDIDATES, ONE_SHOT_RATIO
from clip_adapter.training.selection import mean, score

C, D = 5, 16


def make(shots=4, text_noise=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(C, D, generator=generator))

    def draw(n):
        labels = torch.arange(C).repeat_interleave(n)
        x = centres[labels] + 0.9 * torch.randn(len(labels), D, generator=generator) / D**0.5
        return FeatureSet(10 * x, labels, [str(i) for i in range(C)])

    text = normalize(centres + text_noise * torch.randn(C, D, generator=generator) / D**0.5)
    return FewShotTask(draw(shots), text, 100.0), draw(60)


def right(classifier, features):
    return (classifier.logits(features).argmax(1) == features.labels).float().mean().item()


def test_without_a_cache_it_is_clip_adapter():
    task, others = make()
    mine = learn(CachedAdapter(visual_ratio=0.4, cache_weight=0.0), task).logits(others)
    theirs = learn(CLIPAdapter(visual_ratio=0.4), task).logits(others)
    torch.testing.assert_close(mine, theirs, atol=1e-2, rtol=0)  # of about 50


def test_at_ratio_nought_it_is_tip_adapter_to_the_bit():
    task, others = make()
    mine = learn(CachedAdapter(visual_ratio=0.0, cache_weight=2.0, cache_sharpness=3.0), task)
    assert torch.equal(mine.logits(others), learn(TipAdapter(2.0, 3.0), task).logits(others))
    assert mine.info["trained_parameters"] == 0


def test_better_than_zero_shot_where_the_text_is_poor():
    task, others = make()
    classifier = learn(CachedAdapter(), task)
    zero_shot = (classifier.zero_shot_logits(others).argmax(1) == others.labels).float().mean()
    assert right(classifier, others) > zero_shot.item() + 0.1


def test_all_three_are_chosen_together_and_recorded():
    task, _ = make()
    classifier = learn(CachedAdapter(), task)
    (selection,) = classifier.info["selection"]
    assert selection["parameter"] == "visual_ratio, cache_weight, cache_sharpness"
    safe = selection["candidates"][0]
    assert (safe["visual_ratio"], safe["cache_weight"]) == (0.0, 0.0)
    assert {c["visual_ratio"] for c in selection["candidates"]} == set(CANDIDATES)
    for ratio in CANDIDATES:
        weights = [c["cache_weight"] for c in selection["candidates"] if c["visual_ratio"] == ratio]
        assert weights.count(0.0) == 1
        assert len(set(weights)) > 4
    chosen = selection["chosen"]
    assert selection["loss"][selection["candidates"].index(chosen)] <= selection["loss"][0]
    assert classifier.head.cache.weight.item() == pytest.approx(chosen["cache_weight"])
    assert classifier.info["hyperparameters"]["visual_ratio"] == chosen["visual_ratio"]


def test_the_safe_candidate_is_zero_shot_on_the_held_out_shots():
    task, _ = make()
    fitted = CachedAdapter().fit(task)
    held_out, (selection,) = fitted.held_out, fitted.selection
    rows = held_out.rows
    logits = learn("zero-shot", task).logits(task.train.plain_view[rows])
    hits, losses = score(logits, task.train.labels[rows], held_out.weight)
    assert selection["loss"][0] == pytest.approx(mean(losses, held_out.weight), abs=1e-5)
    share = mean(hits, held_out.weight)
    assert selection["accuracy"][0] == pytest.approx(100 * share)
    assert share == pytest.approx(hits.mean().item())  # of an even folder, all at their one place


def test_passes_of_the_cross_validation_do_not_change_its_order(monkeypatch):
    task, _ = make(shots=2)
    whole = learn(CachedAdapter(), task).info["selection"][0]
    monkeypatch.setattr("clip_adapter.training.recipes.MAX_SCORES", 1)
    single = learn(CachedAdapter(), task).info["selection"][0]
    # One run at a time draws other batches, so only what needs no training is the same.
    still = [i for i, c in enumerate(whole["candidates"]) if c["visual_ratio"] == 0]
    assert len(still) > 10
    assert [whole["loss"][i] for i in still] == [single["loss"][i] for i in still]
    assert single["loss"] == pytest.approx(whole["loss"], rel=0.2)


def test_one_shot_is_not_searched():
    task, _ = make(shots=1)
    hyperparameters = learn(CachedAdapter(), task).info["hyperparameters"]
    assert hyperparameters["visual_ratio"] == ONE_SHOT_RATIO
    assert (hyperparameters["cache_weight"], hyperparameters["cache_sharpness"]) == (3.0, 5.5)


def test_parameters_and_bad_options():
    task, _ = make()
    classifier = learn(CachedAdapter(visual_ratio=0.2, cache_weight=1.0), task)
    assert classifier.info["trained_parameters"] == 2 * D * D // 4
    assert CachedAdapter().parameters(RN50) == 524_288
    for bad in (
        {"visual_ratio": 1.5},
        {"cache_weight": -1.0},
        {"cache_sharpness": 0.0},
        {"reduction": 0},
    ):
        with pytest.raises(UsageError):
            CachedAdapter(**bad)
    with pytest.raises(UsageError, match="hidden"):
        learn(dataclasses.replace(CachedAdapter(), reduction=D + 1), task)
