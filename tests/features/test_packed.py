"""Cut to size together: Pillow's own resize, within what rounding allows."""

import numpy as np
import pytest
import torch
from PIL import Image

from clip_adapter.backbones import load_backbone
from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.transforms import make_transform
from clip_adapter.features.embed import embed
from clip_adapter.features.packed import cut_to_size, pack

HALF = (0.5, 0.5, 0.5)
SIZES = [(500, 333), (333, 500), (224, 224), (225, 224), (64, 64), (1, 1), (640, 223), (31, 100)]


def smooth(width, height, seed=0):
    """A picture with edges and gradients, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("image_size", [224, 32])
def test_short_side_and_centre_are_those_of_pillow(interpolation, image_size):
    inputs = Preprocess(image_size, HALF, HALF, interpolation)
    noise = [
        np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
        for i, (width, height) in enumerate(SIZES)
    ]
    transform = make_transform(inputs)
    for images, share in ((noise, 0.05), ([smooth(*size) for size in SIZES], 0.02)):
        expected = torch.stack([transform.cut(Image.fromarray(image)) for image in images])
        off = (cut_to_size(pack(images), inputs).int() - expected.int()).abs()
        assert off.max() <= 2
        assert (off > 0).float().mean() < share


def test_squash_is_that_of_pillow():
    # Pillow rounds between two passes, and takes the other one first where that is cheaper.
    inputs = Preprocess(64, HALF, HALF, resize_mode="squash")
    images = [smooth(*size) for size in SIZES]
    expected = torch.stack([make_transform(inputs).cut(Image.fromarray(i)) for i in images])
    assert (cut_to_size(pack(images), inputs).int() - expected.int()).abs().max() <= 3


def test_a_picture_is_cut_alike_in_any_company():
    inputs, images = Preprocess(32, HALF, HALF), [smooth(*size) for size in SIZES]
    together = cut_to_size(pack(images), inputs)
    for row, image in zip(together, images, strict=True):
        assert (cut_to_size(pack([image]), inputs)[0].int() - row.int()).abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_on_a_gpu(tmp_path, dtype):
    backbone, samples = load_backbone("demo", device="cuda", dtype=dtype), []
    for i, size in enumerate(SIZES * 6):
        Image.fromarray(smooth(*size, seed=i)).save(tmp_path / f"{i}.jpg", quality=95)
        samples.append(Sample(f"{i}", 0, tmp_path / f"{i}.jpg"))
    exact, _ = embed(backbone, samples, ["a"], decode="exact", batch_size=8)
    fast, bad = embed(backbone, samples, ["a"], decode="fast", batch_size=8)
    assert not bad
    apart = torch.pdist(exact.plain_view).median()
    assert (fast.plain_view - exact.plain_view).norm(dim=-1).max() < 0.05 * apart
    transform, images = make_transform(backbone.preprocess), [smooth(*size) for size in SIZES]
    cuts = cut_to_size(pack(images, torch.cuda.Stream()), backbone.preprocess).cpu()
    expected = torch.stack([transform.cut(Image.fromarray(image)) for image in images])
    assert (cuts.int() - expected.int()).abs().max() <= 2
