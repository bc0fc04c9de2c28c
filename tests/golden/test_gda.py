"""GDA against NumPy in double precision, and against scikit-learn where the two coincide."""

import numpy as np
import pytest
import torch
from learn import learn
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.methods.gda import GDA, Gaussians
from clip_adapter.training.folds import stratified_folds

C, D, K, SCALE = 4, 6, 5, 20.0


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def shots():
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(C).repeat_interleave(K)
    centres = torch.randn(C, D, generator=generator)
    x = 9 * (centres[labels] + torch.randn(C * K, D, generator=generator))
    return x, labels, torch.randn(C, D, generator=generator)


def by_hand(x, y, ridge=1.0):
    """W, b and the precision, literally as in the paper."""
    f = unit(x.double().numpy())
    means = np.stack([f[y == c].mean(0) for c in range(C)])
    centred = f - means[y]
    n = len(f)
    covariance = np.cov(centred.T)  # divides by n - 1
    precision = D * np.linalg.inv((n - 1) * covariance + ridge * np.trace(covariance) * np.eye(D))
    w = means @ precision
    b = np.log(1 / C) - 0.5 * np.einsum("cd,de,ce->c", means, precision, means)
    return w, b


@pytest.mark.parametrize("ridge", [1.0, 4.0])
def test_closed_form(shots, ridge):
    x, y, _ = shots
    w, b = Gaussians.fit(x[None], y, C).weights(ridge)
    want_w, want_b = by_hand(x, y.numpy(), ridge)
    np.testing.assert_allclose(w.numpy(), want_w, rtol=1e-5)
    np.testing.assert_allclose(b.numpy(), want_b, rtol=1e-5)


def test_logits_are_zero_shot_plus_the_gaussian_scores(shots):
    x, y, text = shots
    task = FewShotTask(FeatureSet(x, y, list("abcd")), text, SCALE)
    classifier = learn(GDA(gaussian_weight=0.3), task)
    probe = torch.randn(7, D, generator=torch.Generator().manual_seed(5))
    f = unit(probe.double().numpy())
    w, b = by_hand(x, y.numpy())
    want = SCALE * f @ unit(text.double().numpy()).T + 0.3 * (f @ w.T + b)
    np.testing.assert_allclose(classifier.logits(probe).numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ridge", [0.2, 1.0, 5.0])
def test_it_is_scikit_learns_discriminant_with_the_same_shrinkage(shots, ridge):
    x, y, _ = shots
    n = len(x)
    share = ridge * D / (ridge * D + n - 1)  # of the identity, in Ledoit and Wolf's form
    f = unit(x.double().numpy())
    theirs = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=share, priors=np.full(C, 1 / C)
    ).fit(f, y.numpy())
    w, b = Gaussians.fit(x[None], y, C).weights(ridge)
    scale = n / (D * (1 - share))  # the published precision leaves the scale to the weight a
    ours = scale * (f @ w.numpy().T + b.numpy() + np.log(C)) - np.log(C)
    np.testing.assert_allclose(ours, theirs.decision_function(f), rtol=1e-4, atol=1e-4)


def test_one_picture_per_class_takes_the_spread_of_the_class_means(shots):
    x, _, _ = shots
    few, y = x[::K], torch.arange(C)
    gaussians = Gaussians.fit(few[None], y, C)
    f = unit(few.double().numpy())
    assert not gaussians.within
    np.testing.assert_allclose(
        gaussians.scatter.numpy(), (C - 1) * np.cov(f.T), rtol=1e-5, atol=1e-7
    )


def test_spread_is_the_ratio_of_the_traces(shots):
    x, y, _ = shots
    gaussians = Gaussians.fit(x[None], y, C)
    f = unit(x.double().numpy())
    centred = f - np.stack([f[y.numpy() == c].mean(0) for c in range(C)])[y.numpy()]
    scatter = centred.T @ centred
    n = len(x)
    of_p = (scatter + np.trace(scatter) / (n - 1) * np.eye(D)) / D  # P is its inverse
    assert gaussians.spread == pytest.approx(np.trace(of_p) / np.trace(scatter / (n - C)), rel=1e-5)


def test_a_class_without_pictures_has_the_mean_of_all(shots):
    x, y, _ = shots
    some = y != 1
    gaussians = Gaussians.fit(x[None, some], y[some], C)
    want = unit(x[some].double().numpy()).mean(0)
    np.testing.assert_allclose(gaussians.means[1].numpy(), want, rtol=1e-5)
    assert gaussians.present.tolist() == [True, False, True, True]


def test_means_of_classes_with_fewer_pictures_are_nearer_to_the_middle(shots):
    x, y, _ = shots
    some = torch.tensor([0, 1, 2, 3, 4, 5, 6, 10, 15, 16])  # 5, 2, 1 and 2 of the classes
    gaussians = Gaussians.fit(x[None, some], y[some], C)
    f, labels = unit(x[some].double().numpy()), y[some].numpy()
    means = np.stack([f[labels == c].mean(0) for c in range(C)])
    counts = np.bincount(labels)
    trust = counts / (counts + 1) / (5 / 6)
    want = means.mean(0) + trust[:, None] * (means - means.mean(0))
    np.testing.assert_allclose(gaussians.means.numpy(), want, rtol=1e-5, atol=1e-7)
    centred = f - means[labels]  # the spread within classes is around their own means
    np.testing.assert_allclose(gaussians.scatter.numpy(), centred.T @ centred, rtol=1e-4, atol=1e-6)


def test_a_weight_is_carried_to_the_folds_in_proportion_to_the_spread(shots):
    x, y, text = shots
    task = FewShotTask(FeatureSet(x, y, list("abcd")), text, SCALE)
    held = GDA(gaussian_weight=0.3).fit(task).held_out
    assert held is not None
    spread = Gaussians.fit(x[None], y, C).spread
    parts = []
    for fold in stratified_folds(y, task.seed):
        gaussians = Gaussians.fit(x[None, fold.fit], y[fold.fit], C)
        w, b = gaussians.weights()
        f = torch.nn.functional.normalize(x[fold.held_out], dim=-1)
        zero_shot = SCALE * f @ torch.nn.functional.normalize(text, dim=-1).T
        parts.append(zero_shot + 0.3 * gaussians.spread / spread * (f @ w.T + b))
    torch.testing.assert_close(held.logits, torch.cat(parts), rtol=1e-4, atol=1e-4)
