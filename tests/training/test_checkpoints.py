"""Which training a checkpoint is of, and that it is never the answer to another one."""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from clip_adapter.errors import UsageError
from clip_adapter.features.pixels import Pictures
from clip_adapter.methods import Method
from clip_adapter.training import pixel_loop
from clip_adapter.training.compute import Compute
from clip_adapter.training.pixels import PixelModel, PixelRecipe, train_pixels

SIZE, D = 16, 6  # of the fixture's pictures and features
RECIPE = PixelRecipe("adamw", 3e-3, 0.01, 6, epochs=3)


@dataclass
class Some(Method):
    """A stand-in for a method."""

    name: ClassVar[str] = "some"

    strength: float = 1.0

    def fit(self, task, progress=None):
        raise NotImplementedError


def other_train(task, **changes):
    return dataclasses.replace(task, train=dataclasses.replace(task.train, **changes))


def other_pictures(task, **changes):
    was = task.pictures
    given = {
        "samples": was._samples,
        "digests": was._digests,
        "preprocess": was._plain.preprocess,
    }
    return dataclasses.replace(task, pictures=Pictures(**(given | changes)))


def nudged(weights):
    weights = weights.clone()
    weights[0, 0] += 1e-6
    return weights


OTHERS = {
    "seed": lambda t: dataclasses.replace(t, seed=9),
    "digests": lambda t: other_train(t, digests=["ff", *t.train.digests[1:]]),
    "labels": lambda t: other_train(t, labels=t.train.labels.flip(0)),
    "views": lambda t: other_train(t, features=t.train.features.repeat(2, 1, 1)),
    "feature norm": lambda t: other_train(t, feature_norm="unit"),
    "text": lambda t: dataclasses.replace(t, classifier_weights=nudged(t.classifier_weights)),
    "no text": lambda t: dataclasses.replace(t, classifier_weights=None),
    "templates": lambda t: dataclasses.replace(t, templates=("a {}.",)),
    "logit scale": lambda t: dataclasses.replace(t, logit_scale=21.0),
    "style": lambda t: other_pictures(t, style="coop"),
    "view seed": lambda t: other_pictures(t, seed=1),
    "preprocessing": lambda t: other_pictures(
        t, preprocess=dataclasses.replace(t.pictures._plain.preprocess, interpolation="bilinear")
    ),
    "contents": lambda t: other_pictures(t, digests=t.pictures._digests[::-1]),
}


def go(task, compute=None, recipe=RECIPE, method=None, text=None, progress=None):
    """(trained numbers, what was told of the training)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * (SIZE // 4) ** 2, D)]
    model = PixelModel(nn.Sequential(*layers), text, 20.0)
    if compute is not None:
        task = dataclasses.replace(task, compute=compute)
    trained = train_pixels(model, task, recipe, method or Some(), progress)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), trained


class Stop(Exception):  # noqa: N818
    """Stands in for a user's Ctrl-C."""


@pytest.mark.parametrize("what", ["option", "recipe", *OTHERS])
def test_a_checkpoint_of_another_training_is_no_answer(task, tmp_path, monkeypatch, what):
    monkeypatch.setattr(pixel_loop, "CHECKPOINT_EVERY", 0.0)
    compute, text = Compute(checkpoint=tmp_path / "state"), task.classifier_weights

    def interrupt(done, total):
        raise Stop

    with pytest.raises(Stop):
        go(task, compute, text=text, progress=interrupt)
    other = {"task": task, "text": text}
    if what == "option":
        other["method"] = Some(strength=2.0)
    elif what == "recipe":
        other["recipe"] = dataclasses.replace(RECIPE, lr=1e-2)
    else:
        other["task"] = OTHERS[what](task)
    with pytest.raises(UsageError, match="another training") as error:
        go(**other, compute=compute)
    assert "training.pt" in str(error.value)
    go(task, compute, text=text)  # its own goes on
    # What is finished may be replaced, and is never given for another one.
    steps = []
    got, trained = go(**other, compute=compute, progress=lambda done, _: steps.append(done))
    assert steps == list(range(1, 7))
    want, expected = go(**other)
    assert torch.equal(got, want)
    assert trained == expected


def test_what_decides_the_pixels_is_in_their_identity(task):
    same = other_pictures(task).pictures.identity()
    assert same == task.pictures.identity()
    json.dumps(same)
