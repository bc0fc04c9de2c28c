"""fine-tune: what each choice trains, that the backbone is left alone, and early stopping."""

import dataclasses

import pytest
import torch
from learn import learn
from torch.nn.functional import cross_entropy

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import UsageError
from clip_adapter.methods import make_method
from clip_adapter.task import VIT_B_16
from clip_adapter.towers import tuned

QUICK = {"lr": 1e-3, "batch_size": 6, "epochs": 3, "patience": 0}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}


@pytest.fixture(scope="module")
def tiny(make_folder):
    return load_backbone(f"local-dir:{make_folder()}", device="cpu")


def fit(task, **options):
    return learn("fine-tune", task, QUICK | options)


def features(classifier, task):
    backbone = task.backbone
    if classifier.tower_adapter is not None:
        backbone = tuned(backbone, classifier.tower_adapter)
    return backbone.encode_images(task.pictures.batch(range(len(task.pictures))))


def loss(classifier, task):
    return cross_entropy(classifier.logits(features(classifier, task)), task.train.labels).item()


@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("tower", ["visual", "text", "both"])
def test_what_is_trained(tiny, pixel_task, tower, adapter):
    task = pixel_task(tiny)
    before = {k: v.clone() for k, v in tiny.model.state_dict().items()}
    classifier = fit(task, tower=tower, adapter=adapter)
    assert all(torch.equal(v, before[k]) for k, v in tiny.model.state_dict().items())
    zero_shot = learn("zero-shot", task)
    assert loss(classifier, task) < loss(zero_shot, task) - 0.01
    assert (classifier.tower_adapter is None) == (tower == "text")
    moved = not torch.equal(classifier.head.weights, task.text_weights)
    assert moved == (tower != "visual")
    assert (classifier.head.image_map is None) == (not adapter)
    if adapter:
        assert float(classifier.head.image_map.ratio.value) == pytest.approx(0.2)


def test_augmented_views_and_unit_features(tiny, pixel_task):
    task = pixel_task(tiny)
    plain = fit(task, augment=False)
    assert loss(plain, task) != loss(fit(task), task)
    unit = dataclasses.replace(task, train=dataclasses.replace(task.train, feature_norm="unit"))
    trained = fit(unit, augment=False)
    assert trained.feature_norm == "unit"
    # the adapter has no biases: it commutes with the length of a feature
    assert loss(trained, unit) == pytest.approx(loss(plain, task), abs=1e-3)


@pytest.mark.parametrize("name", ["fine-tune", "wise-ft-tower"])
def test_the_record_holds_every_option(tiny, pixel_task, name):
    method = make_method(name, {"epochs": 1})
    record = learn(method, pixel_task(tiny)).info["hyperparameters"]
    assert dataclasses.asdict(method).items() <= record.items()
    assert record.keys() >= {"batch_size", "epochs", "patience", "augment", "adapter", "steps"}


def test_early_stopping_keeps_zero_shot_when_nothing_helps(tiny, pixel_task):
    task = pixel_task(tiny)
    ruinous = fit(task, adapter=False, lr=10.0, patience=1, epochs=6)
    assert ruinous.info["hyperparameters"]["best_step"] < ruinous.info["hyperparameters"]["steps"]
    history = ruinous.info["history"]
    best = max(h["val_accuracy"] for h in history)
    assert best >= history[0]["val_accuracy"]
    assert torch.isfinite(ruinous.logits(features(ruinous, task))).all()


def test_batch_norm_keeps_its_statistics(make_folder, pixel_task):
    backbone = load_backbone(f"local-dir:{make_folder(vision_cfg=RESNET)}", device="cpu")
    task = pixel_task(backbone)
    classifier = fit(task, adapter=False, lr=1e-3)
    assert loss(classifier, task) < loss(learn("zero-shot", task), task)
    before = backbone.model.visual
    after = tuned(backbone, classifier.tower_adapter).model.visual
    for (name, a), (_, b) in zip(before.named_buffers(), after.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    moved = zip(before.parameters(), after.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in moved)


@pytest.mark.parametrize("tower", ["visual", "text"])
def test_a_backbone_of_half_precision_trains_in_full(make_folder, pixel_task, tower):
    backbone = load_backbone(f"local-dir:{make_folder()}", device="cpu", dtype="bfloat16")
    task = pixel_task(backbone)
    classifier = fit(task, tower=tower, adapter=False)
    assert {p.dtype for p in backbone.model.parameters()} == {torch.bfloat16}
    if tower == "visual":
        values = list(classifier.tower_adapter.values)
        assert {v.dtype for v in values} == {torch.float32}
        assert any(not torch.equal(v, v.bfloat16().float()) for v in values)
    assert loss(classifier, task) < loss(learn("zero-shot", task), task)


def test_parameters():
    def count(**options):
        return make_method("fine-tune", options).parameters(VIT_B_16)

    adapter = 2 * 512 * 128
    assert count() == 86_192_640 + adapter
    assert count(tower="text", adapter=False) == 63_428_096
    assert count(tower="both") == 86_192_640 + 63_428_096 + adapter


@pytest.mark.parametrize(
    "wrong", [{"lr": 0}, {"batch_size": 0}, {"epochs": -1}, {"visual_ratio": 2}, {"patience": -1}]
)
def test_wrong_options(wrong):
    with pytest.raises(UsageError, match="Allowed"):
        make_method("fine-tune", wrong)
