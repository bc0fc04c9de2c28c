"""The few-shot task refuses what no method can learn from."""

import pytest
import torch

from clip_adapter.errors import DataError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask


def features(count, names):
    return FeatureSet(torch.randn(count, 4), torch.zeros(count), names)


def test_no_picture():
    with pytest.raises(DataError, match="no training picture"):
        FewShotTask(features(0, ["a", "b"]), None)


def test_one_class_says_what_to_add():
    with pytest.raises(DataError, match="second class"):
        FewShotTask(features(3, ["a"]), None)


def test_text_of_another_backbone():
    with pytest.raises(DataError, match="made the features"):
        FewShotTask(features(3, ["a", "b"]), torch.randn(2, 5))


def test_text_weights_are_scaled_to_unit_length():
    x = features(3, ["a", "b"])
    x.labels[2] = 1
    task = FewShotTask(x, torch.tensor([[3.0, 4, 0, 0], [0, 0, 0, 2]]))
    assert torch.allclose(task.text_weights.norm(dim=1), torch.ones(2))
    assert FewShotTask(x, task.text_weights).text_weights is task.text_weights


def test_shots_are_of_the_largest_class():
    x = FeatureSet(torch.randn(5, 4), torch.tensor([0, 0, 0, 1, 1]), ["a", "b"])
    assert FewShotTask(x, None).shots == 3
