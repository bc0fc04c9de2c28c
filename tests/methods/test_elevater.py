"""ELEVATER's heads: their starts, their choice of a rate, classes without pictures."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.methods.elevater import RATES
from clip_adapter.nn import normalize
from clip_adapter.task import VIT_B_16
from clip_adapter.towers import tuned
from clip_adapter.towers.weights import projection
from clip_adapter.training.folds import folds_of

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}


def make_task(per_class=5, classes=4, dim=16):
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(classes, dim, generator=generator))
    labels = torch.arange(classes).repeat(per_class)
    x = centres[labels] + 0.2 * torch.randn(len(labels), dim, generator=generator)
    return FewShotTask(FeatureSet(10 * x, labels, [str(i) for i in range(classes)]), centres)


@pytest.mark.parametrize("changes", [{}, {"vision_cfg": RESNET}])
def test_l_1p_starts_as_l_2p_does(changes, make_folder, pixel_task):
    backbone = load_backbone(f"local-dir:{make_folder(**changes)}", device="cpu")
    task = pixel_task(backbone)
    one = learn("l-1p", task, {"lr": 1e-12, "epochs": 1})
    pixels = task.pictures.batch(range(len(task.pictures)))
    trunk = tuned(backbone, one.tower_adapter).encode_images(pixels)
    # before any step: T P^T on normalised trunk features, and the bias of CLIP's projection
    matrix, bias = projection(backbone)
    normal = (trunk - trunk.mean(0)) / (trunk.var(0, unbiased=False) + 1e-5).sqrt()
    merged = normal @ matrix @ task.text_weights.T
    if bias is not None:
        merged = merged + task.text_weights @ bias
    torch.testing.assert_close(one.logits(trunk), merged, atol=1e-3, rtol=1e-3)


def test_l_1p_learns(pixel_task):
    task = pixel_task(load_backbone("demo", device="cpu"))
    classifier = learn("l-1p", task)
    pixels = task.pictures.batch(range(len(task.pictures)))
    logits = classifier.logits(tuned(task.backbone, classifier.tower_adapter).encode_images(pixels))
    assert (logits.argmax(1) == task.train.labels).all()
    assert classifier.info["held_out"]["pictures"] == len(task.train)


@pytest.mark.parametrize("name", ["r-2p", "l-2p"])
def test_the_rate_is_chosen_on_held_out_shots(name):
    classifier = learn(name, make_task())
    (selection,) = classifier.info["selection"]
    assert selection["candidates"] == list(RATES)
    assert selection["pictures"] == 20
    assert selection["loss"][RATES.index(selection["chosen"])] == min(selection["loss"])
    assert classifier.info["hyperparameters"]["lr"] == selection["chosen"]


def test_held_out_logits_are_those_of_the_head_that_did_not_see_them():
    task = make_task()
    kept = torch.nonzero(task.train.labels != 2).flatten()
    for name, part in (("r-2p", task.train.subset(kept)), ("l-2p", task.train)):
        one = FewShotTask(part, task.text_weights)
        fitted = make_method(name).fit(one)
        rate, held = fitted.hyperparameters["lr"], fitted.held_out
        for fold in folds_of(part, one.seed, text=name == "l-2p"):
            options = {"lr": rate, "batch_size": len(fold.fit)}
            others = FewShotTask(part.subset(fold.fit), task.text_weights)
            alone = learn(name, others, options).logits(part.plain_view[fold.held_out])
            places = [held.rows.tolist().index(row) for row in fold.held_out.tolist()]
            torch.testing.assert_close(held.logits[places], alone, atol=1e-3, rtol=1e-3)
        if name == "r-2p":
            assert (held.logits[:, 2] == -1e9).all()


@pytest.mark.parametrize("name", ["l-2p", "r-2p"])
def test_held_out_shots_are_scored_on_the_plain_view(name):
    task = make_task()
    views = torch.stack([task.train.plain_view, task.train.plain_view + 0.1])

    def held(plain):
        train = dataclasses.replace(task.train, features=views, plain=plain)
        short = make_method(name, {"epochs": 5})
        return short.fit(dataclasses.replace(task, train=train)).held_out.logits

    assert torch.equal(held(None), held(views[0]))
    assert not torch.allclose(held(None), held(task.train.plain_view.flip(0)), atol=0.1)


def test_l_1p_scores_on_the_plain_view(pixel_task, monkeypatch):
    task = pixel_task(load_backbone("demo", device="cpu"))
    train = dataclasses.replace(task.train, features=task.train.features.repeat(2, 1, 1))
    asked = []
    batch = type(task.pictures).batch

    def spy(self, rows, view=None):
        asked.append(view)
        return batch(self, rows, view)

    monkeypatch.setattr(type(task.pictures), "batch", spy)
    learn("l-1p", dataclasses.replace(task, train=train), {"epochs": 1})
    assert sorted(asked, key=str) == [0, 1, None]


def test_one_shot_takes_the_documented_rate():
    task = make_task(per_class=1)
    for name, rate in (("r-2p", 1e-2), ("l-2p", 1e-3)):
        classifier = learn(name, task)
        assert classifier.info["hyperparameters"]["lr"] == rate
        assert "could be held out" in classifier.info["selection"][0]["rule"]


def test_a_class_without_pictures_can_be_found_by_its_text_alone():
    task = make_task()
    kept = torch.nonzero(task.train.labels != 2).flatten()
    missing = FewShotTask(task.train.subset(kept), task.text_weights)
    of_class = task.train.plain_view[task.train.labels == 2]
    with_text = learn("l-2p", missing, {"lr": 1e-3}).logits(of_class)
    assert (with_text.argmax(1) == 2).all()
    without = learn("r-2p", missing).logits(of_class)
    assert (without[:, 2] < -1e8).all()


def test_pictures_of_one_class_tell_a_random_head_nothing():
    task = make_task()
    alone = torch.nonzero(task.train.labels == 2).flatten()
    one = FewShotTask(task.train.subset(alone), task.text_weights)
    with pytest.raises(DataError, match=r"r-2p needs pictures of two classes; all 5 are of '2'"):
        learn("r-2p", one)
    # A head from text knows the other classes by it.
    assert torch.isfinite(learn("l-2p", one, {"lr": 1e-3}).logits(task.train)).all()


def test_the_length_of_an_epoch():
    method = make_method("l-2p")
    assert method._epochs(100) == 50
    assert method._epochs(4000) == 500 // 62
    assert make_method("l-2p", {"epochs": 3})._epochs(4000) == 3


def test_parameters():
    assert make_method("r-2p").parameters(VIT_B_16) == 1000 * 513
    assert make_method("l-1p").parameters(VIT_B_16) == 1000 * 769


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"weight_decay": -1}, {"epochs": 0}])
def test_wrong_options(wrong):
    with pytest.raises(UsageError, match="Allowed"):
        make_method("l-2p", wrong)
