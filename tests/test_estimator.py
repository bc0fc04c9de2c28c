"""The scikit-learn estimator against scikit-learn's own checks."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from clip_adapter.errors import ClassifierError, DataError, MissingTextError, UsageError
from clip_adapter.estimator import FewShotClassifier

# A fixed C: the checks fit dozens of times, and what they check does not depend on the sweep.
FAST = FewShotClassifier("linear-probe", options={"C": 1.0})


def names():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(estimator_checks_generator(FAST))


@pytest.mark.parametrize("pair", names(), ids=lambda p: getattr(p[1], "func", p[1]).__name__)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:1 exact copy counts")  # iris has one
@pytest.mark.filterwarnings("ignore:. rows? of X are all 0")  # numbers cut to integers have one
def test_scikit_learn_check(pair):
    estimator, check = pair
    check(estimator)


def shots(seed=0, per_class=6):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(3, 16)).astype(np.float32)
    y = np.repeat(["ant", "bee", "cow"], per_class)
    x = centres[np.repeat(range(3), per_class)] + generator.normal(size=(len(y), 16)) * 0.3
    return x.astype(np.float32), y, dict(zip(("ant", "bee", "cow"), centres, strict=True))


def test_clip_adapter_with_text_weights():
    x, y, centres = shots()
    model = FewShotClassifier("clip-adapter", text_weights=centres, logit_scale=20.0).fit(x, y)
    assert (model.predict(x) == y).mean() > 0.9
    assert model.predict_proba(x).shape == (len(y), 3)
    assert list(model.classes_) == ["ant", "bee", "cow"]


@pytest.mark.parametrize("text", [True, False])
def test_the_default_blends_with_text_or_without(text):
    x, y, centres = shots()
    model = FewShotClassifier(text_weights=centres if text else None, logit_scale=20.0).fit(x, y)
    assert model.method == "auto"
    others, truth, _ = shots(seed=0, per_class=20)
    assert (model.predict(others) == truth).mean() > 0.9
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1, rtol=1e-5)
    members = set(model.classifier_.info["hyperparameters"]["members"])
    assert ("wise-ft" in members) == text


def test_text_methods_without_text_weights_say_so():
    x, y, _ = shots()
    with pytest.raises(MissingTextError, match="clip-adapter"):
        FewShotClassifier("clip-adapter").fit(x, y)


def test_grid_search_over_methods():
    x, y, centres = shots()
    model = FewShotClassifier(text_weights=centres, logit_scale=20.0, options={})
    search = GridSearchCV(model, {"method": ["zero-shot", "linear-probe"]}, cv=2).fit(x, y)
    assert search.best_score_ > 0.8


def test_text_weights_that_are_none_are_refused():
    x, y, centres = shots()
    with pytest.raises(ValueError, match="text_weights are no array of numbers"):
        FewShotClassifier(text_weights=["ant", "bee", "cow"]).fit(x, y)
    centres["bee"][:] = 0
    with pytest.raises(DataError, match="text weights of 'bee' are all 0"):
        FewShotClassifier(text_weights=centres).fit(x, y)


def zero_shot(text, **named):
    return FewShotClassifier("zero-shot", text_weights=text, logit_scale=20.0, **named)


def as_objects(y):
    return np.array([str(label) for label in y], dtype=object)


@pytest.mark.parametrize("labels", [np.asarray, list, as_objects])
def test_text_in_any_order_goes_to_the_labels_that_are_named(labels):
    x, y, centres = shots()
    order = ["cow", "ant", "bee"]  # of a file; scikit-learn sorts
    rows = np.stack([centres[name] for name in order])
    by_label = zero_shot({name: centres[name] for name in order}).fit(x, labels(y))
    by_order = zero_shot(rows, class_names=np.array(order)).fit(x, labels(y))
    for model in (by_label, by_order, clone(by_order).fit(x, labels(y))):
        assert model.score(x, y) == 1
        assert list(model.predict_proba(x[:1]).argmax(1)) == [0]
    with pytest.raises(ValueError, match=r"cannot be seen. Give \{label: vector\}"):
        zero_shot(rows).fit(x, labels(y))


@pytest.mark.parametrize("values", [(0, 1, 2), (7, 10, 9), (2.0, 0.0, 1.0)])
def test_bare_rows_go_to_numbers_in_their_order(values):
    x, y, centres = shots()
    names = sorted(centres)
    y = np.array(values)[[names.index(label) for label in y]]
    rows = np.stack([centres[names[i]] for i in np.argsort(values)])
    assert zero_shot(rows).fit(x, y).score(x, y) == 1


def test_bare_rows_go_to_false_and_true():
    x, y, centres = shots()
    x, y = x[y != "cow"], y[y != "cow"] == "bee"
    assert zero_shot([centres["ant"], centres["bee"]]).fit(x, y).score(x, y) == 1
    assert zero_shot({True: centres["bee"], False: centres["ant"]}).fit(x, y).score(x, y) == 1


def test_text_of_labels_that_a_fold_lacks_is_left_aside():
    x, y, centres = shots()
    kept = y != "ant"
    model = zero_shot(centres).fit(x[kept], y[kept])
    assert list(model.classes_) == ["bee", "cow"]
    assert model.score(x[kept], y[kept]) == 1
    folds = KFold(3)  # of sorted labels: each lacks one
    assert len(cross_val_score(zero_shot(centres), x, y, cv=folds)) == 3


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("fewer", None, "no row for 'bee'; it has rows for 'ant', 'cow'. Labels are spelled"),
        ("all", ["ant", "bee", "cow"], "a mapping"),
        ("rows", ["ant", "bee"], r"shape \(3, 16\); there are 2 classes"),
        ("rows", ["ant", "bee", "bee"], "twice"),
        ("rows", ["Ant", "bee", "cow"], "no row for 'ant'"),
        (None, ["ant", "bee", "cow"], "without text_weights"),
    ],
)
def test_text_that_does_not_fit_the_labels_is_refused(text, names, message):
    x, y, centres = shots()
    given = {
        "fewer": {name: row for name, row in centres.items() if name != "bee"},
        "all": centres,
        "rows": np.stack(list(centres.values())),
        None: None,
    }[text]
    with pytest.raises(ValueError, match=message):
        zero_shot(given, class_names=names).fit(x, y)


def test_what_text_cannot_tell_apart_warns_and_a_scale_that_may_be_a_logarithm_is_refused():
    x, y, centres = shots()
    centres["cow"] = centres["ant"] * 2
    with pytest.warns(UserWarning, match="cannot tell these classes apart: 'ant' and 'cow'"):
        zero_shot(centres).fit(x, y)
    centres.pop("cow")
    with pytest.raises(ValueError, match=r"logit_scale is 4\.6052: .* it is 100\.0"):
        FewShotClassifier("zero-shot", centres, 4.6052).fit(x[y != "cow"], y[y != "cow"])


def test_text_of_more_labels_than_y_has_says_how_to_name_them():
    x, y, centres = shots()
    numbers, rows = np.unique(y, return_inverse=True)[1], np.stack([*centres.values()])
    few = numbers < 2
    with pytest.raises(ValueError, match=r"shape \(3, 16\).*give \{label: vector\}.*class_names="):
        zero_shot(rows).fit(x[few], numbers[few])
    assert set(zero_shot(rows, class_names=[0, 1, 2]).fit(x[few], numbers[few]).classes_) == {0, 1}


def test_rows_of_zeros_are_told():
    x, y, _ = shots()
    x[3] = 0
    with pytest.warns(UserWarning, match=r"1 row of X are all 0 \(3\)"):
        FAST.fit(x, y)


def test_text_is_shown_by_its_number():
    _, _, centres = shots()
    model = FewShotClassifier("gda", text_weights=centres, options={"a": 1})
    assert repr(model) == (
        "FewShotClassifier(method='gda', options={'a': 1}, text_weights=<3 vectors>)"
    )


@pytest.mark.parametrize("method", ["auto", "gda", "tip-adapter-f"])
def test_copies_of_a_row_count_as_one_and_rows_of_two_classes_are_left_out(method):
    x, y, centres = shots(per_class=2)
    wanted = FewShotClassifier(method, text_weights=centres, logit_scale=20.0).fit(x, y)
    model = FewShotClassifier(method, text_weights=centres, logit_scale=20.0)
    both = np.ones((1, 16), np.float32)
    with pytest.warns(UserWarning, match="count no second time|left out") as warned:
        model.fit(np.concatenate([x, x, both, both]), [*y, *y, "ant", "cow"])
    assert len(warned) == 1
    assert warned[0].filename == __file__
    probe = shots(seed=3)[0]
    np.testing.assert_array_equal(model.predict_proba(probe), wanted.predict_proba(probe))


@pytest.mark.parametrize("scale", ["100", None, [100.0]])
def test_a_scale_that_is_no_number_is_told(scale):
    x, y, centres = shots()
    with pytest.raises(UsageError, match=f"logit_scale = {re.escape(repr(scale))}"):
        FewShotClassifier("zero-shot", centres, scale).fit(x, y)


@pytest.mark.parametrize("frame", [np.asarray, pd.DataFrame])
def test_data_that_may_not_be_written_are_read(frame):
    x, y, _ = shots()
    wanted = clone(FAST).fit(x, y).predict_proba(x)
    torch.set_warn_always(True)  # else torch warns once in a process
    try:
        x.flags.writeable = y.flags.writeable = False
        model = clone(FAST).fit(frame(x), y)
        np.testing.assert_allclose(model.predict_proba(frame(x)), wanted, rtol=1e-5)
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize(
    "labels", [list, np.array, pd.Series, lambda y: pd.Series(y, dtype="string")]
)
def test_labels_that_are_not_there_are_told(labels):
    x, y, _ = shots()
    with pytest.raises(ValueError, match=r"2 rows of y have no label \(None or NaN: 0, 17\)"):
        FAST.fit(x, labels([None, *y[1:-1], None]))


def test_labels_of_unknowns_are_told_and_those_of_two_sides_are_not():
    x, y, _ = shots()
    numbers = np.unique(y, return_inverse=True)[1] - 1
    with pytest.raises(ValueError, match=r"y holds -1 beside 0.*X\[y != -1\].*y\.astype\(str\)"):
        FAST.fit(x, numbers)
    assert list(clone(FAST).fit(x, numbers.astype(str)).classes_) == ["-1", "0", "1"]
    sides = numbers != 0
    assert list(clone(FAST).fit(x[sides], numbers[sides]).classes_) == [-1, 1]


def test_features_of_another_width_are_not_taken_for_pixels():
    x, y, centres = shots()
    model = clone(FAST).fit(x, y)
    with pytest.raises(ClassifierError, match=r"Features of shape \(18, 5\)") as error:
        model.classifier_.predict(x[:, :5])
    assert "uint8" not in str(error.value)
    with pytest.raises(ClassifierError, match="uint8"):
        model.classifier_.predict(np.zeros((8, 8, 3)))
    narrow = {name: row[:5] for name, row in centres.items()}
    with pytest.raises(ValueError, match=r"shape \(3, 5\).*X has 16 features\.$"):
        zero_shot(np.stack([*narrow.values()]), class_names=list(narrow)).fit(x, y)


def test_labels_of_another_type_and_a_scale_too_large_are_told():
    x, y, *_ = shots()
    text = {str(i): row for i, row in enumerate(np.eye(3, x.shape[1]))}
    with pytest.raises(ValueError, match="0 is of type int64 in y, and str there"):
        FewShotClassifier("zero-shot", text).fit(x, np.unique(y, return_inverse=True)[1])
    with pytest.raises(ValueError, match="Give 1/tau, 10 to 1000"):
        FewShotClassifier("zero-shot", text, logit_scale=1e4).fit(x, y)
