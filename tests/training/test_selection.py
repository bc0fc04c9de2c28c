"""Cross-validation on the shots: how candidates are scored, and when the reference is left."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.task import FewShotTask
from clip_adapter.training.folds import Fold, stratified_folds
from clip_adapter.training.selection import (
    DOUBT,
    TEMPERATURES,
    WRONG,
    bounded,
    cautious,
    choose,
    cross_validate,
    gathered,
    score,
    temperature,
)

C = 4


def even(count):
    return torch.full((count,), 1 / count, dtype=torch.float64)


def noisy(labels, strength, seed=0, classes=C):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), classes, generator=generator)
    return strength * F.one_hot(labels, classes) + noise


def run(table, labels, reference=0, weight=None):
    """``table``: the logits (n, C) of every candidate, on one fold that holds out everything."""
    rows = torch.arange(len(labels))
    folds, scores = [Fold(rows, rows, weight)], lambda jobs: (table[c] for _, c in jobs)
    choice = cross_validate("ratio", list(table), folds, labels, scores, reference)
    assert torch.equal(choice.held_out.logits, table[choice.value])
    assert torch.equal(choice.held_out.rows, rows)
    return choice.selection


def on_folds(table, y, folds, reference=0):
    def scores(jobs):
        return (table[c][f.held_out] for f, c in jobs)

    return cross_validate("which", list(table), folds, y, scores, reference).selection


def test_a_clearly_better_candidate_is_taken_and_the_curve_tells_of_all():
    y = torch.arange(C).repeat(20)
    selection = run({0.0: noisy(y, 1.0), 0.2: noisy(y, 5.0), 0.4: noisy(y, 0.0)}, y)
    assert selection.chosen == 0.2
    assert selection.pictures == 80
    assert selection.accuracy[1] > selection.accuracy[0] > selection.accuracy[2]
    assert selection.loss[1] < selection.loss[0] < selection.loss[2] <= math.log(C) + 0.02
    assert "80 held-out pictures" in selection.rule


def test_the_rule_says_whether_the_reference_was_kept_and_why():
    y = torch.arange(C).repeat(20)
    left = run({0.0: noisy(y, 1.0), 0.2: noisy(y, 5.0)}, y)
    assert left.rule == (
        "on 80 held-out pictures, classes counting alike, its loss is lower than that of 0 beyond "
        "doubt"
    )
    lowest = run({0.0: noisy(y, 1.0), 0.2: noisy(y, 5.0)}, y, reference=1)
    assert lowest.rule == "lowest loss on 80 held-out pictures, classes counting alike"
    logits = noisy(y, 1.0)
    slightly = run({0.0: logits, 0.2: logits + 0.3 * noisy(y, 0.3, seed=4)}, y)
    assert slightly.chosen == 0.0
    assert slightly.loss[1] < slightly.loss[0]
    assert slightly.rule.startswith("kept: on 80 held-out pictures, ")
    assert "another has a lower loss, but not beyond doubt" in slightly.rule


def test_of_several_better_ones_the_surest_gain_is_taken():
    y = torch.arange(C).repeat(20)
    table = {0.0: noisy(y, 1.0), 0.1: noisy(y, 2.0), 0.2: noisy(y, 6.0), 0.3: noisy(y, 3.0)}
    assert run(table, y).chosen == 0.2
    assert run(table, y, reference=3).chosen == 0.2


def test_the_reference_is_scored_first_and_results_are_told_in_the_order_of_the_candidates():
    y = torch.arange(C).repeat(6)
    folds = stratified_folds(y, 0)
    strengths, jobs_seen = [1.0, 2.0, 4.0], []

    def evaluate(jobs):
        jobs_seen.extend(jobs)
        return (noisy(y, c)[fold.held_out] for fold, c in jobs)

    choice = cross_validate("strength", strengths, folds, y, evaluate, reference=1)
    selection, held = choice.selection, choice.held_out
    assert [c for _, c in jobs_seen] == [2.0] * 5 + [1.0] * 5 + [4.0] * 5
    assert all(a is b for (a, _), b in zip(jobs_seen, folds * 3, strict=True))
    rows, weight = gathered(folds)
    for strength, accuracy, loss in zip(strengths, selection.accuracy, selection.loss, strict=True):
        hits, losses = score(noisy(y, strength)[rows], y[rows], weight)
        assert accuracy == pytest.approx(100 * float((hits * weight).sum()))
        assert loss == pytest.approx(float((losses * weight).sum()))
    assert torch.equal(held.rows, rows)
    assert torch.equal(held.weight, weight)
    assert torch.equal(held.logits, noisy(y, selection.chosen)[rows])
    assert selection.pictures == len(y)


def test_a_picture_that_is_held_out_twice_is_one_picture():
    y = torch.arange(C).repeat_interleave(torch.tensor([8, 8, 1, 1]))
    folds = stratified_folds(y, 0)
    rows, weight = gathered(folds)
    assert len(rows.unique()) < len(rows)
    table = {1.0: noisy(y, 1.0), 2.0: noisy(y, 9.0)}

    def scores(jobs):
        return (table[c][f.held_out] for f, c in jobs)

    choice = cross_validate("a", [1.0, 2.0], folds, y, scores)
    selection, held = choice.selection, choice.held_out
    assert selection.pictures == len(rows.unique())
    assert len(held.rows) == len(held.weight) == len(held.logits) == len(rows)
    hits = (table[1.0].argmax(1) == y).double()[rows]
    assert selection.accuracy[0] == pytest.approx(100 * float((hits * weight).sum() / weight.sum()))
    assert torch.equal(held.logits, table[selection.chosen][rows])


@pytest.mark.parametrize("reference", [0, 1])
def test_a_candidate_that_always_answers_the_frequent_class_is_not_chosen(reference):
    y = torch.arange(C).repeat_interleave(torch.tensor([60, 3, 3, 3]))
    frequent = torch.zeros(len(y), C)
    frequent[:, 0] = 3.0
    honest = noisy(y, 3.5, seed=1)
    honest[:60:2] = -honest[:60:2]  # wrong on half of the frequent class
    table = {"honest": honest, "frequent": frequent}
    # By the picture it looks better in both respects.
    assert (frequent.argmax(1) == y).sum() > (honest.argmax(1) == y).sum() + 15
    assert F.cross_entropy(frequent, y) < F.cross_entropy(honest, y)
    folds = stratified_folds(y, 0, 10**9)
    assert on_folds(table, y, folds, reference).chosen == "honest"


def test_the_curve_is_the_mean_over_the_classes():
    y = torch.arange(C).repeat(7)
    logits = noisy(y, 1.5)
    selection = on_folds({"a": logits}, y, stratified_folds(y, 0))
    hits = (logits.argmax(1) == y).double()
    # Seven pictures are dealt into five parts; within a part a class counts once.
    rows, weight = gathered(stratified_folds(y, 0))
    assert float(weight.sum()) == pytest.approx(1)
    assert selection.accuracy == [pytest.approx(100 * float((hits[rows] * weight).sum()))]
    per_class = [float(weight[y[rows] == c].sum()) for c in range(C)]
    assert per_class == pytest.approx([1 / C] * C)


@pytest.mark.parametrize("power", range(-3, 4))
def test_scaled_logits_are_the_same_candidate(power):
    y = torch.arange(C).repeat(10)
    for seed in range(10):
        weak, strong = noisy(y, 1.0, seed), noisy(y, 4.0, seed + 100)
        plain = run({"weak": weak, "strong": strong}, y)
        assert plain.chosen == "strong"
        for table in (
            {"weak": weak, "strong": 2.0**power * strong},
            {"weak": 2.0**power * weak, "strong": strong},
        ):
            scaled = run(table, y)
            assert scaled.chosen == "strong"
            assert run(table, y, reference=1).chosen == "strong"
            assert scaled.accuracy == plain.accuracy
            assert scaled.loss == pytest.approx(plain.loss, abs=2e-2)


@given(st.integers(0, 60), st.sampled_from([0.2, 0.5, 1.0, 3.0, 10.0]))
def test_the_temperature_is_about_the_best_of_all(seed, loudness):
    y = torch.arange(C).repeat(10)
    logits = loudness * noisy(y, 2.0, seed)
    losses = [float(bounded(logits, y, t).mean()) for t in TEMPERATURES]
    factor = temperature(logits, y, even(len(y)))
    # Downhill may end in a dent of the bounded loss: it is never deep.
    assert float(bounded(logits, y, factor).mean()) <= min(losses) + 2e-2


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_wrong_label_costs_no_more_than_a_bound(classes):
    limit = math.log(classes / WRONG)
    y = torch.zeros(5, dtype=torch.long)
    logits = torch.zeros(5, classes)
    logits[:, 0] = torch.tensor([-1e6, -50.0, 0.0, 50.0, 1e6])
    loss = bounded(logits, y, 1.0)
    want = -np.log((1 - WRONG) * logits.double().softmax(1)[:, 0].numpy() + WRONG / classes)
    np.testing.assert_allclose(loss.numpy(), want, rtol=1e-5)
    assert float(loss.max()) == pytest.approx(limit)
    assert float(loss.min()) > 0


def test_one_wrong_label_does_not_condemn_a_sure_candidate():
    y = torch.arange(C).repeat(15)
    sure = 40.0 * F.one_hot(y, C).float()
    sure[0] = 40.0 * F.one_hot(torch.tensor(1), C)  # sure, and told to be wrong
    timid = 0.5 * F.one_hot(y, C) + torch.zeros(len(y), C)
    timid[:12] = 0.0
    assert F.cross_entropy(sure, y) > F.cross_entropy(torch.zeros_like(sure), y) / 3
    selection = run({"timid": timid + 0.3 * noisy(y, 0.0), "sure": sure}, y)
    assert selection.chosen == "sure"
    kind = -math.log(1 - WRONG + WRONG / C)
    assert selection.loss[1] <= (math.log(C / WRONG) + 59 * kind) / 60 + 0.05


def test_cautious_is_the_mean_and_the_standard_error():
    d, rows = np.random.default_rng(0).normal(size=30), torch.arange(30)
    want = d.mean() + DOUBT * d.std(ddof=1) / len(d) ** 0.5
    assert cautious(torch.tensor(d), even(30), rows) == pytest.approx(want)
    # Weights need not sum to 1.
    assert cautious(torch.tensor(d), 3 * even(30), rows.flip(0)) == pytest.approx(want)
    # What is held out again brings no new evidence.
    twice = torch.tensor([*d, *d])
    assert cautious(twice, even(60), rows.repeat(2)) == pytest.approx(want)
    assert cautious(twice, even(60), torch.arange(60)) < want


def test_a_picture_with_much_weight_leaves_more_doubt():
    d = torch.tensor(np.random.default_rng(1).normal(size=20) - 1)
    heavy = torch.tensor([0.5] + [0.5 / 19] * 19, dtype=torch.float64)
    share, rows = heavy.numpy(), torch.arange(20)
    centre = (d.numpy() * share).sum()
    spread = (share * (d.numpy() - centre) ** 2).sum()
    want = centre + DOUBT * (spread / (1 / (share**2).sum() - 1)) ** 0.5
    assert cautious(d, heavy, rows) == pytest.approx(want)
    assert cautious(d, heavy, rows) - centre > cautious(d, even(20), rows) - d.mean()


def test_the_reference_is_kept_in_doubt_and_left_beyond_it():
    y = torch.arange(C).repeat(10)
    base = noisy(y, 1.0, seed=3)
    generator = torch.Generator().manual_seed(5)
    changes, chosen = [], []
    for strength in (0.0, 0.05, 0.1, 0.3, 0.6, 1.0, 2.0):
        noise = torch.randn(len(y), C, generator=generator)
        other = base + strength * F.one_hot(y, C) + 0.7 * noise
        selection = run({"kept": base, "new": other}, y)
        weight = even(len(y))
        d = score(other, y, weight)[1] - score(base, y, weight)[1]
        d = d.numpy()
        changes.append(d.mean())
        chosen.append(selection.chosen)
        left = d.mean() + DOUBT * d.std(ddof=1) / len(d) ** 0.5 < 0
        assert (selection.chosen == "new") == left
    assert chosen[0] == "kept"
    assert chosen[-1] == "new"
    # Some were lower, and were not believed.
    assert any(c < 0 and name == "kept" for c, name in zip(changes, chosen, strict=True))


def test_equal_candidates_leave_the_reference():
    y = torch.arange(C).repeat(5)
    same = noisy(y, 2.0)
    assert run({0.0: same, 0.4: same.clone()}, y).chosen == 0.0
    assert run({0.0: same, 0.4: same.clone()}, y, reference=1).chosen == 0.4


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_never_win(value):
    y = torch.arange(C).repeat(5)
    poor, broken = noisy(y, -3.0), noisy(y, 9.0)
    broken[3, 1] = value
    assert run({"poor": poor, "broken": broken}, y).chosen == "poor"
    # They are left where they are the reference themselves.
    selection = run({"poor": poor, "broken": broken}, y, reference=1)
    assert selection.chosen == "poor"
    assert selection.loss[1] > math.log(C / WRONG) > selection.loss[0]


def shots(labels):
    names = [f"class {c}" for c in range(C)]
    return FewShotTask(FeatureSet(torch.ones(1, len(labels), 2), labels, names), None, seed=0)


def never(*_):
    raise AssertionError("asked")


def test_what_is_given_is_taken_and_nothing_evaluated():
    y = torch.arange(C).repeat(2)
    for value in (0.3, "learnable", {"a": 1}):
        choice = choose("ratio", value, [0.0, 1.0], one_shot=0.0, task=shots(y), evaluate=never)
        assert choice.value == value
        assert choice.record == []
        assert choice.held_out is None


def test_without_anything_to_hold_out_it_is_the_one_shot_value():
    choice = choose(
        "ratio",
        "auto",
        [0.0, 1.0],
        one_shot=0.2,
        task=shots(torch.arange(C)),
        evaluate=never,
    )
    assert choice.value == 0.2
    assert choice.held_out is None
    (record,) = choice.record
    assert record["candidates"] == [0.2, 0.0, 1.0]
    assert record["chosen"] == 0.2
    assert record["pictures"] == 0
    assert record["rule"] == "too few classes have two pictures, so that one could be held out: 0.2"


@pytest.mark.parametrize("among", [(1.0, 5.0), (5.0, 0.0, 1.0)])
def test_choose_compares_with_the_one_shot_value(among):
    y = torch.arange(C).repeat(10)

    def taken(strength_of):
        return choose(
            "strength",
            "auto",
            among,
            one_shot=0.0,
            task=shots(y),
            evaluate=lambda jobs: (noisy(y, strength_of(c))[f.held_out] for f, c in jobs),
        )

    choice = taken(lambda c: c)
    assert choice.value == choice.selection.chosen == 5.0
    assert sorted(choice.selection.candidates) == [0.0, 1.0, 5.0]
    assert len(choice.selection.loss) == 3
    assert choice.record[0]["parameter"] == "strength"
    assert torch.equal(choice.held_out.logits, noisy(y, 5.0)[choice.held_out.rows])
    # With no evidence at all the one-shot value stays, wherever it stands in the list.
    assert taken(lambda _: 1.0).value == 0.0


def test_logits_that_are_no_numbers_cost_more_than_any_that_are():
    y = torch.arange(C)
    wrong = score(1e6 * (1 - torch.eye(C)), y, even(C))[1]
    for broken in (math.nan, math.inf):
        logits = torch.eye(C)
        logits[0, 0] = broken
        assert float(score(logits, y, even(C))[1].min()) > float(wrong.max())
