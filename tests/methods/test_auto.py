"""``auto``: what it takes, how it blends, and that it never sees more than the shots."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from clip_adapter.classifier import Classifier
from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.heads import Head, Mixture
from clip_adapter.methods import FewShotTask, Method, base, make_method, register
from clip_adapter.methods.auto import ONE_SHOT_WITH_TEXT, _choose
from clip_adapter.nn import normalize
from clip_adapter.training.selection import Curve, HeldOut

C, D = 4, 16


def make(shots=6, noise=1.0, text_noise=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(C, D, generator=generator))
    labels = torch.arange(C).repeat_interleave(shots)
    x = centres[labels] + noise * torch.randn(len(labels), D, generator=generator) / D**0.5
    text = normalize(centres + text_noise * torch.randn(C, D, generator=generator) / D**0.5)
    return FewShotTask(FeatureSet(10 * x, labels, list("abcd")), text, 30.0)


def held(logits):
    return HeldOut(logits, torch.arange(len(logits)))


def test_the_blend_is_the_weighted_sum_of_its_members():
    task = make()
    auto = make_method("auto", {"among": "zero-shot,clip-adapter,gda"}).fit(task)
    members = auto.info["hyperparameters"]["members"]
    total = sum(
        member["weight"] * make_method(name).fit(task).logits(task.train)
        for name, member in members.items()
    )
    torch.testing.assert_close(auto.logits(task.train), total, rtol=1e-4, atol=1e-4)
    assert isinstance(auto.head, Mixture)
    (curve,) = auto.info["selection"]
    assert curve["candidates"] == ["zero-shot", "clip-adapter", "gda"]
    assert set(members) <= set(curve["candidates"])
    assert all(name in curve["chosen"] for name in members)


def test_a_far_better_candidate_is_taken_and_a_useless_one_is_not():
    labels = torch.arange(3).repeat(30)
    generator = torch.Generator().manual_seed(0)
    right = 5.0 * F.one_hot(labels, 3) + torch.randn(90, 3, generator=generator)
    useless = torch.randn(90, 3, generator=generator)
    curve = Curve("members", [])
    weights, last = _choose(curve, {"good": held(right), "bad": held(useless)}, labels)
    assert list(weights) == ["good"]
    assert curve.accuracy[0] > curve.accuracy[1] + 30
    assert torch.equal(last.logits, weights["good"] * right)


def test_temperature_makes_losses_comparable():
    labels = torch.arange(3).repeat(30)
    generator = torch.Generator().manual_seed(0)
    right = 2.0 * F.one_hot(labels, 3) + torch.randn(90, 3, generator=generator)
    worse = right + torch.randn(90, 3, generator=generator)
    # Too loud, the better candidate has the higher loss.
    assert F.cross_entropy(20 * right, labels) > F.cross_entropy(worse, labels)
    curve = Curve("members", [])
    weights, _ = _choose(curve, {"loud": held(20 * right), "other": held(worse)}, labels)
    assert next(iter(weights)) == "loud"
    assert weights["loud"] < 0.2


def test_a_blend_that_loses_to_zero_shot_is_vetoed():
    """A candidate of low loss that is wrong more often than zero-shot is not taken."""
    labels = torch.zeros(40, dtype=torch.long)
    timid = torch.tensor([[0.01, 0.0]]).repeat(40, 1)  # always right, never sure
    bold = torch.tensor([[4.0, 0.0]] * 30 + [[-0.1, 0.0]] * 10)
    assert F.cross_entropy(bold, labels) < F.cross_entropy(32 * timid, labels)
    curve = Curve("members", [])
    weights, _ = _choose(curve, {"zero-shot": held(timid), "bold": held(bold)}, labels)
    assert list(weights) == ["zero-shot"]


def test_one_shot_is_a_fixed_blend():
    task = make(shots=1)
    auto = make_method("auto").fit(task)
    assert list(auto.info["hyperparameters"]["members"]) == list(ONE_SHOT_WITH_TEXT)
    assert "none to hold out" in auto.info["selection"][0]["rule"]
    assert auto.held_out is None


def test_the_members_spread_alike_at_one_shot():
    task = make(shots=1)
    auto = make_method("auto", {"among": "zero-shot,gda"}).fit(task)
    spreads = [
        member["weight"] * make_method(name).fit(task).logits(task.train).std(1).mean().item()
        for name, member in auto.info["hyperparameters"]["members"].items()
    ]
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-4)


@pytest.mark.parametrize("name", ["auto", "coop", "fine-tune", "no-such-method"])
def test_what_cannot_be_a_candidate(name):
    with pytest.raises(UsageError, match=name):
        make_method("auto", {"among": f"zero-shot,{name}"})


def test_a_third_partys_method_can_be_a_candidate(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @register
    @dataclasses.dataclass
    class Text(Method):
        """The text weights again, as a method without any selection."""

        name = "same-text"
        summary = "text"
        citation = "arXiv 0000.00000"
        trains = "nothing"

        def fit(self, task, progress=None):
            weights = task.text(self.name)
            info = {"hyperparameters": {}, "trained_parameters": 0}
            return Classifier(Head(weights, logit_scale=30.0), task.class_names, info=info)

    task = make()
    auto = make_method("auto", {"among": "same-text"}).fit(task)
    zero = make_method("zero-shot").fit(task)
    assert auto.predict(task.train) == zero.predict(task.train)
    assert len(auto.held_out.rows) == len(task.train)  # fitted again on every fold


def test_a_candidate_that_cannot_be_fitted_is_left_out_and_told():
    task = make()
    thin = FewShotTask(
        FeatureSet(task.train.first[:, :3], task.train.labels, task.class_names),
        task.classifier_weights[:, :3],
        30.0,
    )
    told = []
    thin.say = told.append
    auto = make_method("auto").fit(thin)  # three dimensions leave clip-adapter no hidden unit
    assert "hidden unit" in auto.info["left_out"]["clip-adapter"]
    assert any("clip-adapter" in line for line in told)
    assert torch.isfinite(auto.logits(thin.train)).all()
    with pytest.raises(UsageError, match="hidden unit"):
        make_method("auto", {"among": "clip-adapter,gda"}).fit(thin)


def test_pictures_of_one_class_alone():
    task = make(shots=1)
    one = dataclasses.replace(task, train=task.train.subset([2]))
    assert torch.isfinite(make_method("auto").fit(one).logits(task.train)).all()


@pytest.mark.parametrize("shots", [1, 6])
def test_pictures_of_one_class_without_text_leave_no_candidate(shots):
    task = make(shots=shots)
    alone = torch.nonzero(task.train.labels == 2).flatten()
    told = []
    one = dataclasses.replace(
        task, train=task.train.subset(alone), classifier_weights=None, say=told.append
    )
    with pytest.raises(DataError, match=r"two classes.*'c'"):
        make_method("auto").fit(one)
    assert any("goes on without" in line for line in told)
