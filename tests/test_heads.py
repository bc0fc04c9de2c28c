"""Heads: their formulas against plain arithmetic, and what is saved of them."""

import json

import numpy as np
import pytest
import torch

from clip_adapter.classifier import Classifier
from clip_adapter.errors import ClassifierError
from clip_adapter.heads import Head, Mixture
from clip_adapter.nn import Cache, Projection, ResidualAdapter

C, D, N, SHOTS = 3, 8, 5, 6


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def cache(channels=None):
    keys = draw(SHOTS, D, seed=1) if channels is None else draw(SHOTS, len(channels), seed=1)
    values = torch.eye(C)[torch.arange(SHOTS) % C]
    return Cache(keys, values, 2.0, 3.0, None if channels is None else torch.tensor(channels))


def heads():
    """One of each kind."""
    adapter = ResidualAdapter.build(D, 2, generator=torch.Generator().manual_seed(2))
    return {
        "cosine": Head(draw(C, D), logit_scale=30.0),
        "adapter": Head(draw(C, D), adapter),
        "linear": Head(draw(C, D), bias=draw(C), kind="linear"),
        "unit": Head(draw(C, D), bias=draw(C), kind="linear", unit=True),
        "cache": Head(draw(C, D), cache=cache()),
        "channels": Head(draw(C, D), adapter, cache=cache([1, 4, 5])),
        "projection": Head(draw(C, 4), Projection(draw(D, 4), draw(4))),
        "mixture": Mixture(
            [Head(draw(C, D), adapter), Head(draw(C, D), kind="linear", unit=True, cache=cache())],
            [0.25, 1.5],
        ),
    }


@pytest.mark.parametrize("kind", list(heads()))
def test_saved_and_loaded_is_the_same_to_the_bit(kind, tmp_path):
    head, x = heads()[kind], draw(N, D, seed=9)
    classifier = Classifier(head, ["a", "b", "c"], text_weights=draw(C, D, seed=4))
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    assert torch.equal(loaded.logits(x), classifier.logits(x))
    assert torch.equal(loaded.zero_shot_logits(x), classifier.zero_shot_logits(x))
    assert loaded.dim == D
    assert loaded.head.sees_length == (kind == "linear")


def test_length_counts_where_it_is_said_to():
    x = draw(N, D, seed=9)
    for kind, head in heads().items():
        near = torch.allclose(head(x).argsort(1), head(3 * x).argsort(1))
        assert near or head.sees_length or kind == "projection"


def test_cache_with_channels_against_numpy():
    head, x = heads()["cache"], draw(N, D, seed=9)
    with torch.no_grad():
        got = head(x).double().numpy()
    f, w = unit(x.double().numpy()), unit(head.weights.double().numpy())
    keys = unit(head.cache.keys.detach().double().numpy())
    want = 100 * f @ w.T + 2 * np.exp(-3 * (1 - f @ keys.T)) @ head.cache.values.numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    head.cache = cache([1, 4, 5])
    some = unit(x.double().numpy()[:, [1, 4, 5]])
    keys = unit(head.cache.keys.detach().double().numpy())
    want = 100 * f @ w.T + 2 * np.exp(-3 * (1 - some @ keys.T)) @ head.cache.values.numpy()
    with torch.no_grad():
        np.testing.assert_allclose(head(x).double().numpy(), want, rtol=1e-5)


def test_a_mixture_is_the_weighted_sum():
    mixture, x = heads()["mixture"], draw(N, D, seed=9)
    first, second = mixture.members
    with torch.no_grad():
        want = 0.25 * first(x) + 1.5 * second(x)
        np.testing.assert_allclose(mixture(x), want, rtol=1e-5)


def test_an_image_map_that_no_loader_knows(tmp_path):
    head = Head(draw(C, D), torch.nn.Identity())
    with pytest.raises(ClassifierError, match="Identity cannot be saved"):
        Classifier(head, ["a", "b", "c"]).save(tmp_path / "classifier")
    assert not (tmp_path / "classifier").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("head", "pickle"),
        ("members", []),
        ("members", [{"head": "mixture", "members": [], "share": 1.0}]),
        ("change", {"kind": []}),
    ],
)
def test_a_forged_description_is_damage(key, value, tmp_path):
    folder = Classifier(heads()["mixture"], ["a", "b", "c"]).save(tmp_path / "classifier")
    path = folder / "classifier.json"
    config = json.loads(path.read_text())
    config[key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ClassifierError, match="damaged"):
        Classifier.load(folder)
