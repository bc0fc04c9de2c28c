"""The cache against NumPy in double precision, whatever its values and however many runs."""

import numpy as np
import pytest
import torch

from clip_adapter.nn import Cache
from clip_adapter.nn.cache import affinity, class_sums, nearness

N, B, C, D = 9, 4, 3, 6


def parts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys = 5 * torch.randn(N, D, generator=generator)
    features = 10 * torch.randn(B, D, generator=generator)
    labels = torch.randint(C, (N,), generator=generator)
    return keys, features, labels


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def wanted(features, keys, values, weight, sharpness):
    f, k, v = (t.detach().double().numpy() for t in (features, keys, values))
    return weight * np.exp(-sharpness * (1 - unit(f) @ unit(k).T)) @ v


@pytest.mark.parametrize("kind", ["one-hot", "weighted", "left out", "mixed"])
def test_scores_are_the_formula_for_any_values(kind):
    keys, features, labels = parts()
    values = torch.nn.functional.one_hot(labels, C).float()
    if kind == "weighted":
        values = values * torch.linspace(-1, 2, N)[:, None]
    elif kind == "left out":
        values[::2] = 0
    elif kind == "mixed":
        values = torch.rand(N, C, generator=torch.Generator().manual_seed(1))
    cache = Cache(keys, values, 2.0, 3.5)
    assert (cache.labels is None) == (kind == "mixed")
    want = wanted(features, keys, values, 2.0, 3.5)
    np.testing.assert_allclose(cache(features).detach().numpy(), want, rtol=1e-5)


def test_each_run_has_its_own_keys_values_weight_and_sharpness():
    keys, features, labels = parts()
    values = torch.nn.functional.one_hot(labels, C).float().repeat(2, 1, 1)
    values[1, :4] = 0
    both = torch.stack([keys, keys.flip(0)])
    batch = torch.stack([features, -features])
    weight, sharpness = torch.tensor([1.0, 3.0]), torch.tensor([5.5, 0.5])
    scores = Cache(both, values, weight, sharpness)(batch).detach()
    for run in range(2):
        want = wanted(batch[run], both[run], values[run], weight[run].item(), sharpness[run].item())
        np.testing.assert_allclose(scores[run].numpy(), want, rtol=1e-5)


def test_channels_are_chosen_before_the_length_is_taken():
    keys, features, labels = parts()
    values = torch.nn.functional.one_hot(labels, C).float()
    channels = torch.tensor([0, 3, 5])
    cache = Cache(keys[:, channels], values, 1.0, 2.0, channels)
    want = wanted(features[:, channels], keys[:, channels], values, 1.0, 2.0)
    np.testing.assert_allclose(cache(features).detach().numpy(), want, rtol=1e-5)


def test_gradient_of_the_keys():
    keys, features, labels = parts()
    values = torch.nn.functional.one_hot(labels, C).float()
    cache = Cache(keys, values, 1.5, 2.0)
    upstream = torch.randn(B, C, generator=torch.Generator().manual_seed(2))
    (cache(features) * upstream).sum().backward()
    f, k, v, u = (t.double().numpy() for t in (features, keys, values, upstream))
    near = np.exp(-2.0 * (1 - unit(f) @ unit(k).T))
    g = (1.5 * 2.0 * near * (u @ v.T)).T @ unit(f)  # of the unit keys
    length = np.linalg.norm(k, axis=1, keepdims=True)
    want = (g - unit(k) * (g * unit(k)).sum(1, keepdims=True)) / length
    assert np.abs(want).max() > 1e-2
    np.testing.assert_allclose(cache.keys.grad.numpy(), want, atol=1e-6)


def test_a_zero_key_is_at_right_angles_to_everything():
    keys, features, labels = parts()
    keys[0] = 0
    scores = affinity(features, keys)
    assert torch.equal(scores[0], torch.zeros(B))
    near = nearness(scores, 2.0)
    assert torch.isfinite(class_sums(near, labels, C)).all()


def test_a_class_without_a_key_scores_nothing():
    keys, features, labels = parts()
    sums = class_sums(nearness(affinity(features, keys), 2.0), labels, C + 2)
    assert sums.shape == (B, C + 2)
    assert torch.equal(sums[:, C:], torch.zeros(B, 2))
