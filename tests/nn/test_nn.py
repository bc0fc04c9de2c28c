"""The trainable parts: properties that the method rests on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.nn import ResidualAdapter, blend, cosine_logits, normalize

D, H = 8, 2


def adapter(activation="official", ratio=0.3, runs=()):
    return ResidualAdapter.build(D, H, activation, ratio, runs, torch.Generator().manual_seed(0))


def test_ratio_zero_and_one_are_exact():
    old, new = torch.randn(5, D), torch.randn(5, D)
    assert torch.equal(blend(new, old, 0.0), old)
    assert torch.equal(blend(new, old, 1.0), new)
    assert torch.equal(adapter(ratio=0.0)(old), old)


@given(scale=st.floats(0.01, 100), activation=st.sampled_from(["official", "paper"]))
def test_adapter_commutes_with_scaling(scale, activation):
    # No biases: with a fixed ratio the length of a feature does not change its direction.
    x = torch.randn(4, D, generator=torch.Generator().manual_seed(1))
    a = adapter(activation)
    torch.testing.assert_close(normalize(a(scale * x)), normalize(a(x)), rtol=1e-4, atol=1e-5)


def test_official_activation_is_the_second_relu():
    x = torch.randn(20, D, generator=torch.Generator().manual_seed(2))
    official, paper = adapter("official"), adapter("paper")
    new = paper.bottleneck(x)
    assert (new < 0).any()
    assert torch.equal(official.bottleneck(x), new.relu())


@pytest.mark.parametrize("ratio", ["learnable", "hypernetwork", 0.2])
def test_runs_are_independent_and_taken_apart(ratio):
    many = adapter(ratio=ratio if isinstance(ratio, str) else torch.tensor([0.2] * 3), runs=(3,))
    with torch.no_grad():
        for parameter in many.parameters():
            parameter[1] += 0.1 * torch.randn(parameter[1].shape)
    x = torch.randn(3, 7, D)
    together = many(x)
    for r in range(3):
        torch.testing.assert_close(many.take(r)(x[r]), together[r])
    assert not torch.allclose(many.take(0)(x[0]), many.take(1)(x[0]))


@pytest.mark.parametrize("ratio", ["learnable", "hypernetwork"])
def test_learnt_ratios_start_at_the_papers_and_stay_within_bounds(ratio):
    a = adapter(ratio=ratio)
    x = torch.randn(6, D)
    torch.testing.assert_close(a.ratio(x).flatten(), torch.full_like(a.ratio(x).flatten(), 0.2))
    with torch.no_grad():
        for parameter in a.ratio.parameters():
            parameter += 50 * torch.randn_like(parameter)
    assert ((a.ratio(x) >= 0) & (a.ratio(x) <= 1)).all()


def test_hypernetwork_predicts_a_ratio_per_row_whatever_its_length():
    a = adapter(ratio="hypernetwork")
    with torch.no_grad():
        a.ratio.out.normal_(generator=torch.Generator().manual_seed(4))
    x = torch.randn(6, D)
    assert a.ratio(x).shape == (6, 1)
    assert len(a.ratio(x).unique()) > 1
    torch.testing.assert_close(a.ratio(x), a.ratio(10 * x))


def test_unknown_ratio_word():
    with pytest.raises(ValueError, match="learnable"):
        adapter(ratio="magic")


def test_cosine_logits_and_the_zero_row():
    f, w = torch.randn(3, D), torch.randn(4, D)
    want = 100 * torch.nn.functional.cosine_similarity(f[:, None], w[None], dim=-1)
    torch.testing.assert_close(cosine_logits(f, w, 100.0), want, rtol=1e-4, atol=1e-4)
    assert torch.equal(normalize(torch.zeros(1, D)), torch.zeros(1, D))
