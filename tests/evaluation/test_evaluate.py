"""Scores against independent arithmetic, and honesty about training pictures."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from clip_adapter.classifier import Classifier, Head
from clip_adapter.errors import DataError
from clip_adapter.evaluation import evaluate
from clip_adapter.features.feature_set import FeatureSet

C, D, N = 7, 12, 90
NAMES = [f"class {i}" for i in range(C)]


@pytest.fixture
def classifier():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(C, D, generator=generator)
    return Classifier(
        Head(weights),
        NAMES,
        zero_shot_weights=weights + 0.5,
        seen=["d3", "d4"],
        info={"method": "test"},
    )


def data(names=NAMES, labels=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, D, generator=generator)
    y = torch.arange(N) % (C - 1) if labels is None else labels  # the last class has no picture
    return FeatureSet(x, y, list(names), digests=[f"d{i}" for i in range(N)])


def test_against_scikit_learn(classifier):
    features = data()
    report = evaluate(classifier, features)
    scores = classifier.logits(features).numpy()
    y = features.labels.numpy()
    predicted = scores.argmax(1)
    assert report.n == N
    assert report.top1 == pytest.approx(100 * (predicted == y).mean())
    want = 100 * top_k_accuracy_score(y, scores, k=5, labels=range(C))
    assert report.top5 == pytest.approx(want)
    assert np.array_equal(report.confusion, confusion_matrix(y, predicted, labels=range(C)))
    known = [v for v in report.per_class.values() if v is not None]
    assert len(known) == C - 1
    assert report.per_class[NAMES[-1]] is None
    present = predicted < C - 1
    if present.all():
        want = 100 * balanced_accuracy_score(y, predicted)
        assert report.mean_per_class == pytest.approx(want)
    assert report.mean_per_class == pytest.approx(np.mean(known))
    zero = classifier.zero_shot_logits(features).argmax(1)
    assert report.zero_shot_top1 == pytest.approx(100 * (zero.numpy() == y).mean())


def test_training_pictures_are_counted(classifier):
    report = evaluate(classifier, data())
    assert report.seen_in_training == 2
    assert any("too high" in line for line in report.lines())


def test_classes_are_matched_by_name(classifier):
    features = data()
    order = list(reversed(range(C)))
    shuffled = data(
        [NAMES[i] for i in order], torch.tensor([order.index(c) for c in features.labels.tolist()])
    )
    assert evaluate(classifier, shuffled).top1 == evaluate(classifier, features).top1


def test_unknown_classes_are_named(classifier):
    with pytest.raises(DataError, match="'zebra'"):
        evaluate(classifier, data(["zebra", *NAMES[1:]]))


def test_without_text_zero_shot_is_null(classifier):
    classifier.zero_shot_weights = None
    report = evaluate(classifier, data())
    assert report.zero_shot_top1 is None
    assert report.zero_shot_per_class is None
