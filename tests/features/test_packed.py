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
from clip_adapter.features.packed import cut_to_size

HALF = (0.5, 0.5, 0.5)
SIZES = [(500, 333), (333, 500), (224, 224), (225, 224), (64, 64), (1, 1), (640, 223), (31, 100)]


def smooth(width, height, seed=0):
    """A picture with edges and gradients, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def planes(images):
    return [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images]


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
        off = (cut_to_size(planes(images), inputs).int() - expected.int()).abs()
        assert off.max() <= 2
        assert (off > 0).float().mean() < share


def test_squash_is_that_of_pillow():
    # Pillow rounds between two passes, and takes the other one first where that is cheaper.
    inputs = Preprocess(64, HALF, HALF, resize_mode="squash")
    images = [smooth(*size) for size in SIZES]
    expected = torch.stack([make_transform(inputs).cut(Image.fromarray(i)) for i in images])
    assert (cut_to_size(planes(images), inputs).int() - expected.int()).abs().max() <= 3


def test_a_picture_is_cut_alike_in_any_company():
    inputs, images = Preprocess(32, HALF, HALF), [smooth(*size) for size in SIZES]
    together = cut_to_size(planes(images), inputs)
    for row, image in zip(together, images, strict=True):
        assert (cut_to_size(planes([image]), inputs)[0].int() - row.int()).abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_on_a_gpu(tmp_path, dtype, subsampling):
    backbone, samples = load_backbone("demo", device="cuda", dtype=dtype), []
    small = [(190, 130), (130, 190), (192, 192), (48, 48), (64, 64), (1, 1), (160, 55), (31, 100)]
    for i, size in enumerate(small * 6):
        image = Image.fromarray(smooth(*size, seed=i))
        image.save(tmp_path / f"{i}.jpg", quality=95, subsampling=subsampling)
        samples.append(Sample(f"{i}", 0, tmp_path / f"{i}.jpg"))
    exact, _ = embed(backbone, samples, ["a"], decode="exact", batch_size=8)
    fast, bad = embed(backbone, samples, ["a"], decode="fast", batch_size=8)
    assert not bad
    apart = torch.pdist(exact.plain_view).median()
    off = (fast.plain_view - exact.plain_view).norm(dim=-1) / apart
    print("fast to exact by median distance:", off.max().item(), off.view(6, 8).amax(0).tolist())
    assert 0 < off.max() < 0.05


@pytest.mark.gpu
def test_cut_on_a_gpu():
    inputs, images = Preprocess(224, HALF, HALF), [smooth(*size) for size in SIZES]
    cuts = cut_to_size([image.cuda() for image in planes(images)], inputs).cpu()
    expected = torch.stack([make_transform(inputs).cut(Image.fromarray(image)) for image in images])
    off = (cuts.int() - expected.int()).abs()
    print("grey levels off:", off.flatten(1).amax(1).tolist(), "mean", off.float().mean().item())
    assert off.max() <= 2
