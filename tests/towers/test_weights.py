"""Trained weights in the place of the tower's own, and mixtures of them."""

import pytest
import torch

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.towers import (
    adapted_copy,
    build_tower_adapter,
    describe_tower_adapter,
    tuned,
    visual_tower,
)
from clip_adapter.towers.weights import WeightAdapter

NAMES = ["transformer.resblocks.0.mlp.c_fc.weight", "ln_post.bias", "proj"]


@pytest.fixture(scope="module")
def backbone(make_folder):
    return load_backbone(f"local-dir:{make_folder()}", device="cpu")


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def start(backbone, names=None):
    """All of the tower's own values, or those of some names."""
    every = WeightAdapter.start(backbone)
    own = dict(zip(every.names, every.values, strict=True))
    return every if names is None else WeightAdapter(names, [own[name] for name in names])


def moved(backbone, names=None, by=0.1):
    adapter = start(backbone, names)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in adapter.values:
            value += by * torch.randn(value.shape, generator=generator)
    return adapter


@pytest.mark.parametrize("names", [None, NAMES])
def test_the_start_changes_nothing_and_gradients_reach_every_value(backbone, pixels, names):
    adapter = start(backbone, names)
    visual = adapted_copy(backbone, adapter)
    out = visual(pixels)
    # torch's kernels with and without gradients differ in the last bit
    torch.testing.assert_close(out.detach(), backbone.encode_images(pixels), atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        assert torch.equal(visual(pixels), backbone.encode_images(pixels))
    out.square().sum().backward()
    assert all(v.grad is not None and v.grad.abs().sum() > 0 for v in adapter.values)
    asking = [p for p in visual.parameters() if p.requires_grad]
    assert {id(p) for p in asking} == {id(v) for v in adapter.values}
    assert not any(p.requires_grad for p in visual_tower(backbone).parameters())


def test_used_as_trained(backbone, pixels):
    adapter = moved(backbone, NAMES)
    with torch.inference_mode():
        expected = adapted_copy(backbone, adapter)(pixels)
    again = build_tower_adapter(*describe_tower_adapter(adapter))
    got = tuned(backbone, again).encode_images(pixels)
    assert torch.equal(got, expected)
    assert (got - backbone.encode_images(pixels)).abs().max() > 1e-3


def test_blended_is_exact_at_both_ends_and_linear_between(backbone):
    origin, adapter = start(backbone), moved(backbone)
    for share in (0.0, 0.25, 1.0):
        mixed = adapter.blended(origin, share)
        assert mixed.names == adapter.names
        for a, b, got in zip(origin.values, adapter.values, mixed.values, strict=True):
            if share in (0, 1):
                assert torch.equal(got, b if share else a)
            torch.testing.assert_close(got, a + share * (b - a), atol=1e-6, rtol=1e-5)
    with pytest.raises(UsageError, match="same parameters"):
        adapter.blended(start(backbone, NAMES), 0.5)


def test_other_places_are_refused(backbone, make_folder):
    with pytest.raises(BackboneError, match="no_such"):
        adapted_copy(backbone, WeightAdapter(["no_such"], [torch.zeros(1)]))
    wider = load_backbone(f"local-dir:{make_folder(embed_dim=8)}", device="cpu")
    with pytest.raises(BackboneError, match="proj"):
        adapted_copy(wider, WeightAdapter.start(backbone))
