"""Heads: their formulas against plain arithmetic, and what is saved of them."""

import numpy as np
import pytest
import torch
from example_heads import NAMES, C, D, cache, draw, heads

from clip_adapter.classifier import Classifier
from clip_adapter.errors import ClassifierError
from clip_adapter.heads import Head

N = 5


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


@pytest.mark.parametrize("kind", list(heads()))
def test_saved_and_loaded_is_the_same_to_the_bit(kind, tmp_path):
    head, x = heads()[kind], draw(N, D, seed=9)
    classifier = Classifier(head, NAMES, text_weights=draw(C, D, seed=4))
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
        Classifier(head, NAMES).save(tmp_path / "classifier")
    assert not (tmp_path / "classifier").exists()
