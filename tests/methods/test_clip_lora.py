"""clip-lora: counts, recipe, towers, and what is kept of the text tower."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.backbones import load_backbone
from clip_adapter.classifier import Classifier
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.methods import make_method
from clip_adapter.task import RN50, VIT_B_16
from clip_adapter.towers import tuned

NAME = "clip-lora"
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32}
QUICK = {"epochs": 10, "lr": 1e-2}


@pytest.fixture(scope="module")
def demo():
    return load_backbone("demo", device="cpu")


def logits(classifier, task):
    encoder = task.backbone
    if classifier.tower_adapter is not None:
        encoder = tuned(encoder, classifier.tower_adapter)
    return classifier.logits(encoder.encode_images(task.pictures.batch(range(12))))


def test_counts():
    assert make_method(NAME).parameters(VIT_B_16) == 12 * 6 * 2 * (768 + 512)
    assert make_method(NAME, {"encoder": "visual", "rank": 4}).parameters(VIT_B_16) == (
        12 * 6 * 4 * 768
    )
    assert make_method(NAME, {"encoder": "text"}).parameters(RN50) == 12 * 6 * 2 * 512


def test_the_schedule_is_the_published_one(demo, pixel_task, monkeypatch):
    schedules = []

    def training(method, task, schedule, **_):
        schedules.append(schedule)

    monkeypatch.setattr("clip_adapter.methods.clip_lora.fit_inside", training)
    task = pixel_task(demo, per_class=16)
    for epochs in (None, 3):
        make_method(NAME, {"epochs": epochs, "encoder": "visual"}).fit(task)
    published, short = schedules
    assert (published.optimizer, published.lr, published.weight_decay) == ("adamw", 2e-4, 1e-2)
    assert (published.batch_size, published.steps, published.warmup) == (32, 8000, 0)
    assert (short.steps, short.epochs) == (None, 3)
    method = make_method(NAME)
    assert (method.rank, method.alpha, method.dropout) == (2, 1, 0.25)


@pytest.mark.parametrize("encoder", ["visual", "text", "both"])
def test_each_tower_learns_the_shots(encoder, demo, pixel_task):
    task = pixel_task(demo)
    before = torch.nn.functional.cross_entropy(
        task.logit_scale * task.train.plain_view @ task.text_weights.T, task.train.labels
    )
    classifier = learn(NAME, task, QUICK | {"encoder": encoder})
    after = torch.nn.functional.cross_entropy(logits(classifier, task), task.train.labels)
    assert after < 0.7 * before
    assert (classifier.tower_adapter is None) == (encoder == "text")
    moved = not torch.equal(classifier.head.weights, task.text_weights)
    assert moved == (encoder != "visual")
    assert torch.equal(classifier.text_weights, task.text_weights)
    count = 6 * 2 * ((encoder != "text") * 4 * 128 + (encoder != "visual") * 3 * 48)
    assert classifier.info["trained_parameters"] == count


def test_what_is_kept_of_the_text_tower_was_made_without_dropout(demo, pixel_task):
    task = pixel_task(demo)
    classifier = learn(NAME, task, {"epochs": 1, "lr": 1e-12})
    torch.testing.assert_close(classifier.head.weights, task.text_weights, rtol=0, atol=1e-6)


def test_dropout_changes_the_training_and_the_seed_decides_it(demo, pixel_task):
    results = {}
    for key, dropout, seed in (("a", 0.25, 1), ("b", 0.25, 1), ("c", 0.0, 1), ("d", 0.25, 2)):
        torch.manual_seed(ord(key))
        task = dataclasses.replace(pixel_task(demo), seed=seed)
        classifier = learn(NAME, task, {"epochs": 1, "lr": 1e-2, "dropout": dropout})
        results[key] = logits(classifier, task)
    assert torch.equal(results["a"], results["b"])
    assert not torch.equal(results["a"], results["c"])
    assert not torch.equal(results["a"], results["d"])


def test_saved_and_loaded_is_the_same_to_the_bit(demo, pixel_task, tmp_path):
    task = pixel_task(demo)
    options = {"epochs": 2, "lr": 1e-2, "rank": 3, "alpha": 2}
    classifier = learn(NAME, task, options)
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    assert torch.equal(logits(classifier, task), logits(loaded, task))


def test_a_resnet_takes_the_text_tower_alone(make_folder, pixel_task):
    task = pixel_task(load_backbone(f"local-dir:{make_folder(vision_cfg=RESNET)}", device="cpu"))
    classifier = learn(NAME, task, {"encoder": "text", "epochs": 1})
    assert classifier.tower_adapter is None
    with pytest.raises(BackboneError, match="ViT-B-16"):
        learn(NAME, task)


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"alpha": 0}, {"dropout": 1}, {"lr": 0}, {"epochs": 0}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        make_method(NAME, options)
