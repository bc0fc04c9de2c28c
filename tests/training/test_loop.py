"""The gradient loop: schedules, batches, and the independence of runs."""

import dataclasses
import itertools

import pytest
import torch

from clip_adapter.nn import ResidualAdapter, normalize
from clip_adapter.training.loop import (
    Optimizer,
    Recipe,
    batches,
    clip,
    learning_rate,
    official_recipe,
    train,
)


@pytest.mark.parametrize(
    ("shots", "classes", "epochs"),
    [(1, 10, 50), (2, 10, 100), (4, 10, 100), (8, 10, 200), (16, 10, 200), (16, 1000, 50)],
)
def test_official_epochs(shots, classes, epochs):
    recipe = official_recipe(shots, classes)
    assert (recipe.epochs, recipe.lr, recipe.batch_size) == (epochs, 2e-3, 32)


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
    recipe = dataclasses.replace(official_recipe(1, 10), warmup=warmup)
    rates = [learning_rate(recipe, step, 150, 3) for step in range(150)]
    want = [r for r in dassl_rates(50, warmup, 2e-3, 1e-5) for _ in range(3)]
    assert rates == pytest.approx(want)
    assert rates[3 * warmup] == 2e-3  # the first epoch after the warm-up has the full rate


def test_step_recipe_warms_up_and_never_reaches_zero():
    recipe = Recipe("adamw", 1e-3, 0.0, 8, steps=100, warmup=0.1)
    rates = [learning_rate(recipe, step, 100, 1) for step in range(100)]
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
    recipe = Recipe(kind, 1e-2, 0.1, 8, steps=9, max_norm=max_norm)
    optimizer = Optimizer(module, recipe)
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
    stream = batches(rows, 4, torch.Generator().manual_seed(0))
    epoch = torch.cat([next(stream), next(stream)], 1)
    assert epoch.shape == (2, 8)
    for own, seen in zip(rows, epoch, strict=True):
        assert len(seen.unique()) == 8
        assert set(seen.tolist()) <= set(own.tolist())


def test_fewer_rows_than_a_batch_still_train():
    stream = batches([torch.arange(3)], 32, torch.Generator().manual_seed(0))
    assert sorted(next(stream)[0].tolist()) == [0, 1, 2]


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
        rows,
        Recipe("adamw", 1e-2, 0.0, 24, steps=steps),
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
