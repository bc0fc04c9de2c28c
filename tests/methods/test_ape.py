"""APE and APE-T: what is chosen, what is kept, and what the options say."""

import pytest
import torch
from learn import learn

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.ape import APE, SHARES
from clip_adapter.methods.ape_t import APET
from clip_adapter.nn import normalize
from clip_adapter.task import RN50, VIT_B_16

C, D, NOISY = 5, 32, 16


def make(shots=4, scale=50.0, seed=0):
    """The second half of the channels says nothing of the class, alike in text and pictures."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(C, D, generator=generator))
    centres[:, NOISY:] = 0.4

    def draw(n):
        labels = torch.arange(C).repeat_interleave(n)
        noise = torch.randn(len(labels), D, generator=generator) / D**0.5
        return FeatureSet(10 * (centres[labels] + noise), labels, [str(i) for i in range(C)])

    text = centres + 1.5 * torch.randn(C, D, generator=generator) / D**0.5
    text[:, NOISY:] = 0.4
    return FewShotTask(draw(shots), normalize(text), scale), draw(60)


def right(classifier, features):
    return (classifier.logits(features).argmax(1) == features.labels).float().mean().item()


@pytest.mark.parametrize("method", [APE, APET])
def test_channels_that_are_alike_in_all_classes_are_left_out(method):
    task, _ = make()
    index = learn(method(1.0, 5.5, channels=NOISY / D), task).head.cache.channels
    assert index.tolist() == list(range(NOISY))


def test_fewer_channels_serve_better_there():
    task, others = make(scale=5.0)
    half, whole = (right(learn(APE(8.0, 5.5, channels=c), task), others) for c in (NOISY / D, 1.0))
    assert half > whole + 0.02


@pytest.mark.parametrize("method", [APE, APET])
def test_better_than_zero_shot(method):
    task, others = make()
    classifier = learn(method(), task)
    zero_shot = (classifier.zero_shot_logits(others).argmax(1) == others.labels).float().mean()
    assert right(classifier, others) > zero_shot.item() + 0.05


def test_what_ape_chose_is_recorded_and_used():
    task, _ = make()
    classifier = learn(APE(), task)
    selection = classifier.info["selection"][0]
    assert selection["parameter"] == "cache_weight, cache_sharpness, channels"
    assert [c["cache_weight"] for c in selection["candidates"]].count(0.0) == 1
    assert {c["channels"] for c in selection["candidates"]} == set(SHARES)
    assert classifier.info["held_out"]["pictures"] == len(task.train)
    cache, chosen = classifier.head.cache, selection["chosen"]
    assert len(cache.channels) == round(chosen["channels"] * D)
    assert cache.weight.item() == pytest.approx(chosen["cache_weight"])


def test_nought_for_the_misjudged_is_a_plain_cache():
    task, _ = make()
    plain = learn(APE(1.0, 5.5, channels=1.0, misjudged_weight=0.0), task).head.cache
    assert torch.equal(plain.values.sum(1), torch.ones(len(task.train)))
    weighted = learn(APE(1.0, 5.5, channels=1.0, misjudged_weight=2.0), task).head.cache
    assert weighted.values.sum(1).std() > 0


def test_ape_t_moves_text_and_shots_by_the_same_residual():
    task, _ = make()
    classifier = learn(APET(1.0, 5.5), task)
    cache = classifier.head.cache
    moved = classifier.head.weights - task.text_weights
    assert moved.abs().max() > 1e-4
    untouched = [i for i in range(D) if i not in cache.channels.tolist()]
    assert moved[:, untouched].abs().max() < 1e-7
    start = normalize(task.train.plain_view)[:, cache.channels]
    expected = start + moved[task.train.labels][:, cache.channels]
    torch.testing.assert_close(cache.keys.data, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", [APE, APET])
def test_one_shot_is_not_searched(method):
    task, _ = make(shots=1, scale=100.0)
    classifier = learn(method(), task)
    assert "held_out" not in classifier.info
    assert classifier.info["hyperparameters"]["cache_weight"] == 3.0


@pytest.mark.parametrize(
    ("shots", "classes", "rate"),
    [(4, 1000, 1e-4), (4, 40, 1e-3), (16, 60, 5e-4), (1, 40, 2.5e-4), (2, 40, 5e-4)],
)
def test_the_rate_of_ape_t_bounds_how_far_a_weight_moves(shots, classes, rate):
    labels = torch.arange(classes).repeat_interleave(shots)
    task = FewShotTask(
        FeatureSet(torch.ones(1, len(labels), 2), labels, [str(i) for i in range(classes)]), None
    )
    assert APET(recipe="official")._schedule(task).lr == pytest.approx(rate)
    fast = APET()._schedule(task)
    assert fast.lr * fast.steps <= 0.0301
    assert APET(recipe="official", lr=0.5)._schedule(task).lr == 0.5


def test_parameters():
    task, _ = make(shots=3)
    assert learn(APET(), task).info["trained_parameters"] == C * (round(0.9 * D) + 3)
    assert APET().parameters(RN50) == 1000 * (922 + 16)
    assert APET().parameters(VIT_B_16) == 1000 * (461 + 16)
    assert APE().parameters(RN50) == 0


def test_bad_options():
    for bad in (
        {"cache_weight": -1.0},
        {"channels": 0.0},
        {"channels": 1.5},
        {"similarity_weight": 2.0},
        {"misjudged_weight": -0.1},
    ):
        with pytest.raises(UsageError):
            APE(**bad)
    for bad in ({"lr": 0.0}, {"batch_size": 0}, {"epochs": 0}, {"channels": 0.0}):
        with pytest.raises(UsageError):
            APET(**bad)
