"""The grid of the cache methods and how it is walked."""

from types import SimpleNamespace

import pytest
import torch

from clip_adapter.methods.cache import Part, balanced, enough, scores_of, unit_keys
from clip_adapter.methods.tip_adapter import TipAdapter
from clip_adapter.training.folds import HELD_OUT_ENOUGH, Fold


def test_the_safe_candidate_comes_first_and_none_comes_twice():
    candidates = TipAdapter().grid(100.0)
    assert candidates[0]["cache_weight"] == 0
    assert len({tuple(c.values()) for c in candidates}) == len(candidates) == 109
    assert len(TipAdapter().grid(100.0, coarse=True)) == 19


def test_what_was_given_stays():
    assert TipAdapter(2.0, 3.0).grid(10.0) == [{"cache_weight": 2.0, "cache_sharpness": 3.0}]
    assert {c["cache_weight"] for c in TipAdapter(2.0).grid(10.0)} == {2.0}
    assert {c["cache_sharpness"] for c in TipAdapter("auto", 3.0).grid(10.0)} == {3.0}


@pytest.mark.parametrize(("scale", "weight"), [(100.0, 2.0), (50.0, 1.0), (20.0, 0.4)])
def test_the_weight_before_any_search_is_in_proportion_to_the_logit_scale(scale, weight):
    task = SimpleNamespace(mean_shots=8, logit_scale=scale)
    start = TipAdapter().mild(task)
    assert start == {"cache_weight": pytest.approx(weight), "cache_sharpness": 5.5}
    assert TipAdapter(7.0, 3.0).mild(task) == {"cache_weight": 7.0, "cache_sharpness": 3.0}


def test_the_chosen_candidate_adds_its_weight_times_the_cache(monkeypatch):
    """Two folds of one picture each; only weight 5 and sharpness 2 gets both right."""
    asked = []

    def near(cosines, sharpness):
        asked.append((float(cosines[0, 0]), sharpness))
        return cosines + sharpness

    monkeypatch.setattr("clip_adapter.methods.cache.nearness", near)
    candidates = [
        {"cache_weight": w, "cache_sharpness": b} for b in (1.0, 2.0) for w in (0.0, 3.0, 5.0)
    ]
    parts = [
        Part(torch.tensor([[13.5, 0.0]]), torch.tensor([[10.0]]), torch.tensor([[0.0, 1.0]])),
        Part(torch.tensor([[0.0, 50.0]]), torch.tensor([[20.0]]), torch.tensor([[1.0, 0.0]])),
    ]
    folds = [Fold(torch.tensor([1 - k]), torch.tensor([k])) for k in (0, 1)]
    task = SimpleNamespace(train=SimpleNamespace(labels=torch.tensor([1, 0])))
    choice = TipAdapter().choose(
        task, folds, lambda fold, _: parts[fold], candidates, candidates[0]
    )
    # Asked once for all weights, and anew for all else.
    assert asked == [(10.0, 1.0), (20.0, 1.0), (10.0, 2.0), (20.0, 2.0)]
    assert choice.selection.parameter == "cache_weight, cache_sharpness"
    assert choice.selection.accuracy == [0, 100, 100, 0, 100, 100]
    weight, sharpness = choice.value.values()
    want = [[13.5, weight * (10 + sharpness)], [weight * (20 + sharpness), 50.0]]
    assert choice.held_out.logits.tolist() == want


@pytest.mark.parametrize(("pictures", "least"), [(100, 3000), (4000, 3001), (16_000, 500)])
def test_how_many_are_held_out(pictures, least):
    assert enough(pictures, 1000, 109) >= least
    assert enough(10**9, 10**9, 1) == HELD_OUT_ENOUGH


def test_keys_are_the_mean_of_unit_views():
    features = torch.tensor([[[3.0, 0.0]], [[0.0, 0.5]]])
    torch.testing.assert_close(unit_keys(features), torch.full((1, 2), 0.5**0.5))


def test_values_of_an_even_folder_are_one_hot():
    labels = torch.tensor([0, 2, 1, 1, 0, 2])
    assert torch.equal(balanced(labels, 3, 2.0), torch.nn.functional.one_hot(labels, 3).float())


@pytest.mark.parametrize("shots", [1.0, 2.5])
def test_all_classes_of_the_cache_sum_alike_and_absent_ones_say_nothing(shots):
    labels = torch.tensor([0, 0, 0, 0, 2, 3, 3])  # neither 1 nor 4
    values = balanced(labels, 5, shots)
    present = [0, 2, 3]
    torch.testing.assert_close(values[:, present].sum(0), torch.full((3,), shots))
    assert ((values[:, present] != 0).sum(1) == 1).all()
    # Of whatever nearness: the mean of the others, so no more and no less than they on average.
    near = torch.rand(7, 6, generator=torch.Generator().manual_seed(0))
    scores = near.T @ values
    for absent in (1, 4):
        torch.testing.assert_close(scores[:, absent], scores[:, present].mean(1))


@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [0, 1, 3, 1, 1]])
def test_scores_are_the_product_with_the_values(labels):
    y = torch.tensor(labels)
    generator = torch.Generator().manual_seed(1)
    near = torch.rand(len(y), 3, generator=generator)
    amounts = torch.rand(len(y), 1, generator=generator)
    values = balanced(y, 4, 2.0) * amounts
    torch.testing.assert_close(scores_of(near, values), near.T @ values)
