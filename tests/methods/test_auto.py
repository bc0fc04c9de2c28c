"""``auto``: what it takes, how it blends, and that it never sees more than the shots."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from learn import learn

from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import fit_task
from clip_adapter.heads import Head, Mixture
from clip_adapter.methods import FewShotTask, Method, base, get_method, make_method, register
from clip_adapter.methods.auto import PART, WITH_TEXT, WITHOUT_TEXT, _search
from clip_adapter.nn import normalize
from clip_adapter.task import Fitted
from clip_adapter.training.folds import Fold, folds_of
from clip_adapter.training.selection import DOUBT, gathered, score

C, D = 4, 16


def make(shots=6, noise=1.0, text_noise=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(C, D, generator=generator))
    labels = torch.arange(C).repeat_interleave(shots)
    x = centres[labels] + noise * torch.randn(len(labels), D, generator=generator) / D**0.5
    text = normalize(centres + text_noise * torch.randn(C, D, generator=generator) / D**0.5)
    return FewShotTask(FeatureSet(10 * x, labels, list("abcd")), text, 30.0)


def members(classifier):
    return classifier.info["hyperparameters"]["members"]


@pytest.mark.parametrize("shots", [1, 6])
def test_the_blend_is_the_weighted_sum_of_its_members(shots):
    task = make(shots)
    auto = learn("auto", task, {"among": "zero-shot,wise-ft,gda"})
    total = sum(
        member["weight"] * learn(name, task).logits(task.train)
        for name, member in members(auto).items()
    )
    torch.testing.assert_close(auto.logits(task.train), total, rtol=1e-4, atol=1e-4)
    assert isinstance(auto.head, Mixture)
    (selection,) = auto.info["selection"]
    assert selection["candidates"] == ["zero-shot", "wise-ft", "gda"]
    assert set(members(auto)) <= set(selection["candidates"])
    assert all(name in selection["chosen"] for name in members(auto))
    assert sum(m["share"] for m in members(auto).values()) == pytest.approx(1, abs=1e-3)


def test_the_held_out_logits_are_those_of_the_same_blend():
    task = make()
    auto = make_method("auto", {"among": "zero-shot,wise-ft,clap"}).fit(task)
    folds = folds_of(task.train, task.seed)
    rows, weight = gathered(folds)
    assert torch.equal(auto.held_out.rows, rows)
    assert torch.equal(auto.held_out.weight, weight)
    assert auto.selection[0]["pictures"] == len(rows.unique()) == len(task.train)
    blended = auto.hyperparameters["members"]
    parts = {n: torch.cat(list(make_method(n).held_out_logits(task, folds))) for n in blended}
    total = sum(m["weight"] * parts[name] for name, m in blended.items())
    torch.testing.assert_close(auto.held_out.logits, total, rtol=1e-4, atol=1e-3)


EVEN = torch.full((90,), 1 / 90, dtype=torch.float64)
LABELS = torch.arange(3).repeat(30)


def search(logits, mild, target=LABELS, weight=EVEN):
    rows = torch.arange(len(target))
    shares, selection, held_out = _search(logits, mild, target, [Fold(rows, rows, weight)])
    assert sum(shares.values()) == pytest.approx(1)
    want = sum(share * logits[name] for name, share in shares.items())
    torch.testing.assert_close(held_out.logits, want)
    return shares, selection


def noise(seed, count=90):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def test_it_moves_to_a_far_better_candidate_and_never_to_a_useless_one():
    right = 5.0 * F.one_hot(LABELS, 3) + noise(0)
    logits = {"mild": F.one_hot(LABELS, 3) + noise(1), "good": right, "bad": noise(2)}
    shares, selection = search(logits, {"mild": 1.0})
    assert set(shares) == {"mild", "good"}
    assert shares["good"] > 0.4
    assert "more of good" in selection.rule
    assert selection.accuracy[1] > selection.accuracy[2] + 30
    assert selection.loss[1] < selection.loss[0] < selection.loss[2]


def test_it_stays_in_doubt():
    """What is better on a few pictures, but not beyond their standard error, moves nothing."""
    few = LABELS[::9]
    weight = torch.full((10,), 0.1, dtype=torch.float64)
    doubted = moved = 0
    for seed in range(60):
        start = 1.5 * F.one_hot(few, 3) + noise(seed, 10)
        other = start + 0.3 * F.one_hot(few, 3) + noise(100 + seed, 10)
        _, before = score(start, few, weight)
        _, after = score((start + PART * other) / (1 + PART), few, weight)
        mild = {"zero-shot": 1.0}
        logits = {"zero-shot": start, "other": other}
        shares, selection = search(logits, mild, few, weight)
        d = (after - before).numpy()
        if d.mean() + DOUBT * d.std(ddof=1) / 10**0.5 >= 0:
            assert shares == mild
            assert "beyond doubt" in selection.rule
            assert "more of" not in selection.rule
            doubted += d.mean() < 0
        else:
            assert shares["other"] > 0
            moved += 1
    assert doubted > 2
    assert moved > 2


def test_members_are_added_a_part_at_a_time():
    logits = {"start": noise(5), "good": 4.0 * F.one_hot(LABELS, 3) + noise(6)}
    shares, _ = search(logits, {"start": 1.0})
    steps = shares["good"] / (1 - shares["good"]) / PART
    assert steps == pytest.approx(round(steps))
    assert steps >= 1


def test_a_frequent_class_does_not_decide():
    """Classes count alike: what is right on the frequent one alone is not moved to."""
    target = torch.tensor([0] * 60 + [1] * 6 + [2] * 6)
    weight = torch.tensor([1 / 180] * 60 + [1 / 18] * 12, dtype=torch.float64)
    fair = 2.0 * F.one_hot(target, 3) + noise(7, 72)
    frequent = torch.tensor([[3.0, 0.0, 0.0]]).repeat(72, 1)
    shares, _ = search({"fair": fair, "frequent": frequent}, {"fair": 1.0}, target, weight)
    assert shares == {"fair": 1.0}


def test_one_shot_is_the_mild_blend():
    task = make(shots=1)
    auto = learn("auto", task)
    wanted = {n: s for n, s in WITH_TEXT.items() if s}
    assert {n: m["share"] for n, m in members(auto).items()} == wanted
    (selection,) = auto.info["selection"]
    assert "a fixed mild blend that keeps near to CLIP" in selection["rule"]
    assert "held_out" not in auto.info
    assert selection["accuracy"] == []
    blind = learn("auto", dataclasses.replace(task, text_weights=None))
    assert {n: m["share"] for n, m in members(blind).items()} == WITHOUT_TEXT
    assert "CLIP" not in blind.info["selection"][0]["rule"]


def test_the_mild_shares_are_of_known_methods_and_sum_to_one():
    for start in (WITH_TEXT, WITHOUT_TEXT):
        assert sum(start.values()) == pytest.approx(1)
        assert all(get_method(name).reads == "features" for name in start)
    assert not any(get_method(name).needs_text for name in WITHOUT_TEXT)


@pytest.mark.parametrize("shots", [1, 5])
def test_the_members_are_equally_loud(shots):
    task = make(shots)
    auto = learn("auto", task, {"among": "zero-shot,gda,clap"})
    folds = folds_of(task.train, task.seed)
    spreads = []
    for name, member in members(auto).items():
        method = make_method(name)
        fitted = method.fit(task)
        if not folds:
            logits = fitted.logits(task.train)
        elif fitted.held_out is not None:
            logits = fitted.held_out.logits
        else:
            logits = torch.cat(list(method.held_out_logits(task, folds)))
        spreads.append(member["weight"] / member["share"] * logits.std(1).mean().item())
    assert spreads == pytest.approx([spreads[0]] * len(spreads), rel=1e-3)


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

        def fit(self, task):
            return Fitted(Head(task.require_text(self.name), logit_scale=30.0))

    task = make()
    auto = learn("auto", task, {"among": "same-text"})
    zero = learn("zero-shot", task)
    assert auto.predict(task.train) == zero.predict(task.train)
    assert auto.info["held_out"]["pictures"] == len(task.train)  # fitted again on every fold


def test_a_candidate_that_cannot_be_fitted_is_left_out_and_told(monkeypatch, caplog):
    def refuse(self, task):
        raise UsageError("no hidden unit here.")

    monkeypatch.setattr(get_method("clap"), "fit", refuse)
    for shots in (1, 6):
        caplog.clear()
        task = make(shots)
        auto = learn("auto", task)
        assert "hidden unit" in auto.info["left_out"]["clap"]
        assert "auto goes on without clap: no hidden unit here." in caplog.text
        assert "clap" not in members(auto)
        assert torch.isfinite(auto.logits(task.train)).all()
        with pytest.raises(UsageError, match="hidden unit"):
            learn("auto", task, {"among": "clap,gda"})
    # The others keep their proportions.
    shares = {n: m["share"] for n, m in members(learn("auto", make(1))).items()}
    rest = sum(s for n, s in WITH_TEXT.items() if n != "clap")
    assert shares == {
        n: pytest.approx(s / rest, abs=1e-4) for n, s in WITH_TEXT.items() if s and n != "clap"
    }


def test_pictures_of_one_class_alone():
    task = make(shots=1)
    one = dataclasses.replace(task, train=task.train.subset([2]))
    assert torch.isfinite(learn("auto", one).logits(task.train)).all()


@pytest.mark.parametrize("shots", [1, 6])
def test_pictures_of_one_class_without_text_are_refused(shots):
    task = make(shots=shots)
    alone = torch.nonzero(task.train.labels == 2).flatten()
    one = dataclasses.replace(task, train=task.train.subset(alone), text_weights=None)
    with pytest.raises(DataError, match=r"auto needs pictures of two classes.*'c'"):
        learn("auto", one)


CLASSES, WIDTH = 12, 32
FOLDERS = {
    "even": [4] * CLASSES,
    "8-to-1": [8] * 6 + [1] * 6,
    "three-more": [3] * 3 + [1] * 9,
    "one-of-many": [8] + [1] * 11,
    "half-absent": [4] * 6 + [0] * 6,
    "wrong-25": [4] * CLASSES,
}


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_takes_it_far_below_zero_shot(folder, seed):
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(CLASSES, WIDTH, generator=generator))
    apart = torch.randn(CLASSES, WIDTH, generator=generator) / WIDTH**0.5
    text = normalize(centres + 1.3 * apart)

    def draw(counts):
        labels = torch.arange(CLASSES).repeat_interleave(torch.tensor(counts))
        x = centres[labels] + 1.3 * torch.randn(len(labels), WIDTH, generator=generator) / 32**0.5
        return FeatureSet(10 * x, labels, [f"class {i}" for i in range(CLASSES)])

    train, test = draw(FOLDERS[folder]), draw([40] * CLASSES)
    if folder == "wrong-25":
        some = torch.randperm(len(train), generator=generator)[: len(train) // 4]
        others = torch.randint(1, CLASSES, (len(some),), generator=generator)
        train.labels[some] = (train.labels[some] + others) % CLASSES
    classifier = fit_task(make_method("auto"), FewShotTask(train, text, 30.0, seed=seed), {})
    right = (classifier.logits(test).argmax(1) == test.labels).double().mean().item()
    zero = (classifier.zero_shot_logits(test).argmax(1) == test.labels).double().mean().item()
    assert 0.5 < zero < 0.9
    # 480 test pictures: two points are one standard error.
    assert right > zero - 0.02
    if folder == "even":
        assert right > zero
