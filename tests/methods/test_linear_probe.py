"""The linear probe against scikit-learn, and its sweep."""

import numpy as np
import pytest
import torch
from learn import learn
from sklearn.linear_model import LogisticRegression

from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.linear_probe import PUBLISHED_C, LinearProbe


def make(classes, per_class=6, length=10.0):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(per_class)
    centres = torch.randn(classes, 8, generator=generator)
    x = centres[labels] + 0.5 * torch.randn(len(labels), 8, generator=generator)
    x = length * torch.nn.functional.normalize(x, dim=-1)
    return FewShotTask(FeatureSet(x, labels, [str(i) for i in range(classes)]), None)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_probabilities_are_scikit_learns(classes):
    task = make(classes)
    x, y = task.train.plain_view.numpy(), task.train.labels.numpy()
    want = LogisticRegression(C=0.5, max_iter=1000).fit(x, y).predict_proba(x)
    got = learn(LinearProbe(C=0.5), task).predict_proba(x)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_sweep_is_recorded_and_within_its_bounds():
    selection = learn(LinearProbe(), make(3)).info["selection"][0]
    assert selection["chosen"] in selection["candidates"]
    assert len(selection["candidates"]) > 7
    assert selection["accuracy"][selection["candidates"].index(selection["chosen"])] == max(
        selection["accuracy"]
    )
    assert selection["pictures"] == 18


def test_one_shot_takes_clips_c_for_the_length_of_the_features():
    raw = learn(LinearProbe(), make(3, per_class=1, length=10.0))
    unit = learn(LinearProbe(), make(3, per_class=1, length=1.0))
    assert raw.info["hyperparameters"]["C"] == pytest.approx(PUBLISHED_C)
    assert unit.info["hyperparameters"]["C"] == pytest.approx(100 * PUBLISHED_C)


def test_a_class_without_pictures_is_never_the_answer():
    task = make(3)
    task.train.class_names.append("empty")
    classifier = learn(LinearProbe(C=1.0), task)
    assert classifier.predict_proba(task.train)[:, 3].max() == 0


def test_one_class_and_bad_options():
    task = make(3)
    one = FewShotTask(task.train.subset([0, 1, 2]), None)
    with pytest.raises(DataError, match="two classes"):
        learn(LinearProbe(), one)
    for bad in ({"C": 0.0}, {"C": -1.0}, {"max_iter": 0}):
        with pytest.raises(UsageError):
            LinearProbe(**bad)
