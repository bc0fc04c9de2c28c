"""Which training a checkpoint is of, and that it is never the answer to another one."""

import dataclasses
import json
import logging
import signal
import threading

import pytest
import torch
from pixel_training import SCHEDULE, SIZE, D, Some
from torch import nn

from clip_adapter.errors import CancelledError, DataError, UsageError
from clip_adapter.finetuning import loop, train
from clip_adapter.finetuning.train import PixelModel, train_pixels
from clip_adapter.options import Compute
from clip_adapter.reporting import listening


def other_train(task, **changes):
    return dataclasses.replace(task, train=dataclasses.replace(task.train, **changes))


def other_pictures(task, **changes):
    return dataclasses.replace(task, pictures=dataclasses.replace(task.pictures, **changes))


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
    "text": lambda t: dataclasses.replace(t, text_weights=nudged(t.text_weights)),
    "no text": lambda t: dataclasses.replace(t, text_weights=None),
    "templates": lambda t: dataclasses.replace(t, templates=("a {}.",)),
    "logit scale": lambda t: dataclasses.replace(t, logit_scale=21.0),
    "preprocess": lambda t: other_pictures(t, preprocess="coop"),
    "view seed": lambda t: other_pictures(t, seed=1),
    "preprocessing": lambda t: other_pictures(
        t, inputs=dataclasses.replace(t.pictures.inputs, interpolation="bilinear")
    ),
    "contents": lambda t: other_pictures(t, digests=t.pictures.digests[::-1]),
}


def go(task, compute=None, schedule=SCHEDULE, method=None, text=None, progress=None, cancel=None):
    """(trained numbers, the record of the training); ``progress`` gets the steps done."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * (SIZE // 4) ** 2, D)]
    model = PixelModel(nn.Sequential(*layers), text, 20.0)
    if compute is not None:
        task = dataclasses.replace(task, compute=compute)
    with listening(progress and (lambda stage: progress(stage.done)), cancel):
        trained = train_pixels(model, task, schedule, method or Some())
    return torch.cat([p.detach().flatten() for p in model.parameters()]), trained


class Stop(Exception):  # noqa: N818
    """Stands in for a user's Ctrl-C."""


@pytest.mark.parametrize("what", ["option", "schedule", *OTHERS])
def test_a_checkpoint_of_another_training_is_no_answer(task, tmp_path, monkeypatch, what):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0.0)
    compute, text = Compute(checkpoint=tmp_path / "state"), task.text_weights

    def interrupt(done):
        raise Stop

    with pytest.raises(Stop):
        go(task, compute, text=text, progress=interrupt)
    other = {"task": task, "text": text}
    if what == "option":
        other["method"] = Some(strength=2.0)
    elif what == "schedule":
        other["schedule"] = dataclasses.replace(SCHEDULE, lr=1e-2)
    else:
        other["task"] = OTHERS[what](task)
    with pytest.raises(UsageError, match="another training") as error:
        go(**other, compute=compute)
    assert "training.pt" in str(error.value)
    go(task, compute, text=text)  # its own goes on
    # What is finished may be replaced, and is never given for another one.
    steps = []
    got, trained = go(**other, compute=compute, progress=steps.append)
    assert steps == list(range(1, 7))
    want, expected = go(**other)
    assert torch.equal(got, want)
    assert trained == expected


def test_what_a_checkpoint_gives_is_logged(task, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="clip_adapter")
    folder = tmp_path / "state"
    text, compute = task.text_weights, Compute(checkpoint=folder)

    def press(done):
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go(task, compute, text=text, progress=press)
    assert caplog.messages == []  # nothing was there
    go(task, compute, text=text)
    go(task, compute, text=text)
    go(task, compute, text=text, method=Some(strength=2.0))
    assert caplog.messages == [
        f"The training in {folder} goes on from step 3 of 6.",
        f"The training in {folder} was finished: its result is taken.",
        f"{folder} holds the result of another training: it is replaced by this one's.",
    ]


def test_a_cancelled_training_is_kept(task, tmp_path):
    text, compute = task.text_weights, Compute(checkpoint=tmp_path / "state")
    cancel = threading.Event()

    def stop(done):
        if done == 2:
            cancel.set()

    with pytest.raises(CancelledError):
        go(task, compute, text=text, progress=stop, cancel=cancel)
    steps = []
    got, _ = go(task, compute, text=text, progress=steps.append)
    assert steps == [4, 5, 6]
    assert torch.equal(got, go(task, text=text)[0])


def test_a_result_of_another_version_is_no_answer(task, tmp_path, monkeypatch):
    text, compute = task.text_weights, Compute(checkpoint=tmp_path / "state")
    go(task, compute, text=text)
    monkeypatch.setattr(train, "__version__", "0.0.1")
    steps = []
    go(task, compute, text=text, progress=steps.append)
    assert steps == list(range(1, 7))


def test_what_decides_the_pixels_is_in_their_identity(task):
    same = other_pictures(task).pictures.identity()
    assert same == task.pictures.identity()
    json.dumps(same)


def test_a_result_of_another_precision_is_no_answer(task, tmp_path):
    text, folder = task.text_weights, tmp_path / "state"
    go(task, Compute(checkpoint=folder, precision="bf16-mixed"), text=text)
    got, _ = go(task, Compute(checkpoint=folder), text=text)
    assert torch.equal(got, go(task, text=text)[0])


def test_ctrl_c_keeps_the_training_at_the_end_of_a_step(task, tmp_path):
    text, compute = task.text_weights, Compute(checkpoint=tmp_path / "state")
    before = signal.getsignal(signal.SIGINT)

    def press(done):
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"step 3 of 6 .*the same command goes on"):
        go(task, compute, text=text, progress=press)
    assert signal.getsignal(signal.SIGINT) is before
    steps = []
    got, _ = go(task, compute, text=text, progress=steps.append)
    assert steps == [4, 5, 6]
    assert torch.equal(got, go(task, text=text)[0])


def test_ctrl_c_without_a_checkpoint_stops_at_once(task):
    def press(done):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    # A shell that starts the tests in the background makes them deaf to it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            go(task, text=task.text_weights, progress=press)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("content", [b"hi\n", b"", b"\x80\x04K\x01."])
def test_a_damaged_checkpoint_says_what_to_do(task, tmp_path, content):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "training.pt").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        go(task, Compute(checkpoint=folder), text=task.text_weights)


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(task, tmp_path, monkeypatch):
    (tmp_path / "training.pt").write_bytes(b"of another user")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(DataError, match=r"training\.pt may not be read \(permission\)") as caught:
        go(task, Compute(checkpoint=tmp_path), text=task.text_weights)
    assert "Remove it" not in str(caught.value)
