"""The gradient loop: schedules, batches, and the independence of runs."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.nn import ResidualAdapter, normalize
from clip_adapter.task import FewShotTask
from clip_adapter.training.loop import (
    Optimizer,
    Schedule,
    batches,
    clip,
    learning_rate,
    log_prior,
    train_on,
)
from clip_adapter.training.recipes import official_schedule


@pytest.mark.parametrize(
    ("shots", "classes", "epochs"),
    [(1, 10, 50), (2, 10, 100), (4, 10, 100), (8, 10, 200), (16, 10, 200), (16, 1000, 50)],
)
def test_official_epochs(shots, classes, epochs):
    schedule = official_schedule(shots, classes)
    assert (schedule.epochs, schedule.lr, schedule.batch_size) == (epochs, 2e-3, 32)


def dassl_rates(epochs, warmup, lr, warmup_lr):
    """A rate per epoch, by torch's schedule stepped as Dassl does: from the end of the warm-up."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        yield cosine.get_last_lr()[0] if epoch >= warmup else warmup_lr
        optimizer.step()
        if epoch >= warmup:
            cosine.step()


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_the_rate_by_epochs_is_dassls(warmup):
    schedule = dataclasses.replace(official_schedule(1, 10), warmup=warmup)
    rates = [learning_rate(schedule, step, 150, 3) for step in range(150)]
    want = [r for r in dassl_rates(50, warmup, 2e-3, 1e-5) for _ in range(3)]
    assert rates == pytest.approx(want)
    assert rates[3 * warmup] == 2e-3  # the first epoch after the warm-up has the full rate


def test_step_recipe_warms_up_and_never_reaches_zero():
    schedule = Schedule("adamw", 1e-3, 0.0, 8, steps=100, warmup=0.1)
    rates = [learning_rate(schedule, step, 100, 1) for step in range(100)]
    assert rates[:10] == pytest.approx([1e-4 * k for k in range(1, 11)])
    assert all(a >= b > 0 for a, b in itertools.pairwise(rates[9:]))


def test_gradients_of_each_run_are_cut_as_torch_cuts_them():
    generator = torch.Generator().manual_seed(7)
    scales = torch.tensor([0.01, 1.0, 100.0])  # the first run is short enough
    shapes = [(3, 4, 5), (3, 2), (3,)]
    whole = [torch.randn(s, generator=generator) for s in shapes]
    whole = [x * scales.view(-1, *[1] * (x.ndim - 1)) for x in whole]
    got = [x.clone() for x in whole]
    clip(got, 1.0)
    for run in range(3):
        alone = [torch.nn.Parameter(torch.zeros_like(x[run])) for x in whole]
        for parameter, x in zip(alone, whole, strict=True):
            parameter.grad = x[run].clone()
        torch.nn.utils.clip_grad_norm_(alone, 1.0)
        for parameter, x in zip(alone, got, strict=True):
            torch.testing.assert_close(x[run], parameter.grad)
    assert torch.equal(got[0][0], whole[0][0])
    assert got[0][2].norm() < 1


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_steps_are_those_of_torch(kind, max_norm):
    generator = torch.Generator().manual_seed(8)
    start = torch.randn(1, 3, 4, generator=generator)
    module = torch.nn.ParameterDict({"x": start.clone()})
    schedule = Schedule(kind, 1e-2, 0.1, 8, steps=9, max_norm=max_norm)
    optimizer = Optimizer(module, schedule)
    alone = torch.nn.Parameter(start.clone())
    makers = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    momentum = {"momentum": 0.9} if kind == "sgd" else {}
    theirs = makers[kind]([alone], lr=1e-2, weight_decay=0.1, **momentum)
    for _ in range(9):
        gradient = torch.randn(1, 3, 4, generator=generator) * 0.1
        module["x"].grad, alone.grad = gradient.clone(), gradient.clone()
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([alone], max_norm)
        optimizer.step(1e-2)
        theirs.step()
    torch.testing.assert_close(module["x"], alone)


def test_batches_are_shuffled_epochs_of_own_rows_without_the_remainder():
    rows = [torch.arange(0, 10), torch.arange(20, 31)]
    stream = batches(rows, 4, [torch.Generator().manual_seed(0)] * len(rows))
    epoch = torch.cat([next(stream), next(stream)], 1)
    assert epoch.shape == (2, 8)
    for own, seen in zip(rows, epoch, strict=True):
        assert set(seen.tolist()) <= set(own.tolist())
    # As many batches as the longest has; the other goes round again within the epoch.
    assert len(epoch[1].unique()) == 8
    assert len(epoch[0].unique()) == 8


def test_a_run_with_fewer_rows_goes_round_again_and_the_longest_is_not_cut():
    rows = [torch.arange(3), torch.arange(10, 20)]
    stream = batches(rows, 5, [torch.Generator().manual_seed(0)] * len(rows))
    for _ in range(3):
        epoch = torch.cat([next(stream), next(stream)], 1)
        assert sorted(epoch[1].tolist()) == list(range(10, 20))
        times = torch.bincount(epoch[0], minlength=3)
        assert sorted(times.tolist()) == [3, 3, 4]  # three times round, and a part


def test_fewer_rows_than_a_batch_still_train():
    stream = batches([torch.arange(3)], 32, [torch.Generator().manual_seed(0)])
    assert sorted(next(stream)[0].tolist()) == [0, 1, 2]


def train(module, logits, features, labels, classes, rows, schedule, generator):
    """The loss of the last step."""
    shots = FeatureSet(features, labels, [f"{c}" for c in range(classes)])
    task = FewShotTask(shots, None)
    return train_on(task, module, rows, schedule, work=0, logits=logits, generator=generator)


