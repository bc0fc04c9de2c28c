import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.nn import normalize
from clip_adapter.reporting import listening
from clip_adapter.task import RN50, VIT_B_16

NAMES = ["red ring", "blue star", "green gear"]


@pytest.fixture(scope="module")
def task():
    """Features that lie near texts other than "a photo of a": the context has what to learn."""
    backbone = load_backbone("demo", device="cpu")
    hard = normalize(backbone.encode_text([f"a photo of a {n}." for n in NAMES]))
    near = normalize(backbone.encode_text([f"a dark and blurry thing, {n}." for n in NAMES]))
    labels = torch.arange(24) % 3
    noise = torch.randn(24, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    features = 10 * (near[labels] + 0.05 * noise)
    return FewShotTask(FeatureSet(features, labels, NAMES), hard, 20.0, backbone=backbone)


def loss(classifier, task):
    return torch.nn.functional.cross_entropy(
        classifier.logits(task.train), task.train.labels
    ).item()


@pytest.mark.parametrize("name", ["coop", "coop-adapter"])
@pytest.mark.parametrize("options", [{}, {"recipe": "official"}, {"per_class": True}])
def test_it_learns_the_shots(task, name, options):
    quick = {"epochs": 30, "context_length": 4, "lr": 0.02}
    classifier = learn(name, task, quick | options)
    untrained = learn(name, task, quick | options | {"epochs": 1, "lr": 1e-9})
    assert loss(classifier, task) < 0.8 * loss(untrained, task)
    assert classifier.info["hyperparameters"]["context_length"] == 4


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_what_was_trained_is_in_the_class_weights(task, position):
    options = {"epochs": 5, "context_length": 4, "class_token_position": position}
    classifier = learn("coop", task, options)
    assert classifier.head.image_map is None
    assert classifier.head.weights.shape == (3, 128)
    again = learn("coop", dataclasses.replace(task, seed=2), options)
    assert not torch.equal(classifier.head.weights, again.head.weights)


def test_a_step_at_a_time_is_told_and_views_are_used(task):
    doubled = task.train.features.repeat(2, 1, 1)
    doubled[1] += 1
    views = FeatureSet(doubled, task.train.labels, NAMES)
    steps, options = [], {"epochs": 3, "batch_size": 8, "context_length": 2}
    with listening(lambda stage: steps.append((stage.done, stage.total))):
        learn("coop", dataclasses.replace(task, train=views), options)
    assert steps == [(i + 1, 9) for i in range(9)]


def test_counts():
    assert make_method("coop").parameters(VIT_B_16) == 16 * 512
    assert make_method("coop").parameters(RN50) == 16 * 512
    per_class = make_method("coop", {"per_class": True, "context_length": 4})
    assert per_class.parameters(VIT_B_16) == 4 * 512 * 1000
    assert make_method("coop", {"context_init": "a photo"}).parameters(VIT_B_16) is None
    adapter = make_method("coop-adapter").parameters(RN50)
    assert adapter == 16 * 512 + 524_288


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_length": 0}, "context_length = 0"),
        ({"context_length": 4, "context_init": "a photo"}, "the words decide"),
        ({"class_token_position": "last"}, "front"),
        ({"lr": -1}, "lr = -1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UsageError, match=message):
        make_method("coop", options)


@pytest.mark.parametrize("options", [{"visual_ratio": 1.5}, {"reduction": 0}])
def test_options_of_the_adapter_out_of_range(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        make_method("coop-adapter", options)


def test_what_cannot_be_is_said_before_training(task):
    with pytest.raises(UsageError, match=r"'red ring'.*takes 32"):
        learn("coop", task, {"context_length": 28})
    with pytest.raises(UsageError, match="no word"):
        learn("coop", task, {"context_init": " "})
    with pytest.raises(UsageError, match="reduction"):
        learn("coop-adapter", task, {"reduction": 1000})
    with pytest.raises(UsageError, match="--backbone"):
        learn("coop", dataclasses.replace(task, backbone=None))
