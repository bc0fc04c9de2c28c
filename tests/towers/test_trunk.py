"""Features before the projection, and that the projection of them is the tower."""

import pytest
import torch
from PIL import Image

from clip_adapter.backbones import load_backbone
from clip_adapter.datasets.dataset import Sample
from clip_adapter.errors import BackboneError
from clip_adapter.features.pixels import Pictures
from clip_adapter.towers import build_tower_adapter, describe_tower_adapter, tuned
from clip_adapter.towers.weights import TrunkAdapter, projection, trunk_features

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}


@pytest.fixture(scope="module", params=["transformer", "resnet"])
def tower(request, make_folder):
    changes = {"vision_cfg": RESNET} if request.param == "resnet" else {}
    return load_backbone(f"local-dir:{make_folder(**changes)}", device="cpu")


def images(backbone, count=3):
    size = backbone.preprocess.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def test_projected_trunk_features_are_the_towers(tower):
    pixels = images(tower)
    expected = tower.encode_images(pixels)
    trunk = tuned(tower, TrunkAdapter()).encode_images(pixels)
    matrix, bias = projection(tower)
    assert trunk.shape == (3, len(matrix))
    assert matrix.shape[1] == tower.embed_dim != len(matrix)
    got = trunk @ matrix + (0 if bias is None else bias)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(tower.encode_images(pixels), expected)  # the backbone is as it was
    if bias is not None:
        assert bias.abs().sum() > 0


def test_the_projection_is_a_copy(tower):
    matrix, _ = projection(tower)
    before = matrix.clone()
    matrix.zero_()
    assert torch.equal(projection(tower)[0], before)


def test_it_is_saved_by_its_name_alone():
    config, tensors = describe_tower_adapter(TrunkAdapter())
    assert (config, tensors) == ({"kind": "trunk"}, {})
    assert isinstance(build_tower_adapter(config, tensors), TrunkAdapter)


def test_views(tower, tmp_path):
    samples = []
    for i in range(3):
        path = tmp_path / f"{i}.png"
        Image.effect_noise((40, 50), 80 + i).convert("RGB").save(path)
        samples.append(Sample(path.name, 0, path))
    pictures = Pictures(samples, ["01", "02", "03"], tower.preprocess)
    trunk = tuned(tower, TrunkAdapter())
    one, plain = trunk_features(tower, pictures)
    assert torch.equal(plain, trunk.encode_images(pictures.batch(range(3))))
    assert torch.equal(one, plain[None])
    two, again = trunk_features(tower, pictures, views=2)
    assert torch.equal(again, plain)
    for view in range(2):
        assert torch.equal(two[view], trunk.encode_images(pictures.batch(range(3), view)))


def test_other_towers_are_refused():
    with pytest.raises(BackboneError, match="ViT-B-32"):
        TrunkAdapter().attach(torch.nn.Linear(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RN50", "RN101", "ViT-B-32", "ViT-B-16"])
def test_openais_architectures(name):
    backbone = load_backbone(f"{name}/random", device="cpu")
    pixels = images(backbone, 2)
    matrix, bias = projection(backbone)
    trunk = tuned(backbone, TrunkAdapter()).encode_images(pixels)
    got = trunk @ matrix + (0 if bias is None else bias)
    expected = backbone.encode_images(pixels)
    assert (got - expected).abs().max() < 1e-5 * max(1, expected.abs().max())
