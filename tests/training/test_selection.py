"""Cross-validation on the shots."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.training.selection import (
    MAX_FOLDS,
    Curve,
    Fold,
    cross_validate,
    folds_of,
    stratified_folds,
)


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


def plainly(labels, seed, enough):
    """The folds of pictures that all differ: (fit, held out) of each."""
    generator = torch.Generator().manual_seed(seed)
    members = [torch.nonzero(labels == c).flatten() for c in labels.unique()]
    count = min(MAX_FOLDS, max(len(m) for m in members))
    fold = torch.full((len(labels),), -1)
    for offset, rows in enumerate(members):
        if len(rows) > 1:
            order = torch.randperm(len(rows), generator=generator)
            fold[rows[order]] = (torch.arange(len(rows)) + offset) % count
    found, seen = [], 0
    for k in range(count if count > 1 else 0):
        held_out = torch.nonzero(fold == k).flatten().tolist()
        if held_out and seen < enough:
            found.append((torch.nonzero(fold != k).flatten().tolist(), held_out))
            seen += len(held_out)
    return found


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=60),
    st.integers(0, 5),
    st.sampled_from([3, 20, 10**9]),
    st.booleans(),
)
def test_without_duplicates_digests_change_nothing(labels, seed, enough, known):
    y = torch.tensor(labels)
    digests = [f"{i:02x}" for i in range(len(labels))] if known else [""] * len(labels)
    train = FeatureSet(torch.ones(len(labels), 2), y, list("abcdefg"), digests=digests)
    for folds in (stratified_folds(y, seed, enough), folds_of(train, seed, enough)):
        assert [(f.fit.tolist(), f.held_out.tolist()) for f in folds] == plainly(y, seed, enough)


# (label, content) of every picture; no content is drawn as often as a few
PICTURES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=50)


@given(PICTURES, st.integers(0, 5), st.booleans())
def test_copies_never_straddle_folds(pictures, seed, torn):
    # with ``torn``, copies lie under several labels too
    digests = [str(c) if torn else f"{y}-{c}" for y, c in pictures]
    labels = [y for y, _ in pictures]
    train = FeatureSet(
        torch.ones(len(labels), 2), torch.tensor(labels), list("abcde"), digests=digests
    )
    folds = folds_of(train, seed, enough=10**9)
    distinct = {y: {d for d, z in zip(digests, labels, strict=True) if z == y} for y in labels}
    held = []
    for fold in folds:
        inside = {digests[i] for i in fold.held_out.tolist()}
        assert inside.isdisjoint(digests[i] for i in fold.fit.tolist())
        assert {labels[i] for i in fold.fit.tolist()} == set(labels)
        assert sorted([*fold.fit.tolist(), *fold.held_out.tolist()]) == list(range(len(labels)))
        held += fold.held_out.tolist()
    # Held out once: all of classes with several pictures, but for copies under several labels.
    own = {
        i
        for i, (d, y) in enumerate(zip(digests, labels, strict=True))
        if len(distinct[y]) > 1 and sum(d in of for of in distinct.values()) == 1
    }
    assert sorted(held) == sorted(own)


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
