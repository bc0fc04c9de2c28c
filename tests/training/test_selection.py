"""Cross-validation on the shots."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.training.selection import Curve, Fold, cross_validate, stratified_folds


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(0, 5))
def test_folds_partition_and_keep_every_class_in_training(labels, seed):
    y = torch.tensor(labels)
    folds = stratified_folds(y, seed, enough=10**9)
    counts = torch.bincount(y)
    if counts.max() < 2:
        assert folds == []
        return
    held = torch.cat([f.held_out for f in folds])
    assert len(held.unique()) == len(held)
    # Every picture is held out once, but for those that are their class's only one.
    assert set(held.tolist()) == {i for i, c in enumerate(labels) if counts[c] > 1}
    for fold in folds:
        assert set(fold.fit.tolist()).isdisjoint(fold.held_out.tolist())
        assert len(fold.fit) + len(fold.held_out) == len(y)
        assert set(y[fold.fit].tolist()) == set(labels)


def test_enough_held_out_pictures_stop_the_folds():
    y = torch.arange(1000).repeat(4)
    assert len(stratified_folds(y, 0)) == 1
    assert len(stratified_folds(y, 0, enough=10**9)) == 4


def logits_of(hits, losses):
    """Logits (n, 2) of pictures of class 0 with these hits and about these losses."""
    right = torch.tensor(hits, dtype=torch.bool)
    loss = torch.tensor(losses, dtype=torch.float64)
    gap = torch.log(1 / torch.expm1(loss))  # loss = log(1 + exp(-gap))
    assert ((gap > 0) == right).all(), "a hit has a loss under log 2"
    return torch.stack([gap, torch.zeros_like(gap)], 1).float()


def run(table):
    """``table``: for each candidate, hits and losses on one fold of pictures of class 0."""
    count = len(next(iter(table.values()))[0])
    fold = Fold(torch.arange(count), torch.arange(count))
    curve = Curve("ratio", list(table))
    labels = torch.zeros(count, dtype=torch.long)
    held = cross_validate(
        curve, [fold], labels, lambda jobs: (logits_of(*table[c]) for _, c in jobs)
    )
    assert torch.equal(held.logits, logits_of(*table[curve.chosen]))
    assert torch.equal(held.rows, fold.held_out)
    return curve


def test_lowest_loss_wins_even_at_equal_accuracy():
    curve = run({0.0: ([1, 0, 1], [0.6, 1, 0.6]), 0.2: ([1, 0, 1], [0.5, 0.8, 0.5])})
    assert curve.chosen == 0.2
    assert curve.pictures == 3
    assert curve.accuracy[0] == curve.accuracy[1]


def test_a_candidate_that_loses_many_pictures_is_vetoed():
    good, bad = [1] * 20, [1] * 12 + [0] * 8
    curve = run({0.0: (good, [0.6] * 20), 0.6: (bad, [0.1] * 12 + [0.7] * 8)})
    assert curve.chosen == 0.0
    assert curve.loss[1] < curve.loss[0]


def test_zero_is_chosen_when_nothing_helps():
    assert run({0.0: ([1, 1], [0.1, 0.1]), 0.4: ([1, 1], [0.2, 0.2])}).chosen == 0.0
