"""Where adapters sit in real towers, what they leave alone, and what they refuse."""

import copy
import pickle

import pytest
import torch
from tower_adapters import generator, one_of_each, randomised

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.nn import blend
from clip_adapter.towers import adapted_copy, build_tower_adapter, describe_tower_adapter, tuned
from clip_adapter.towers.adapters import Houlsby, Parallel, ResidualInside
from clip_adapter.towers.sites import numbers, sites

CHANNELS = (16, 64, 128, 256, 512)


@pytest.mark.parametrize("kind", [Houlsby, Parallel])
@pytest.mark.parametrize(("name", "blocks", "width"), [("demo", 4, 128), ("tiny_vit", 3, 32)])
def test_untouched_to_the_bit_at_the_start(kind, name, blocks, width, request, pictures):
    backbone = request.getfixturevalue(name)
    adapter = kind(range(1, blocks + 1), width, 8, generator())
    other = tuned(backbone, adapter)
    images = pictures(backbone)
    assert torch.equal(other.encode_images(images), backbone.encode_images(images))
    moved = tuned(backbone, randomised(adapter))
    assert not torch.allclose(moved.encode_images(images), backbone.encode_images(images))


@pytest.mark.parametrize("place", range(5))
def test_residual_inside_at_every_place_of_a_transformer(place, demo, pictures):
    inside = ResidualInside.build({place: 128}, 16, "paper", 0.3, generator())
    adapter = inside.adapters[str(place)]
    images = pictures(demo)
    visual = demo.model.visual
    with torch.no_grad():
        x = visual._embeds(images)
        for i, block in enumerate(visual.transformer.resblocks):
            x = block(adapter(x) if place == i == 0 else x)
            x = adapter(x) if place == i + 1 < 4 else x
        out = visual._pool(x)[0] @ visual.proj
        expected = adapter(out) if place == 4 else out
        features = adapted_copy(demo, inside)(images)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(features, visual(images), rtol=1e-2)


@pytest.mark.parametrize("place", range(6))
def test_residual_inside_at_every_place_of_a_resnet(place, tiny_resnet, pictures):
    dim = (*CHANNELS, 16)[place]
    adapter = ResidualInside.build({place: dim}, 16, "official", 0.3, generator())
    bottleneck = adapter.adapters[str(place)].bottleneck
    images = pictures(tiny_resnet)
    visual = tiny_resnet.model.visual

    def one_by_one(x):
        """The adapter as two convolutions of 1 x 1."""
        down, up = (w.detach().T[:, :, None, None] for w in (bottleneck.down, bottleneck.up))
        inner = torch.relu(torch.conv2d(x, down))
        return blend(torch.relu(torch.conv2d(inner, up)), x, 0.3)

    with torch.no_grad():
        x = visual.stem(images)
        x = one_by_one(x) if place == 0 else x
        for i in range(1, 5):
            x = getattr(visual, f"layer{i}")(x)
            x = one_by_one(x) if place == i else x
        x = visual.attnpool(x)
        expected = one_by_one(x[:, :, None, None]).flatten(1) if place == 5 else x
        features = adapted_copy(tiny_resnet, adapter)(images)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_several_places_and_their_parameters(demo, pictures):
    adapter = ResidualInside.build({0: 128, 2: 128, 4: 128}, 512, generator=generator())
    assert sum(p.numel() for p in adapter.parameters()) == 3 * 2 * 128 * 512
    adapted_copy(demo, adapter)(pictures(demo)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())


@pytest.mark.parametrize("kind", list(one_of_each()))
def test_described_and_built_again_is_the_same_to_the_bit(kind, demo, pictures):
    images, adapter = pictures(demo), randomised(one_of_each()[kind])
    other = build_tower_adapter(*describe_tower_adapter(adapter))
    first, second = (tuned(demo, c) for c in (adapter, other))
    assert torch.equal(first.encode_images(images), second.encode_images(images))
    assert first.fingerprint == second.fingerprint != demo.fingerprint


@pytest.mark.parametrize("kind", list(one_of_each()))
def test_a_changed_tower_can_be_sent_and_leaves_the_backbone_alone(kind, demo, pictures):
    images = pictures(demo)
    before = copy.deepcopy(demo.model.state_dict())
    untouched = demo.encode_images(images)
    visual = adapted_copy(demo, randomised(one_of_each()[kind]).eval())
    again = pickle.loads(pickle.dumps(visual))
    assert torch.equal(again(images), visual(images))
    after = demo.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(demo.encode_images(images), untouched)


def test_what_fits_no_tower_is_refused(demo, tiny_resnet, tiny_vit):
    for kind in (Houlsby, Parallel):
        with pytest.raises(BackboneError, match=r"vision transformers.*ViT-B-16"):
            adapted_copy(tiny_resnet, kind([1], 32, 8))
        with pytest.raises(BackboneError, match="4 blocks of width 128"):
            adapted_copy(demo, kind([5], 128, 8))
        with pytest.raises(BackboneError, match="3 blocks of width 32"):
            adapted_copy(tiny_vit, kind([1], 128, 8))
    with pytest.raises(BackboneError, match="places 0 to 4"):
        adapted_copy(demo, ResidualInside.build({5: 128}, 8))
    with pytest.raises(BackboneError, match="dimension"):
        adapted_copy(demo, ResidualInside.build({2: 64}, 8))


def test_a_tower_of_timm_has_its_end_alone(make_folder, pictures):
    tower = {
        "timm_model_name": "resnet18",
        "image_size": 32,
        "timm_pool": "",
        "timm_proj": "linear",
    }
    backbone = load_backbone(
        f"local-dir:{make_folder(custom_text=True, vision_cfg=tower)}", device="cpu"
    )
    assert len(sites(backbone.model.visual)) == 1
    adapter = ResidualInside.build({0: 16}, 8, generator=generator())
    images = pictures(backbone)
    expected = adapter.adapters["0"](backbone.encode_images(images)).detach()
    torch.testing.assert_close(tuned(backbone, adapter).encode_images(images), expected)
    with pytest.raises(BackboneError, match="vision transformers of open_clip"):
        adapted_copy(backbone, Houlsby([1], 16, 8))


def test_numbers():
    words = {"all": [0, 2, 4], "end": [4]}
    read = lambda given: numbers("layers", given, range(5), words)  # noqa: E731
    assert read("all") == [0, 2, 4]
    assert read("end") == [4]
    assert read(2) == [2]
    assert read("3, 0,end,3") == [0, 3, 4]
    for wrong in ("", "5", -1, "1.5", "first", "1,,2"):
        with pytest.raises(UsageError, match=r"all, end, or numbers of 0, 1, 2, 3, 4 "):
            read(wrong)
