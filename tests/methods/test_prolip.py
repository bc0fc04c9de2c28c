"""prolip: its start, its penalty, and what it leaves alone."""

import dataclasses

import pytest
import torch
from learn import learn
from torch.nn.functional import cross_entropy

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import UsageError
from clip_adapter.methods import make_method
from clip_adapter.methods.prolip import RATES
from clip_adapter.task import RN50, VIT_B_16, Compute
from clip_adapter.towers import tuned
from clip_adapter.towers.weights import projection

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}


@pytest.fixture(scope="module", params=["transformer", "resnet"])
def backbone(request, make_folder):
    changes = {"vision_cfg": RESNET} if request.param == "resnet" else {}
    return load_backbone(f"local-dir:{make_folder(**changes)}", device="cpu")


def fit(task, **options):
    return learn("prolip", task, options)


def logits(classifier, task):
    pixels = task.pictures.batch(range(len(task.pictures)))
    return classifier.logits(tuned(task.backbone, classifier.tower_adapter).encode_images(pixels))


def distance(classifier, task):
    matrix, _ = projection(task.backbone)
    return (classifier.head.image_map.matrix - matrix).norm().item()


def test_it_starts_as_zero_shot(backbone, pixel_task):
    task = pixel_task(backbone)
    got = logits(fit(task, lr=1e-12, epochs=1), task)
    want = learn("zero-shot", task).logits(task.train.plain_view)
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-4)


def test_it_learns_and_the_penalty_holds_it_back(backbone, pixel_task):
    task = pixel_task(backbone)
    free = fit(task, lr=1e-3, epochs=60, distance_penalty=0)
    held = fit(task, lr=1e-3, epochs=60, distance_penalty=10)
    start = learn("zero-shot", task).logits(task.train.plain_view)
    losses = [cross_entropy(x, task.train.labels) for x in (start, logits(free, task))]
    assert losses[1] < 0.9 * losses[0]
    assert 0 < distance(held, task) < 0.7 * distance(free, task)


def test_the_published_penalty_is_one_over_the_shots(backbone, pixel_task):
    classifier = fit(pixel_task(backbone, per_class=4), epochs=1)
    assert classifier.info["hyperparameters"]["distance_penalty"] == 0.25
    assert classifier.info["hyperparameters"]["batch_size"] == 12
    _, bias = projection(backbone)
    kept = classifier.head.image_map.bias
    assert (bias is None and kept is None) or torch.equal(kept, bias)


def test_the_rate_is_chosen_on_held_out_shots(backbone, pixel_task):
    classifier = fit(pixel_task(backbone, per_class=10), epochs=60)
    (selection,) = classifier.info["selection"]
    assert selection["candidates"] == list(RATES)
    assert selection["pictures"] == 30
    assert selection["chosen"] > RATES[0]
    assert (
        selection["loss"][RATES.index(selection["chosen"])]
        == min(selection["loss"])
        < selection["loss"][0]
    )
    assert classifier.info["hyperparameters"]["lr"] == selection["chosen"]
    assert classifier.info["held_out"]["pictures"] == 30
    doubtful = fit(pixel_task(backbone), epochs=2)  # next to nothing is learnt, or known
    assert doubtful.info["hyperparameters"]["lr"] == RATES[0]
    one = fit(pixel_task(backbone, per_class=1), epochs=2)
    assert one.info["hyperparameters"]["lr"] == 1e-5


def test_parameters_are_those_of_the_projection():
    method = make_method("prolip")
    assert method.parameters(VIT_B_16) == 768 * 512
    assert method.parameters(RN50) == 2048 * 1024


def test_settings_without_effect_are_refused(backbone, pixel_task):
    task = dataclasses.replace(pixel_task(backbone), compute=Compute(precision="bf16-mixed"))
    for name in ("prolip", "l-1p"):
        with pytest.raises(UsageError, match="precision would change nothing"):
            learn(name, task)


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"distance_penalty": -1}, {"batch_size": -1}])
def test_wrong_options(wrong):
    with pytest.raises(UsageError, match="Allowed"):
        make_method("prolip", wrong)
