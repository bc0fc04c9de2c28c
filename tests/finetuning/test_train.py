"""The loop on pixels: gradients, bits, checkpoints, early stopping, and that it is quiet."""

import dataclasses
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from pixel_training import SCHEDULE, SIZE, D, Dying, Some
from torch import nn

from clip_adapter.errors import (
    BackboneError,
    CancelledError,
    DataError,
    UsageError,
)
from clip_adapter.features.pixels import Pictures
from clip_adapter.finetuning import loop
from clip_adapter.finetuning.job import PixelSchedule
from clip_adapter.finetuning.train import PixelModel, train_pixels
from clip_adapter.options import Compute
from clip_adapter.reporting import listening
from clip_adapter.training.folds import folds_of


def make_model(task, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * (SIZE // 4) ** 2, D)]
    if dropout:
        layers.insert(2, nn.Dropout(dropout))
    return PixelModel(nn.Sequential(*layers), task.text_weights, task.logit_scale)


def go(task, schedule=SCHEDULE, compute=None, model=None, method=None, progress=None, dropout=0.0):
    model = model or make_model(task, dropout)
    if compute is not None:
        task = dataclasses.replace(task, compute=compute)
    with listening(progress):
        trained = train_pixels(model, task, schedule, method or Some())
    return model, trained


def numbers(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def accuracy(model, task, rows):
    with torch.no_grad():
        hits = model(task.pictures.batch(rows)).argmax(1) == task.train.labels[rows]
    return 100 * hits.float().mean().item()


def test_one_step_is_the_gradient_of_the_whole_batch(task):
    everything = PixelSchedule("sgd", 0.1, 0.02, 16, steps=1, augment=False)
    expected = make_model(task)
    logits = expected(task.pictures.batch(range(16)))
    nn.functional.cross_entropy(logits, task.train.labels).backward()
    # the rate of the only step of a cosine without warm-up
    rate = 0.1 * 0.5 * (1 + np.cos(np.pi * 1 / 2))
    want = torch.cat([(p - rate * (p.grad + 0.02 * p)).flatten() for p in expected.parameters()])
    assert (want - numbers(make_model(task))).abs().max() > 1e-4
    for parts in (1, 3, 16, 40):
        got, _ = go(task, everything, Compute(accumulate=parts))
        torch.testing.assert_close(numbers(got), want.detach(), atol=1e-6, rtol=1e-5)


def test_it_learns_and_ends_in_eval_mode(task):
    model, trained = go(task, dataclasses.replace(SCHEDULE, epochs=20, augment=False), dropout=0.1)
    assert trained.steps == trained.best_step == 20 * (16 // 6)
    assert trained.val_accuracy is None
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert not any(m.training for m in model.modules())


def test_the_seed_alone_decides(task):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, _ = go(task, dropout=0.5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, _ = go(task, dropout=0.5)
    assert torch.equal(numbers(first), numbers(second))
    other, _ = go(dataclasses.replace(task, seed=4), dropout=0.5)
    assert not torch.equal(numbers(first), numbers(other))


def test_views_are_the_epochs(task, monkeypatch):
    seen = []
    batch = Pictures.batch

    def spy(self, rows, view=None):
        seen.append((view, torch.as_tensor(rows).tolist()))
        return batch(self, rows, view)

    monkeypatch.setattr(Pictures, "batch", spy)
    go(task)
    assert [v for v, _ in seen] == [0, 0, 1, 1, 2, 2]
    for epoch in range(3):
        rows = [i for v, part in seen if v == epoch for i in part]
        assert len(set(rows)) == len(rows) == 12
    seen.clear()
    go(task, dataclasses.replace(SCHEDULE, augment=False))
    assert {v for v, _ in seen} == {None}
    # each plain view is decoded once
    assert len({i for _, part in seen for i in part}) == sum(len(part) for _, part in seen)


class Stop(Exception):  # noqa: N818
    """Stands in for a user's Ctrl-C."""


@pytest.mark.parametrize("stop", [1, 4, 5])
@pytest.mark.parametrize("patience", [None, 9])
def test_resumed_is_uninterrupted_to_the_bit(task, tmp_path, monkeypatch, stop, patience):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0.0)
    schedule = dataclasses.replace(SCHEDULE, patience=patience)
    whole, expected = go(task, schedule, dropout=0.5)

    def interrupt(stage):
        if stage.done == stop:
            raise Stop

    compute = Compute(checkpoint=tmp_path / "state")
    with pytest.raises(Stop):
        go(task, schedule, compute, dropout=0.5, progress=interrupt)
    steps = []
    model, trained = go(
        task, schedule, compute, dropout=0.5, progress=lambda stage: steps.append(stage.done)
    )
    assert steps[0] == stop + 1
    assert torch.equal(numbers(model), numbers(whole))
    assert trained == expected
    # finished: there at once
    steps.clear()
    model, trained = go(
        task, schedule, compute, dropout=0.5, progress=lambda stage: steps.append(stage.done)
    )
    assert steps == []
    assert torch.equal(numbers(model), numbers(whole))
    assert trained == expected
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["training.pt"]


def interrupted(task, folder, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0.0)

    def interrupt(stage):
        raise Stop

    compute = Compute(checkpoint=folder)
    with pytest.raises(Stop):
        go(task, compute=compute, progress=interrupt)
    return compute


def test_a_damaged_checkpoint(task, tmp_path, monkeypatch):
    compute = interrupted(task, tmp_path / "state", monkeypatch)
    path = tmp_path / "state" / "training.pt"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="Remove it"):
        go(task, compute=compute)


def test_early_stopping_restores_the_best(task):
    # far too fast: it gets worse at once, or at the end
    schedule = PixelSchedule("sgd", 300.0, 0.0, 4, epochs=30, augment=False, patience=2)
    model = make_model(task)
    at = {0: numbers(model).clone()}

    def remember(stage):
        at[stage.done] = numbers(model).clone()

    _, trained = go(task, schedule, model=model, progress=remember)
    assert trained.steps < 30 * 3
    assert torch.equal(numbers(model), at[trained.best_step])
    assert not torch.equal(numbers(model), at[trained.steps])
    # stopped two epochs after the best one
    assert trained.steps == trained.best_step + 2 * 3
    seen = {h["step"]: h for h in trained.history}
    assert 0 in seen  # the start is a candidate
    assert trained.val_accuracy == max(h["val_accuracy"] for h in trained.history)
    assert seen[trained.best_step]["val_accuracy"] == trained.val_accuracy
    held_out = held_out_of(task)
    assert accuracy(model, task, held_out) == pytest.approx(trained.val_accuracy)


def held_out_of(task):
    return folds_of(task.train, task.seed)[0].held_out


def test_copies_are_not_held_out_of_their_own_training(task):
    digests = [f"{label}" for label in task.train.labels.tolist()]  # all of a class are one
    train = dataclasses.replace(task.train, digests=digests)
    copies = dataclasses.replace(task, train=train)
    _, trained = go(copies, dataclasses.replace(SCHEDULE, patience=9))
    assert trained.val_accuracy is None


def test_one_shot_holds_nothing_out(task):
    rows = [0, 1, 2, 3]
    one = dataclasses.replace(task, train=task.train.subset(rows))
    _, trained = go(one, dataclasses.replace(SCHEDULE, patience=1))
    assert trained.val_accuracy is None
    assert trained.steps == trained.best_step == 3


def test_rates_by_name_and_cut_gradients(task):
    start = make_model(task)
    schedule = dataclasses.replace(
        SCHEDULE, optimizer="sgd", lr=1.0, rates=(("visual.2.bias", 0.0),)
    )
    model, _ = go(task, schedule)
    assert torch.equal(model.visual[2].bias, start.visual[2].bias)
    assert not torch.equal(model.visual[2].weight, start.visual[2].weight)
    short = dataclasses.replace(schedule, weight_decay=0.0, max_norm=1e-3, rates=(), steps=1)
    model, _ = go(task, dataclasses.replace(short, epochs=None))
    assert 0 < (numbers(model) - numbers(start)).norm() <= 1e-3 * (1 + 1e-3)


def test_bf16_is_near_and_fp16_needs_cuda(task):
    full, _ = go(task)
    half, _ = go(task, compute=Compute(precision="bf16-mixed"))
    assert not torch.equal(numbers(full), numbers(half))
    torch.testing.assert_close(numbers(full), numbers(half), atol=0.02, rtol=0.1)
    assert half.visual[2].weight.dtype == torch.float32
    with pytest.raises(UsageError, match="bf16-mixed"):
        go(task, compute=Compute(precision="16-mixed"))


def test_progress_with_loss_and_accuracy(task):
    stages = []
    go(task, dataclasses.replace(SCHEDULE, patience=5), progress=stages.append)
    assert [(stage.done, stage.total) for stage in stages] == [(i, 6) for i in range(1, 7)]
    words = r"loss \d+\.\d{3}, held out [\d.]+ % right"
    assert all(re.fullmatch(words, stage.note) for stage in stages)


def test_out_of_memory_says_what_to_do(task):
    class Full(nn.Linear):
        def forward(self, x):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    model = PixelModel(nn.Sequential(nn.Flatten(), Full(3 * SIZE**2, D)), task.text_weights, 1.0)
    with pytest.raises(BackboneError, match="accumulate"):
        go(task, model=model)


def test_it_is_quiet(task, capfd):
    go(task)
    assert capfd.readouterr() == ("", "")


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from several import task, model
from clip_adapter.methods.linear_probe import LinearProbe
from clip_adapter.options import Compute
from clip_adapter.finetuning.job import PixelSchedule
from clip_adapter.finetuning.train import train_pixels
from clip_adapter.reporting import listening
import torch
seen = []
schedule = PixelSchedule("adamw", 3e-3, 0.01, 7, epochs=3, patience=5)
with listening(lambda stage: seen.append(stage.done)):
    train_pixels(model, task, schedule, LinearProbe())
assert seen == [1, 2, 3], seen
torch.save(model.state_dict(), {out!r})
"""


@pytest.mark.slow
def test_two_processes_from_a_plain_script(task, tmp_path):
    """No guard for the main module, no launcher; the parameters come back to the caller."""
    import pickle

    schedule = PixelSchedule("adamw", 3e-3, 0.01, 7, epochs=3, patience=5)
    one, _ = go(task, schedule)
    (tmp_path / "task.pickle").write_bytes(
        pickle.dumps((dataclasses.replace(task, compute=Compute(devices=2)), make_model(task)))
    )
    (tmp_path / "several.py").write_text(
        "import pickle, pathlib\n"
        f"data = pathlib.Path({str(tmp_path / 'task.pickle')!r}).read_bytes()\n"
        "task, model = pickle.loads(data)\n"
    )
    script = tmp_path / "script.py"
    out = tmp_path / "out.pt"
    script.write_text(SCRIPT.format(folder=str(tmp_path), out=str(out)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    both = make_model(task)
    both.load_state_dict(torch.load(out, weights_only=True))
    torch.testing.assert_close(numbers(both), numbers(one), atol=1e-5, rtol=1e-4)
    assert not torch.equal(numbers(both), numbers(make_model(task)))


@pytest.mark.slow
def test_two_processes_stop_with_the_error_of_one(task, tmp_path):
    (tmp_path / "5.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"5\.png"):
        go(task, compute=Compute(devices=2))


@pytest.mark.slow
def test_two_processes_stop_where_one_dies(task):
    model = PixelModel(nn.Sequential(nn.Flatten(), Dying(3 * SIZE**2, D)), task.text_weights, 1.0)
    with pytest.raises(RuntimeError, match=r"ended early\.\n(.*\n)*last words"):
        go(task, compute=Compute(devices=2), model=model)


@pytest.mark.slow
def test_two_processes_keep_a_cancelled_training(task, tmp_path):
    schedule, cancel = dataclasses.replace(SCHEDULE, epochs=300), threading.Event()
    both = Compute(devices=2, checkpoint=tmp_path / "state")
    with pytest.raises(CancelledError), listening(cancel=cancel):
        go(task, schedule, both, progress=lambda stage: cancel.set())
    steps = []
    resumed, _ = go(task, schedule, both, progress=lambda stage: steps.append(stage.done))
    assert 1 < steps[0] <= steps[-1] == 600
    whole, _ = go(task, schedule, Compute(devices=2))
    assert torch.equal(numbers(resumed), numbers(whole))
