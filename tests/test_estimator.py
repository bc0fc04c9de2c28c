"""The scikit-learn estimator against scikit-learn's own checks."""

import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import estimator_checks_generator

from clip_adapter.errors import DataError, MissingTextError
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
def test_scikit_learn_check(pair):
    estimator, check = pair
    check(estimator)


def shots(seed=0, per_class=6):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(3, 16)).astype(np.float32)
    y = np.repeat(["ant", "bee", "cow"], per_class)
    x = centres[np.repeat(range(3), per_class)] + generator.normal(size=(len(y), 16)) * 0.3
    return x.astype(np.float32), y, centres


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
    centres[1] = 0
    with pytest.raises(DataError, match="text weights of 'bee' are all 0"):
        FewShotClassifier(text_weights=centres).fit(x, y)


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
