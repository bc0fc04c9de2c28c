"""Scores against independent arithmetic, and honesty about training pictures."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from clip_adapter.classifier import Classifier
from clip_adapter.errors import DataError, UsageError
from clip_adapter.evaluation import evaluate
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import write_features
from clip_adapter.heads import Head

C, D, N = 7, 12, 90
NAMES = [f"class {i}" for i in range(C)]


@pytest.fixture
def classifier():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(C, D, generator=generator)
    return Classifier(
        Head(weights),
        NAMES,
        text_weights=weights + 0.5,
        train_digests=["d3", "d4"],
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


def test_zero_shot_of_the_selection_is_that_of_the_record(classifier):
    assert evaluate(classifier, data()).selection_zero_shot is None
    classifier.info["held_out"] = {"zero_shot_accuracy": 61.5}
    report = evaluate(classifier, data())
    assert report.selection_zero_shot == report.to_dict()["selection_zero_shot"] == 61.5


def test_without_text_zero_shot_is_null(classifier):
    classifier.text_weights = None
    report = evaluate(classifier, data())
    assert report.zero_shot_top1 is None
    assert report.zero_shot_per_class is None


def test_rows_without_label_are_counted(classifier):
    labels = torch.arange(N) % C
    labels[:4] = -1
    with pytest.raises(DataError, match=f"4 of {N} rows have no label"):
        evaluate(classifier, data(labels=labels))


def test_names_that_stand_twice_are_no_match(classifier):
    twice = [NAMES[0], NAMES[0], *NAMES[2:]]
    with pytest.raises(DataError, match="test data has 1 class names twice"):
        evaluate(classifier, data(twice))
    classifier.class_names = twice
    assert evaluate(classifier, data(twice)).n == N  # the same list: ImageNet has two cranes
    with pytest.raises(DataError, match="classifier has 1 class names twice"):
        evaluate(classifier, data())


def linear(norm):
    weights = torch.randn(C, D, generator=torch.Generator().manual_seed(0))
    head = Head(weights, bias=torch.linspace(-3, 3, C), kind="linear")
    return Classifier(head, NAMES, feature_norm=norm, info={"backbone_fingerprint": "a" * 20})


def unit(features):
    return FeatureSet(
        features.features, features.labels, NAMES, digests=features.digests, feature_norm="unit"
    )


def test_a_raw_linear_head_takes_no_unit_features(tmp_path):
    path = tmp_path / "unit.safetensors"
    write_features(path, {"test": unit(data())})
    for given in (unit(data()), f"{path}#test"):
        with pytest.raises(DataError, match="length counts"):
            evaluate(linear("raw"), given)
    assert evaluate(linear("raw"), data()).n == N


def test_raw_linear_scores_of_unit_features_are_refused_in_python_too():
    for call in (linear("raw").predict, linear("raw").predict_proba, linear("raw").logits):
        with pytest.raises(DataError, match="length counts"):
            call(unit(data()))
    assert len(linear("unit").predict(data())) == N


def test_another_name_of_the_backbone_is_told(classifier, tmp_path, lines):
    path = tmp_path / "raw.safetensors"
    write_features(path, {"test": data()}, meta={"backbone": "RN50"})
    classifier.info = {"backbone": "RN101"}
    evaluate(classifier, f"{path}#test")
    (told,) = [m for m in lines.messages if "'RN50' made its features" in m]
    assert "embed the pictures with 'RN101', or fit again on features of 'RN50'" in told


def test_classes_that_text_cannot_tell_apart_are_named(classifier, lines):
    evaluate(classifier, data())
    assert not any("cannot tell" in message for message in lines.messages)
    classifier.text_weights[2] = classifier.text_weights[0]
    evaluate(classifier, data())
    assert any(f"apart: '{NAMES[0]}' and '{NAMES[2]}'" in message for message in lines.messages)


def test_a_cosine_head_takes_both(classifier):
    assert evaluate(classifier, unit(data())).top1 == evaluate(classifier, data()).top1


def test_a_unit_classifier_scales_a_raw_file(tmp_path):
    path = tmp_path / "raw.safetensors"
    write_features(path, {"test": data()})
    report = evaluate(linear("unit"), f"{path}#test")
    assert report.confusion == evaluate(linear("unit"), unit(data())).confusion


@pytest.mark.parametrize(("fingerprint", "same"), [("a" * 20, True), ("b" * 20, False)])
def test_features_of_other_weights(tmp_path, fingerprint, same):
    path = tmp_path / "raw.safetensors"
    write_features(path, {"test": data()}, meta={"backbone_fingerprint": fingerprint})
    if same:
        assert evaluate(linear("raw"), f"{path}#test").n == N
        return
    with pytest.raises(DataError, match="bbbbbbbbbbbb"):
        evaluate(linear("raw"), f"{path}#test")


def test_what_would_be_ignored_is_refused(classifier, tmp_path):
    path = tmp_path / "raw.safetensors"
    write_features(path, {"test": data(), "val": data()})
    classifier.info["backbone"] = "demo"
    with pytest.raises(UsageError, match="name after # is the set"):
        evaluate(classifier, f"{path}#test", split="val")
    assert evaluate(classifier, f"{path}#val", split="val").n == N
    with pytest.raises(UsageError, match="made with demo"):
        evaluate(classifier, f"{path}#test", backbone="RN50")
    assert evaluate(classifier, f"{path}#test", backbone="demo").n == N
    with pytest.raises(UsageError, match="prompts"):
        evaluate(classifier, f"{path}#test", prompts="a {}.")
    with pytest.raises(UsageError, match="root"):
        evaluate(classifier, f"{path}#test", root=".")
    with pytest.raises(UsageError, match="split"):
        evaluate(classifier, data(), split="val")


def test_features_cut_as_coop_did_are_no_chosen_option(classifier, tmp_path):
    path = tmp_path / "raw.safetensors"
    write_features(path, {"test": data()})
    classifier.info["preprocess"] = "coop"
    assert evaluate(classifier, f"{path}#test").n == N


def weights_of(rows, names):
    """A classifier that answers by the largest of the first numbers of a feature."""
    return Classifier(Head(torch.eye(rows), logit_scale=1.0), names, text_weights=None)


def pictures(rows, labels, names):
    return FeatureSet(torch.tensor(rows), torch.tensor(labels), names)


def test_only_its_classes_leaves_the_others_out_of_the_answers():
    classifier = weights_of(4, ["a", "b", "c", "d"])
    # Both pictures look most like "a", which the subset does not have.
    data = pictures([[9.0, 1.0, 0.0, 2.0], [9.0, 3.0, 0.0, 2.0]], [1, 1], ["b", "d"])
    assert evaluate(classifier, data).top1 == 0
    report = evaluate(classifier, data, only_its_classes=True)
    assert report.top1 == 50
    assert report.confusion[3] == [0, 1, 0, 1]


def test_classes_of_one_name_are_one_answer_in_a_subset():
    classifier = weights_of(4, ["missile", "b", "missile", "d"])
    data = pictures([[0.0, 1.0, 5.0, 9.0], [2.0, 3.0, 0.0, 9.0]], [0, 0], ["missile", "b"])
    report = evaluate(classifier, data, only_its_classes=True)
    assert report.top1 == 50  # the first is a "missile" by its second class of that name
    with pytest.raises(DataError, match="twice"):
        evaluate(classifier, data)


def test_the_same_list_of_classes_is_no_subset_whatever_the_names():
    names = ["missile", "b", "missile", "d"]
    data = pictures([[0.0, 1.0, 5.0, 4.0]], [2], names)
    assert evaluate(weights_of(4, names), data, only_its_classes=True).top1 == 100


def test_a_report_prints_as_its_table():
    classifier = weights_of(3, ["花", "<b>cat</b>", "none"])
    report = evaluate(
        classifier, pictures([[9.0, 1.0, 0.0], [9.0, 3.0, 0.0]], [0, 1], ["花", "<b>cat</b>"])
    )
    lines = str(report).splitlines()
    assert lines[: len(report.lines())] == report.lines()
    assert lines[len(report.lines()) :] == [
        "class       pictures  right %",
        "<b>cat</b>         1      0.0",
        "花                 1    100.0",  # a wide letter takes two places
    ]


def test_a_report_in_a_notebook_is_escaped():
    names = ["<script>alert(1)</script>", "a & b"]
    report = evaluate(weights_of(2, names), pictures([[9.0, 1.0], [0.0, 3.0]], [0, 1], names))
    html = report._repr_html_()
    assert "<script" not in html
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td><td>1</td><td>100.0</td>" in html
    assert "a &amp; b" in html
    assert html.count("<tr>") == 3


def test_a_report_of_many_classes_shows_the_worst(classifier):
    names = [f"c{i}" for i in range(30)]
    data = pictures(torch.eye(30).tolist(), list(range(30)), names)
    classifier = weights_of(30, [*names[1:], names[0]])  # none is right
    text = str(evaluate(classifier, data))
    assert text.endswith("10 better ones are not shown.")


def test_the_warning_of_seen_pictures_comes_first(classifier):
    lines = evaluate(classifier, data()).lines()
    assert lines[0].startswith("Beware: 2 of these 90 pictures were also trained on")
    classifier.train_digests = frozenset()
    assert "Beware" not in " ".join(evaluate(classifier, data()).lines())
