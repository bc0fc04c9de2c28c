"""What is held out: even folders are dealt, uneven ones are made as uneven as the whole."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.training import folds as folds_module
from clip_adapter.training.folds import (
    MAX_FOLDS,
    MOST_OF_A_CLASS,
    folds_of,
    stratified_folds,
)

ALL = 10**9
SEEDS = st.integers(0, 5)
# Pictures of each class. A class of two that keeps one may stand for itself or for one of one.
NUMBERS = st.lists(st.sampled_from([0, 1, 3, 4, 5, 8, 12]), min_size=2, max_size=9)


def labels_of(numbers):
    return torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers))


def set_of(numbers, digests=()):
    y = labels_of(numbers)
    names = [f"class {i}" for i in range(len(numbers))]
    return FeatureSet(torch.ones(len(y), 2), y, names, digests=list(digests) or None)


def asked(folds, labels):
    """(fold, class, pictures of it that are trained on: 0, 1 or 2, weight) of all held out."""
    found = []
    for number, fold in enumerate(folds):
        left = Counter(labels[fold.fit].tolist())
        for label in labels[fold.held_out].unique().tolist():
            own = labels[fold.held_out] == label
            found.append((number, label, min(left[label], 2), float(fold.weight[own].sum())))
            each = fold.weight[own]
            assert bool((each == each[0]).all()), "pictures of a class count alike"
    return found


@given(st.integers(1, 7), st.integers(1, 40), SEEDS, st.booleans())
def test_an_even_folder_is_dealt(classes, each, seed, text):
    train = set_of([each] * classes)
    folds = folds_of(train, seed, ALL, text=text)
    if each == 1 or classes == 1:
        assert folds == []
        return
    assert len(folds) == min(each, MAX_FOLDS)
    held = torch.cat([f.held_out for f in folds])
    assert sorted(held.tolist()) == list(range(classes * each))  # all of them once
    for fold in folds:
        assert sorted([*fold.fit.tolist(), *fold.held_out.tolist()]) == list(range(len(train)))
        assert len(train.labels[fold.fit].unique()) == classes
    total = torch.zeros(classes, dtype=torch.float64)
    for fold in folds:
        total.index_add_(0, train.labels[fold.held_out], fold.weight)
    torch.testing.assert_close(total, torch.full_like(total, 1 / classes))


def plainly(labels, seed, enough):
    """The folds of an even folder without copies: (fit, held out) of each."""
    generator = torch.Generator().manual_seed(seed)
    members = [torch.nonzero(labels == c).flatten() for c in labels.unique()]
    if len(members) < 2:
        return []
    count = min(MAX_FOLDS, max(len(m) for m in members))
    fold = torch.full((len(labels),), -1)
    for offset, rows in enumerate(members):
        order = torch.randperm(len(rows), generator=generator)
        fold[rows[order]] = (torch.arange(len(rows)) + offset) % count
    found, seen = [], 0
    for k in range(count if count > 1 else 0):
        held_out = torch.nonzero(fold == k).flatten().tolist()
        if held_out and seen < enough:
            found.append((torch.nonzero(fold != k).flatten().tolist(), held_out))
            seen += len(held_out)
    return found


@given(st.integers(1, 7), st.integers(1, 12), SEEDS, st.sampled_from([3, 20, ALL]), st.booleans())
def test_an_even_folder_is_dealt_as_by_hand(classes, each, seed, enough, known):
    y = labels_of([each] * classes)
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    digests = [f"{i:02x}" for i in range(len(y))] if known else [""] * len(y)
    names = [str(i) for i in range(classes)]
    train = FeatureSet(torch.ones(len(y), 2), y, names, digests=digests)
    for folds in (stratified_folds(y, seed, enough), folds_of(train, seed, enough)):
        assert [(f.fit.tolist(), f.held_out.tolist()) for f in folds] == plainly(y, seed, enough)


@given(NUMBERS, SEEDS, st.booleans())
def test_an_uneven_folder_is_held_out_by_what_it_is(numbers, seed, text):
    train = set_of(numbers)
    present = [n for n in numbers if n]
    if not present:
        return
    folds = folds_of(train, seed, ALL, text=text)
    if sum(n > 1 for n in present) < 2:
        assert folds == []
        return
    # Two classes are left to train on in all folds, however few there are.
    assert 1 <= len(folds) <= MAX_FOLDS
    for fold in folds:
        fit, held = fold.fit.tolist(), fold.held_out.tolist()
        assert set(fit).isdisjoint(held)
        assert len(set(fit)) == len(fit)
        assert len(set(held)) == len(held) == len(fold.weight)
        assert max(Counter(train.labels[held].tolist()).values()) <= MOST_OF_A_CLASS
        assert len(train.labels[fit].unique()) >= min(2, len(present))
        if not text:  # nothing else would tell of such a class
            assert len(train.labels[fit].unique()) == len(present)
        assert bool((fold.weight > 0).all())
    known = numbers if text else present
    stands = Counter(min(n, 2) for n in known)
    roles = asked(folds, train.labels)
    assert sum(weight for *_, weight in roles) <= 1 + 1e-12
    for role in (0, 1, 2):
        own = [weight for _, _, left, weight in roles if left == role]
        if own:
            # As often as in the folder, and all of its classes alike.
            assert sum(own) == pytest.approx(stands[role] / len(known))
            assert own == pytest.approx([own[0]] * len(own))


@given(NUMBERS, SEEDS)
def test_the_same_seed_holds_out_the_same(numbers, seed):
    y = labels_of(numbers)
    first, again = (stratified_folds(y, seed, ALL, (), len(numbers)) for _ in range(2))
    assert len(first) == len(again)
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("fit", "held_out", "weight"))


@pytest.mark.parametrize("seed", range(5))
def test_classes_stand_for_those_with_few(seed):
    y = labels_of([8] * 8 + [1] * 8)
    folds = stratified_folds(y, seed)
    assert len(folds) == MAX_FOLDS
    left = Counter()
    for fold in folds:
        trained = torch.bincount(y[fold.fit], minlength=16)
        assert trained[8:].tolist() == [1] * 8  # nothing of a single picture can be held out
        assert set(trained[:8].tolist()) <= {1, 6, 7}
        assert set(y[fold.held_out].tolist()) == set(range(8))
        left.update("one" if n == 1 else "several" for n in trained[:8].tolist())
    # Half of the classes have one picture: so has about half of what is asked.
    assert 10 <= left["one"] <= 30
    by_role = Counter()
    for _, _, role, weight in asked(folds, y):
        by_role[role] += weight
    assert by_role == pytest.approx({1: 0.5, 2: 0.5})


@pytest.mark.parametrize("seed", range(5))
def test_classes_stand_for_those_without_pictures_where_there_is_text(seed):
    train = set_of([4] * 8 + [0] * 4)
    roles = asked(folds_of(train, seed), train.labels)
    by_role = Counter()
    for _, _, role, weight in roles:
        by_role[role] += weight
    assert by_role == pytest.approx({0: 1 / 3, 2: 2 / 3})
    blind = asked(folds_of(train, seed, text=False), train.labels)
    assert {role for _, _, role, _ in blind} == {2}
    assert sum(weight for *_, weight in blind) == pytest.approx(1)


def test_what_no_picture_can_tell_has_no_weight():
    """All classes but two have one picture: half of what becomes of such a class is unknown."""
    y = labels_of([3, 3, 1, 1])
    for seed in range(10):
        roles = asked(stratified_folds(y, seed), y)
        assert {label for _, label, _, _ in roles} == {0, 1}
        shares = {role: 0.5 for _, _, role, _ in roles}
        assert sum(weight for *_, weight in roles) == pytest.approx(sum(shares.values()))


def test_one_class_alone_tells_nothing():
    """All that could be held out is of one class: whoever always says that class would win."""
    for seed in range(10):
        assert stratified_folds(labels_of([8, 1, 1]), seed) == []
    for seed in range(3):
        # A huge class is no reason to stop before another one is held out.
        folds = stratified_folds(labels_of([500, 2]), seed, enough=10)
        assert {int(i >= 500) for fold in folds for i in fold.held_out} == {0, 1}


# (label, content) of every picture; no content is drawn as often as a few
PICTURES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=50)


@given(PICTURES, SEEDS, st.booleans(), st.booleans())
def test_copies_never_straddle_folds(pictures, seed, torn, text):
    # with ``torn``, copies lie under several labels too
    digests = [str(c) if torn else f"{y}-{c}" for y, c in pictures]
    labels = [y for y, _ in pictures]
    train = FeatureSet(
        torch.ones(len(labels), 2), torch.tensor(labels), list("abcde"), digests=digests
    )
    several = {
        d for d in digests if len({y for y, e in zip(labels, digests, strict=True) if e == d}) > 1
    }
    stuck = {i for i, d in enumerate(digests) if d in several}
    folds = folds_of(train, seed, enough=ALL, text=text)
    for fold in folds:
        fit, held = set(fold.fit.tolist()), set(fold.held_out.tolist())
        inside = {digests[i] for i in held}
        assert inside.isdisjoint(digests[i] for i in fit)
        assert fit >= stuck  # copies under several labels are trained on, whatever is held out
        # A picture is held out with all of its copies.
        assert held == {i for i, d in enumerate(digests) if d in inside}
        assert fit >= {i for i, d in enumerate(digests) if d in {digests[j] for j in fit}}
    distinct = {y: {d for d, z in zip(digests, labels, strict=True) if z == y} for y in labels}
    numbers = [len(distinct.get(y, ())) for y in range(5)]
    if len(set(numbers)) == 1 or (not text and len(set(numbers) - {0}) == 1):
        # An even folder: all are held out once, but for those copies.
        free = set(range(len(labels))) - stuck if max(numbers) > 1 else set()
        wanted = sorted(free) if len({labels[i] for i in free}) > 1 else []
        assert sorted(i for f in folds for i in f.held_out.tolist()) == wanted


def test_copies_count_as_one_picture():
    """Eight copies of one picture leave nothing to hold out, and make no class a large one."""
    train = set_of([8, 1], ["same"] * 8 + ["other"])
    assert folds_of(train, 0) == []
    even = set_of([4, 2], ["a", "a", "b", "b", "c", "d"])
    folds = folds_of(even, 0)
    assert len(folds) == 2
    assert sorted(i for f in folds for i in f.held_out.tolist()) == list(range(6))


def test_enough_held_out_pictures_stop_the_folds():
    y = torch.arange(1000).repeat(4)
    assert len(stratified_folds(y, 0)) == 1
    assert len(stratified_folds(y, 0, enough=ALL)) == 4
    uneven = labels_of([8] * 200 + [1] * 200)
    assert 1 <= len(stratified_folds(uneven, 0)) < len(stratified_folds(uneven, 0, enough=ALL)) == 5


@pytest.mark.parametrize("numbers", [[40, 40, 40, 40], [40, 3, 12, 0]])
def test_very_many_pictures_are_held_out_in_part(numbers, monkeypatch):
    train = set_of(numbers)
    whole = folds_of(train, 1)
    monkeypatch.setattr(folds_module, "HELD_OUT_ENOUGH", 5)
    monkeypatch.setattr(folds_module, "MOST_SCORES", 8 * len(numbers))
    for part, fold in zip(folds_of(train, 1, 500), whole, strict=True):
        assert torch.equal(part.fit, fold.fit)
        assert len(part.held_out) == min(len(fold.held_out), 8)
        assert set(part.held_out.tolist()) <= set(fold.held_out.tolist())
        torch.testing.assert_close(part.weight.sum(), fold.weight.sum())
    assert any(len(fold.held_out) > 8 for fold in whole)
    # Never fewer than are enough.
    monkeypatch.setattr(folds_module, "MOST_SCORES", 1)
    assert [len(f.held_out) for f in folds_of(train, 1, 500)] == [
        min(len(f.held_out), 5) for f in whole
    ]
