"""The linear adapter against a plain loop of torch's own Adam, in double precision."""

import math

import numpy as np
import pytest
import torch
from learn import learn

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.linear_adapter import LinearAdapter
from clip_adapter.training.folds import Fold

D, C, SCALE = 7, 4, 30.0
FOLDERS = {"even": [3, 3, 3, 3], "uneven": [6, 1, 2, 3], "absent": [5, 0, 2, 1]}


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def task_of(counts):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(C).repeat_interleave(torch.tensor(counts))
    centres = torch.randn(C, D, generator=generator)
    x = 9 * (centres[labels] + torch.randn(len(labels), D, generator=generator))
    text = centres + torch.randn(C, D, generator=generator)
    return FewShotTask(FeatureSet(x, labels, list("abcd")), text, SCALE)


def plainly(x, labels, text, strength, steps, lr=3e-3):
    """M after ``steps`` of Adam on all pictures at once."""
    x, text = x.double(), unit(text.double())
    matrix = torch.nn.Parameter(torch.eye(D, dtype=torch.float64))
    optimizer = torch.optim.Adam([matrix], lr=lr, eps=1e-2)
    counts = torch.tensor([int((labels == c).sum()) for c in range(C)], dtype=torch.float64)
    warm, losses = 0.1 * steps, []
    for step in range(1, steps + 1):
        share = step / warm
        if step > warm:
            share = 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm + 1)))
        for group in optimizer.param_groups:
            group["lr"] = share * lr
        scores = SCALE * unit(x @ matrix) @ text.T
        # Each class as often as it has pictures (Menon et al. 2021): n_c e^s_c over their sum.
        weighed = counts * scores.exp()
        right = weighed[torch.arange(len(labels)), labels] / weighed.sum(1)
        loss = -right.log().mean() + strength * ((matrix - torch.eye(D)) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return matrix.detach(), losses


@pytest.mark.parametrize("folder", FOLDERS)
def test_trained_matrix(folder):
    task = task_of(FOLDERS[folder])
    counts = FOLDERS[folder]
    strength = sum(c > 0 for c in counts) / sum(counts)  # one over the mean number of shots
    want, losses = plainly(
        task.train.plain_view, task.train.labels, task.text_weights, strength, 40
    )
    classifier = learn(LinearAdapter(), task)
    got = classifier.head.image_map.matrix.detach()
    assert losses[-1] < 0.9 * losses[0]
    assert float((want - torch.eye(D)).abs().max()) > 0.02
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=1e-4)
    hyperparameters = classifier.info["hyperparameters"]
    assert hyperparameters["distance_penalty"] == pytest.approx(strength)
    assert hyperparameters["steps"] == 40
    probe = torch.randn(5, D, generator=torch.Generator().manual_seed(3)).double()
    scores = SCALE * unit(probe @ want) @ unit(task.text_weights.double()).T
    np.testing.assert_allclose(classifier.logits(probe).numpy(), scores.numpy(), atol=2e-2)


def test_given_options():
    task = task_of(FOLDERS["uneven"])
    method = LinearAdapter(distance_penalty=0.05, lr=1e-2, steps=15)
    data = (task.train.plain_view, task.train.labels, task.text_weights)
    want, _ = plainly(*data, 0.05, 15, lr=1e-2)
    got = learn(method, task).head.image_map.matrix.detach()
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=2e-4)


def test_every_fold_trains_on_its_own_pictures_alone():
    """Folds of equal size in one pass; the penalty is that of all shots."""
    task = task_of(FOLDERS["even"])
    rows = torch.arange(12)
    folds = [Fold(rows[rows % 3 != k], rows[rows % 3 == k]) for k in range(3)]
    got = list(LinearAdapter().held_out_logits(task, folds))
    for logits, fold in zip(got, folds, strict=True):
        x, y = task.train.plain_view[fold.fit], task.train.labels[fold.fit]
        matrix, _ = plainly(x, y, task.text_weights, 1 / 3, 40)
        mapped = task.train.plain_view[fold.held_out].double() @ matrix
        want = SCALE * unit(mapped) @ unit(task.text_weights.double()).T
        np.testing.assert_allclose(logits.numpy(), want.numpy(), atol=2e-2)
