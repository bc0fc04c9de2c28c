"""CLIP-Adapter's branches, ratios and recipes."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.errors import ClassifierError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import fit_task
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.methods.clip_adapter import FULL_PICTURES, STRENGTHS, CLIPAdapter
from clip_adapter.nn import normalize
from clip_adapter.training.folds import folds_of
from clip_adapter.training.recipes import CANDIDATES, ONE_SHOT_RATIO
from clip_adapter.training.selection import gathered, mean, score

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
    short = {"steps": 40} if recipe == "fast" else {}
    method = CLIPAdapter(branch=branch, recipe=recipe, **short, **ratios(branch, ratio))
    classifier = learn(method, task)
    zero = learn("zero-shot", task)
    truth = task.train.labels
    got = (classifier.logits(task.train).argmax(1) == truth).float().mean()
    assert got >= (zero.logits(task.train).argmax(1) == truth).float().mean()
    assert (classifier.head.image_map is None) == (
        branch == "text" or classifier.info["hyperparameters"].get("visual_ratio") == 0
    )


def test_ratio_zero_is_zero_shot_to_the_bit():
    task = make()
    zero = learn("zero-shot", task)
    for branch in ("visual", "text", "both"):
        same = learn(CLIPAdapter(branch=branch, **ratios(branch, 0.0)), task)
        assert torch.equal(same.logits(task.train), zero.logits(task.train))


def test_auto_changes_little_where_text_is_perfect_and_more_where_it_is_not():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(C).repeat_interleave(K)
    text = normalize(torch.randn(C, D, generator=generator))
    perfect = FewShotTask(FeatureSet(text[labels], labels, list("abcd")), text, 100.0)
    mild = round((C * K / FULL_PICTURES) ** (1 / 3) * 128)
    sure = learn(CLIPAdapter(), perfect)
    # Nothing is better than perfect, so the mild setting stays, and spoils nothing.
    (selection,) = sure.info["selection"]
    assert selection["chosen"] == {"visual_ratio": ONE_SHOT_RATIO, "steps": mild}
    assert selection["accuracy"] == [100] * len(selection["candidates"])
    assert (sure.logits(text).argmax(1) == torch.arange(C)).all()
    shifted = learn(CLIPAdapter(), make(shift=3.0))
    (selection,) = shifted.info["selection"]
    assert selection["parameter"] == "visual_ratio, steps"
    pairs = [(c["visual_ratio"], c["steps"]) for c in selection["candidates"]]
    tried = [(0.0, 128), *((ratio, round(128 * share)) for share, ratio in STRENGTHS)]
    assert pairs == [(ONE_SHOT_RATIO, mild), *tried]
    assert len(selection["accuracy"]) == len(selection["loss"]) == len(pairs)
    hyperparameters = shifted.info["hyperparameters"]
    assert (hyperparameters["visual_ratio"], hyperparameters["steps"]) == tuple(
        selection["chosen"].values()
    )
    assert hyperparameters["visual_ratio"] * hyperparameters["steps"] > 4 * ONE_SHOT_RATIO * mild
    assert selection["loss"][pairs.index(tuple(selection["chosen"].values()))] == min(
        selection["loss"]
    )


def test_auto_finds_zero_where_every_training_does_harm():
    """A quarter of the labels is wrong and the rate is wild: only zero-shot is left unharmed."""
    generator = torch.Generator().manual_seed(0)
    right = torch.arange(C).repeat_interleave(20)
    text = normalize(torch.randn(C, D, generator=generator))
    x = text[right] + 0.3 * torch.randn(len(right), D, generator=generator) / D**0.5
    wrong = right.clone()
    some = torch.randperm(len(right), generator=generator)[: len(right) // 4]
    wrong[some] = (right[some] + 1 + torch.randint(3, (len(some),), generator=generator)) % C
    classifier = learn(
        CLIPAdapter(lr=0.3), FewShotTask(FeatureSet(x, wrong, list("abcd")), text, 20.0)
    )
    assert classifier.info["hyperparameters"]["visual_ratio"] == 0.0
    assert torch.equal(classifier.logits(x), classifier.zero_shot_logits(x))


@pytest.mark.parametrize("name", ["clip-adapter", "clip-adapter-cache"])
def test_what_is_tried_does_not_depend_on_classes_without_pictures(name):
    """Folds that leave classes without pictures take the place of a rule."""
    whole = make(shift=3.0)
    kept = torch.nonzero(whole.train.labels != 2).flatten()
    thin = dataclasses.replace(whole, train=whole.train.subset(kept))
    options = {"branch": "both", "steps": 5} if name == "clip-adapter" else {}

    def tried(task):
        fitted = make_method(name, options).fit(task)
        candidates = [c for selection in fitted.selection for c in selection["candidates"]]
        y = task.train.labels
        asked = {
            label
            for fold in folds_of(task.train, task.seed)
            for label in y[fold.held_out].tolist()
            if label not in y[fold.fit].tolist()
        }
        assert fitted.held_out.logits.shape[1] == C
        ratios = {c["visual_ratio"] if isinstance(c, dict) else c for c in candidates}
        return ratios, bool(asked)

    assert tried(whole) == (set(CANDIDATES), False)
    assert tried(thin) == (set(CANDIDATES), True)


def test_the_steps_that_are_given_are_not_chosen():
    (selection,) = learn(CLIPAdapter(steps=20), make()).info["selection"]
    assert selection["parameter"] == "visual_ratio"
    assert selection["candidates"] == list(CANDIDATES)
    (selection,) = learn(CLIPAdapter(recipe="official", epochs=2), make()).info["selection"]
    assert selection["candidates"] == list(CANDIDATES)
    fixed = learn(CLIPAdapter(visual_ratio=0.4), make())
    assert fixed.info["selection"] == []
    assert fixed.info["hyperparameters"]["steps"] == 128


def test_the_second_branch_is_chosen_at_the_steps_of_the_first():
    classifier = learn(CLIPAdapter(branch="both"), make(shift=3.0))
    first, second = classifier.info["selection"]
    assert (first["parameter"], second["parameter"]) == ("visual_ratio, steps", "text_ratio")
    assert second["candidates"] == list(CANDIDATES)
    hyperparameters = classifier.info["hyperparameters"]
    assert hyperparameters["steps"] == first["chosen"]["steps"]
    assert hyperparameters["visual_ratio"] == first["chosen"]["visual_ratio"]
    assert hyperparameters["text_ratio"] == second["chosen"]


def test_one_shot_takes_the_documented_ratio_and_few_steps():
    classifier = learn(CLIPAdapter(branch="both"), make(per_class=1))
    chosen = classifier.info["hyperparameters"]
    assert (chosen["visual_ratio"], chosen["text_ratio"]) == (ONE_SHOT_RATIO, ONE_SHOT_RATIO)
    assert chosen["steps"] == round((C / FULL_PICTURES) ** (1 / 3) * 128)
    assert "could be held out" in classifier.info["selection"][0]["rule"]
    assert "held_out" not in classifier.info


def test_official_recipe_with_the_chosen_ratio():
    classifier = learn(CLIPAdapter(recipe="official", epochs=5), make())
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
    whole = learn(CLIPAdapter(steps=5), make())
    monkeypatch.setattr("clip_adapter.training.recipes.MAX_SCORES", 1)
    parts = learn(CLIPAdapter(steps=5), make())
    a, b = whole.info["selection"][0], parts.info["selection"][0]
    assert a["pictures"] == b["pictures"]
    assert a["accuracy"][0] == b["accuracy"][0]


def test_views_take_part_in_training():
    task = make()
    views = torch.stack([task.train.plain_view, task.train.plain_view + 0.1])
    several = dataclasses.replace(
        task, train=FeatureSet(views, task.train.labels, task.class_names)
    )
    method = CLIPAdapter(visual_ratio=0.4)
    assert not torch.equal(
        learn(method, several).logits(task.train), learn(method, task).logits(task.train)
    )


@pytest.mark.parametrize(("pictures", "steps"), [(8, 128), (4096, 128), (16_000, 500)])
def test_large_sets_get_their_epochs(pictures, steps):
    labels = torch.arange(pictures) % 2
    task = FewShotTask(FeatureSet(torch.randn(pictures, 4), labels, ["a", "b"]), torch.eye(4)[:2])
    assert CLIPAdapter()._schedule(task).steps == steps


@pytest.mark.parametrize(("shots", "rate"), [(1, 1.5e-3 / 4), (2, 1.5e-3 / 2), (6, 1.5e-3)])
def test_the_rate_grows_with_the_shots(shots, rate):
    assert CLIPAdapter()._schedule(make(per_class=shots)).lr == pytest.approx(rate)


def test_trainings_that_diverge_are_not_chosen_and_not_saved():
    wild = CLIPAdapter(lr=1e30)
    assert learn(wild, make()).info["hyperparameters"]["visual_ratio"] == 0.0
    with pytest.raises(ClassifierError, match="diverged"):
        learn(CLIPAdapter(lr=1e30, visual_ratio=0.4), make())


def test_the_curve_tells_true_zero_shot_whatever_the_other_branch_does():
    task = make(shift=3.0)
    rows, weight = gathered(folds_of(task.train, task.seed))
    logits = learn("zero-shot", task).logits(task.train)[rows]
    hits, losses = score(logits, task.train.labels[rows], weight)
    method = CLIPAdapter(branch="both", visual_ratio="auto", text_ratio="learnable", steps=128)
    info = fit_task(method, task, {}).info
    (selection,) = info["selection"]
    assert selection["pictures"] == len(task.train) == len(rows.unique())  # all are held out once
    assert info["held_out"]["zero_shot_accuracy"] == pytest.approx(100 * mean(hits, weight))
    none = selection["candidates"].index(0)
    trained = abs(selection["loss"][none] - mean(losses, weight))
    assert trained > 0.02  # visual ratio 0, and a trained text branch


def test_a_reduction_that_leaves_nothing():
    with pytest.raises(UsageError, match="1 to 16"):
        learn(CLIPAdapter(reduction=17, visual_ratio=0.2), make())