def trained(ratios, rows, views=1, steps=40):
    generator = torch.Generator().manual_seed(5)
    data = torch.Generator().manual_seed(6)
    x = torch.randn(views, 24, 8, generator=data)
    y = torch.arange(24) % 3
    w = normalize(torch.randn(3, 8, generator=data))
    a = ResidualAdapter.build(8, 4, "paper", torch.tensor(ratios), (len(ratios),), generator)
    loss = train(
        a,
        lambda f: 10 * normalize(a(f)) @ w.T,
        x,
        y,
        3,
        rows,
        Schedule("adamw", 1e-2, 0.0, 24, steps=steps),
        generator,
    )
    return a, loss


def test_training_lowers_the_loss_and_runs_do_not_see_each_other():
    everything = torch.arange(24)
    alone, loss = trained([0.5], [everything])
    _, start = trained([0.5], [everything], steps=1)
    assert loss.item() < 0.7 * start.item()
    # Whole-set batches: only the order differs, so run 0 is the same beside another run.
    both, _ = trained([0.5, 0.9], [everything, everything])
    torch.testing.assert_close(both.bottleneck.up[0], alone.bottleneck.up[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(both.bottleneck.up[1], both.bottleneck.up[0], atol=1e-3)


def test_same_seed_same_weights_to_the_bit_and_views_are_drawn():
    rows = [torch.arange(24)]
    a, _ = trained([0.5], rows, views=3)
    b, _ = trained([0.5], rows, views=3)
    c, _ = trained([0.5], rows, views=1)
    assert torch.equal(a.bottleneck.up, b.bottleneck.up)
    assert not torch.equal(a.bottleneck.up, c.bottleneck.up)


def test_the_prior_is_the_logarithm_of_the_shares():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 3, 0, 3])
    rows = [torch.arange(9), torch.tensor([4, 6]), torch.tensor([0, 4, 6])]
    got = log_prior(labels, rows, 5)
    with np.errstate(divide="ignore"):
        want = np.log([[1, 2 / 5, 0, 2 / 5, 0], [0, 1, 0, 1, 0], [1, 1, 0, 1, 0]])
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)


def linear(labels, rows, schedule, classes=4):
    """Weights (R, C, D) of linear classifiers from a random start, and the features."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, len(labels), 3, generator=generator)
    start = torch.randn(len(rows), classes, 3, generator=generator)
    module = torch.nn.ParameterDict({"w": start.clone()})
    loss = train(
        module,
        lambda f: f @ module["w"].transpose(-1, -2),
        x,
        labels,
        classes,
        rows,
        schedule,
        torch.Generator().manual_seed(3),
    )
    return x[0].double().numpy(), start.double().numpy(), module["w"].detach(), loss


STEP = Schedule("sgd", 0.5, 0.0, 99, steps=1, constant=True)


def test_a_step_on_uneven_shots():
    """Against NumPy: the gradient of n_c exp(s_c) over its sum, for each run its own n."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 3, 0, 3])
    rows = [torch.arange(9), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0])]
    x, start, got, loss = linear(labels, rows, STEP)
    for run, own in enumerate(rows):
        f, y = x[own], labels[own].numpy()
        scores, counts = f @ start[run].T, np.bincount(y, minlength=4)
        p = counts * np.exp(scores)
        p /= p.sum(1, keepdims=True)
        want_loss = -np.log(p[np.arange(len(y)), y]).mean()
        p[np.arange(len(y)), y] -= 1
        want = start[run] - 0.5 * p.T @ f / len(y)
        assert np.abs(want - start[run]).max() > 0.05
        np.testing.assert_allclose(got[run].numpy(), want, atol=1e-6)
        assert loss[run].item() == pytest.approx(want_loss, rel=1e-5)


def test_a_class_without_pictures_does_not_move():
    labels = torch.tensor([0, 1, 3, 1, 0, 3, 1])
    everything = torch.arange(7)
    rows = [everything, everything[labels != 3]]
    for kind in ("sgd", "adamw"):
        _, start, got, _ = linear(labels, rows, Schedule(kind, 0.1, 0.0, 3, steps=20))
        moved = np.abs(got.double().numpy() - start).max(-1)
        assert (moved[0, [2]] == 0).all()
        assert (moved[1, [2, 3]] == 0).all()
        assert moved[0, [0, 1, 3]].min() > 0.01
        assert moved[1, [0, 1]].min() > 0.01


def test_even_shots_train_as_without_any_prior_to_the_bit(monkeypatch):
    labels = torch.arange(12) % 4
    schedule = Schedule("adamw", 0.05, 1e-2, 5, steps=30, warmup=0.1)
    _, _, ours, loss = linear(labels, [torch.arange(12), torch.arange(12).flip(0)], schedule)
    none = torch.zeros(2, 4)
    monkeypatch.setattr("clip_adapter.training.loop.log_prior", lambda *_: none)
    _, _, plain, plain_loss = linear(labels, [torch.arange(12), torch.arange(12).flip(0)], schedule)
    assert torch.equal(ours, plain)
    assert torch.equal(loss, plain_loss)


def test_a_frequent_class_is_no_more_likely_an_answer():
    """Pictures that say nothing: what is learnt is that they say nothing, not who is frequent."""
    labels = torch.tensor([0] * 24 + [1] * 3)
    module = torch.nn.ParameterDict({"b": torch.zeros(1, 1, 2)})
    schedule = Schedule("sgd", 0.5, 0.0, 99, steps=200, constant=True)
    train(
        module,
        lambda f: f[..., :1] * 0 + module["b"],
        torch.ones(1, 27, 2),
        labels,
        2,
        [torch.arange(27)],
        schedule,
        torch.Generator(),
    )
    assert module["b"].detach().abs().max() < 1e-4
