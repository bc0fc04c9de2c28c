"""CLIP-Adapter's branches, ratios and recipes."""

import dataclasses

import pytest
import torch

from clip_adapter.api import fit_task
from clip_adapter.errors import ClassifierError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.methods.clip_adapter import CLIPAdapter
from clip_adapter.nn import normalize
from clip_adapter.training.recipes import CANDIDATES, ONE_SHOT_RATIO

C, D, K = 4, 16, 6


def make(shift=0.9, seed=0, per_class=K):
    """A task whose text weights are ``shift`` away from the pictures."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(C, D, generator=generator))
    text = normalize(centres + shift * torch.randn(C, D, generator=generator) / D**0.5)
    labels = torch.arange(C).repeat_interleave(per_class)
    x = centres[labels] + 0.6 * torch.randn(len(labels), D, generator=generator) / D**0.5
    return FewShotTask(FeatureSet(x, labels, list("abcd")), text, 20.0)


def ratios(branch, ratio):
    return {f"{b}_ratio": ratio for b in ("visual", "text") if branch in (b, "both")}


@pytest.mark.parametrize(
    ("branch", "ratio", "recipe"),
    [
        (branch, ratio, recipe)
        for branch in ("visual", "text", "both")
        for ratio in ("auto", "learnable", "hypernetwork", 0.4)
        for recipe in ("fast", "official")
        if (ratio, recipe) != ("auto", "official")  # fitted once, below
    ],
)
def test_every_combination_fits_the_shots(branch, ratio, recipe):
    task = make()
    method = CLIPAdapter(branch=branch, recipe=recipe, **ratios(branch, ratio))
    classifier = method.fit(task)
    zero = make_method("zero-shot").fit(task)
    truth = task.train.labels
    got = (classifier.logits(task.train).argmax(1) == truth).float().mean()
    assert got >= (zero.logits(task.train).argmax(1) == truth).float().mean()
    assert (classifier.head.image_map is None) == (
        branch == "text" or classifier.info["hyperparameters"].get("visual_ratio") == 0
    )


def test_ratio_zero_is_zero_shot_to_the_bit():
    task = make()
    zero = make_method("zero-shot").fit(task)
    for branch in ("visual", "text", "both"):
        same = CLIPAdapter(branch=branch, **ratios(branch, 0.0)).fit(task)
        assert torch.equal(same.logits(task.train), zero.logits(task.train))


def test_auto_finds_zero_where_text_is_perfect_and_more_where_it_is_not():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(C).repeat_interleave(K)
    text = normalize(torch.randn(C, D, generator=generator))
    perfect = FewShotTask(FeatureSet(text[labels], labels, list("abcd")), text, 100.0)
    assert CLIPAdapter().fit(perfect).info["hyperparameters"]["visual_ratio"] == 0.0
    shifted = CLIPAdapter().fit(make(shift=3.0))
    assert shifted.info["hyperparameters"]["visual_ratio"] > 0
    (curve,) = shifted.info["selection"]
    assert curve["candidates"] == list(CANDIDATES)
    assert len(curve["accuracy"]) == len(curve["loss"]) == len(CANDIDATES)


@pytest.mark.parametrize("name", ["clip-adapter", "clip-adapter-cache"])
def test_no_high_ratio_is_tried_where_a_class_has_no_picture(name):
    whole = make(shift=3.0)
    kept = torch.nonzero(whole.train.labels != 2).flatten()
    thin = dataclasses.replace(whole, train=whole.train.subset(kept))
    options = {"branch": "both"} if name == "clip-adapter" else {}

    def tried(task):
        curves = make_method(name, options).fit(task).info["selection"]
        rules = {"1 of 4 classes have no picture" in curve["rule"] for curve in curves}
        found = [c for curve in curves for c in curve["candidates"]]
        return {c["visual_ratio"] if isinstance(c, dict) else c for c in found}, rules

    assert tried(whole) == ({0.0, 0.1, 0.2, 0.4, 0.6, 0.8}, {False})
    assert tried(thin) == ({0.0, 0.1, 0.2}, {True})
    given = {"visual_ratio": 0.8}
    (*_, curve) = make_method("clip-adapter-cache", given).fit(thin).info["selection"]
    assert "no ratio" not in curve["rule"]


def test_one_shot_takes_the_documented_ratio():
    classifier = CLIPAdapter(branch="both").fit(make(per_class=1))
    chosen = classifier.info["hyperparameters"]
    assert (chosen["visual_ratio"], chosen["text_ratio"]) == (ONE_SHOT_RATIO, ONE_SHOT_RATIO)
    assert "one picture per class" in classifier.info["selection"][0]["rule"]


def test_official_recipe_with_the_chosen_ratio():
    classifier = CLIPAdapter(recipe="official", epochs=5).fit(make())
    assert classifier.info["hyperparameters"]["optimizer"] == "sgd"
    assert classifier.info["hyperparameters"]["epochs"] == 5


def test_options_are_read_and_checked():
    method = make_method("clip-adapter", {"visual_ratio": "0.25", "reduction": "8", "lr": "1e-2"})
    assert (method.visual_ratio, method.reduction, method.lr) == (0.25, 8, 0.01)
    for bad in (
        {"visual_ratio": "1.5"},
        {"visual_ratio": "nan"},
        {"text_ratio": "sometimes"},
        {"reduction": "0"},
        {"reduction": "2.5"},
        {"branch": "audio"},
        {"epochs": 3},
        {"recipe": "official", "steps": 3},
        {"lr": "-1"},
        {"text_ratio": 0.5},
        {"branch": "text", "visual_ratio": 0.5},
    ):
        with pytest.raises(UsageError):
            make_method("clip-adapter", bad)


def test_more_runs_than_fit_one_pass_give_the_same_curve(monkeypatch):
    whole = CLIPAdapter(steps=20).fit(make())
    monkeypatch.setattr("clip_adapter.methods.clip_adapter.MAX_SCORES", 1)
    parts = CLIPAdapter(steps=20).fit(make())
    a, b = whole.info["selection"][0], parts.info["selection"][0]
    assert a["pictures"] == b["pictures"]
    assert a["accuracy"][0] == b["accuracy"][0]


def test_views_take_part_in_training():
    task = make()
    views = torch.stack([task.train.first, task.train.first + 0.1])
    several = dataclasses.replace(
        task, train=FeatureSet(views, task.train.labels, task.class_names)
    )
    method = CLIPAdapter(visual_ratio=0.4)
    assert not torch.equal(
        method.fit(several).logits(task.train), method.fit(task).logits(task.train)
    )


@pytest.mark.parametrize(("pictures", "steps"), [(8, 128), (4096, 128), (16_000, 500)])
def test_large_sets_get_their_epochs(pictures, steps):
    labels = torch.arange(pictures) % 2
    task = FewShotTask(FeatureSet(torch.randn(pictures, 4), labels, ["a", "b"]), torch.eye(4)[:2])
    assert CLIPAdapter()._recipe(task).steps == steps


@pytest.mark.parametrize(("shots", "rate"), [(1, 1.5e-3 / 4), (2, 1.5e-3 / 2), (6, 1.5e-3)])
def test_the_rate_grows_with_the_shots(shots, rate):
    assert CLIPAdapter()._recipe(make(per_class=shots)).lr == pytest.approx(rate)


def test_trainings_that_diverge_are_not_chosen_and_not_saved():
    wild = CLIPAdapter(lr=1e30)
    assert wild.fit(make()).info["hyperparameters"]["visual_ratio"] == 0.0
    with pytest.raises(ClassifierError, match="diverged"):
        CLIPAdapter(lr=1e30, visual_ratio=0.4).fit(make())


def test_the_curve_tells_true_zero_shot_whatever_the_other_branch_does():
    task = make(shift=3.0)
    logits = make_method("zero-shot").fit(task).logits(task.train)
    zero = logits.argmax(1) == task.train.labels
    loss = torch.nn.functional.cross_entropy(logits, task.train.labels).item()
    method = CLIPAdapter(branch="both", visual_ratio="auto", text_ratio="learnable")
    info = fit_task(method, task, {}).info
    (curve,) = info["selection"]
    assert curve["pictures"] == len(task.train)  # all are held out once
    assert info["held_out"]["zero_shot_accuracy"] == pytest.approx(
        100 * zero.double().mean().item()
    )
    assert abs(curve["loss"][0] - loss) > 0.1  # visual ratio 0, and a trained text branch


def test_a_reduction_that_leaves_nothing():
    with pytest.raises(UsageError, match="1 to 16"):
        CLIPAdapter(reduction=17, visual_ratio=0.2).fit(make())
