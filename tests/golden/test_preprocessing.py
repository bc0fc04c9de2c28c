"""Preprocessing of real photographs against the definitions, written again with torchvision.

A training view is random, so both sides get the same numbers. ``Transform`` draws a view from
``random.Random(seed)`` in this order, and so do the functions here:

* clip: up to ten times share of the area, uniform in the scale, and logarithm of the aspect,
  uniform from log 3/4 to log 4/3, until the box fits; then its left side and its upper side,
  whole numbers; then the flip, where a number in 0..1 is below 0.5.
* coop: the flip; whether to translate, in the same way; if so, the left and the upper side of the
  crop, each uniform in 0..S/8 and then rounded.
"""

from __future__ import annotations

import io
import math
import random
import tarfile

import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv
from torchvision.transforms.functional import InterpolationMode

from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.transforms import make_transform

pytestmark = pytest.mark.shared

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BICUBIC, BILINEAR = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR
# One step of 8 bits; the rest is what undoing the normalisation costs in float32.
STEP = 1 / 255 + 1e-5
SIZES = (224, 48)


@pytest.fixture(scope="module")
def photos(shared):
    """(name, picture as the library decodes it, picture as PIL does), of each photograph."""
    values = []
    with tarfile.open(shared / "images" / "photos.tar") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                data = file.read()
                with Image.open(io.BytesIO(data)) as picture:
                    theirs = picture.convert("RGB")
                values.append((member.name, decode(data, member.name), theirs))
    return values


@pytest.fixture(params=[4, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def some(request, photos):
    """Every fourth photograph with its place, or all of them."""
    return list(enumerate(photos))[:: request.param]


def ours(picture, size, preprocess, seed=None, scale=(0.08, 1.0)):
    """The library's view with its normalisation undone, (3, S, S) in 0..1."""
    inputs = Preprocess(size, MEAN, STD)
    transform = make_transform(inputs, preprocess, train=seed is not None, scale=scale)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return transform(picture, seed) * std + mean


def clip_test(picture, size):
    """Short side to S, centre crop S."""
    return tv.center_crop(tv.resize(picture, size, BICUBIC), [size, size])


def coop_test(picture, size):
    """Squash to S x S, resize to 1.125 S, centre crop S."""
    return coop_centre(tv.resize(picture, [size, size], BICUBIC), size)


def coop_centre(picture, size):
    larger = size * 9 // 8
    return tv.center_crop(tv.resize(picture, [larger, larger], BICUBIC), [size, size])


def clip_train(picture, size, draws, scale=(0.08, 1.0)):
    """Random resized crop, flip."""
    # Where ten tries fail, torchvision's own fallback: with the whole area no box fits a strip.
    box = RandomResizedCrop.get_params(picture, [1.0, 1.0], [3 / 4, 4 / 3])
    for _ in range(10):
        area = draws.uniform(*scale) * picture.width * picture.height
        aspect = math.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if width <= picture.width and height <= picture.height:
            left = draws.randint(0, picture.width - width)
            box = draws.randint(0, picture.height - height), left, height, width
            break
    view = tv.resized_crop(picture, *box, [size, size], BICUBIC)
    return tv.hflip(view) if draws.random() < 0.5 else view


def coop_train(picture, size, draws):
    """Squash, flip, half the time a translation (1.125 x, bilinear), the test's centre crop."""
    view = tv.resize(picture, [size, size], BICUBIC)
    if draws.random() < 0.5:
        view = tv.hflip(view)
    if draws.random() < 0.5:
        room = size // 8
        left, top = round(draws.uniform(0, room)), round(draws.uniform(0, room))
        view = tv.crop(tv.resize(view, [size + room, size + room], BILINEAR), top, left, size, size)
    return coop_centre(view, size)


def apart(view, expected):
    """The largest difference of a channel of a pixel."""
    return (view - tv.to_tensor(expected)).abs().max().item()


def test_all_photographs_are_read_grey_ones_too(shared, photos):
    with tarfile.open(shared / "images" / "photos.tar") as archive:
        files = [archive.extractfile(member) for member in archive if member.isfile()]
        modes = [Image.open(file).mode for file in files]
    assert len(photos) == len(modes) == 200
    assert set(modes) == {"RGB", "L"}


def test_cmyk_is_decoded_as_pil_does(photos):
    # None of the photographs is CMYK, so some are made so.
    for name, _, picture in photos[:5]:
        file = io.BytesIO()
        picture.convert("CMYK").save(file, "JPEG")
        theirs = Image.open(file).convert("RGB")
        mine = decode(file.getvalue(), name)
        assert apart(ours(mine, 48, "clip"), clip_test(theirs, 48)) <= STEP, name


def test_decoded_as_pil_does(photos):
    different = [name for name, mine, theirs in photos if mine.tobytes() != theirs.tobytes()]
    assert different == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("preprocess", "expected"), [("clip", clip_test), ("coop", coop_test)])
def test_test_views(some, preprocess, expected, size):
    for _, (name, mine, theirs) in some:
        assert apart(ours(mine, size, preprocess), expected(theirs, size)) <= STEP, name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("preprocess", "expected"), [("clip", clip_train), ("coop", coop_train)])
def test_training_views(some, preprocess, expected, size):
    for seed, (name, mine, theirs) in some:
        view = ours(mine, size, preprocess, seed)
        assert apart(view, expected(theirs, size, random.Random(seed))) <= STEP, name


def test_training_views_of_tip_adapter(photos):
    scale = (0.5, 1.0)
    for seed, (name, mine, theirs) in enumerate(photos[:40]):
        expected = clip_train(theirs, 48, random.Random(seed), scale)
        assert apart(ours(mine, 48, "clip", seed, scale), expected) <= STEP, name


@pytest.mark.parametrize("shape", [(640, 20), (20, 640)])
def test_training_views_of_strips_into_which_no_box_fits(photos, shape):
    for seed, (_, _, photo) in enumerate(photos[:10]):
        strip = photo.resize(shape)
        expected = clip_train(strip, 48, random.Random(seed), (1.0, 1.0))
        assert apart(ours(strip, 48, "clip", seed, (1.0, 1.0)), expected) <= STEP


def test_the_step_tells_the_preprocessings_filters_and_seeds_apart(photos):
    for _, mine, theirs in photos[:10]:
        view = ours(mine, 48, "clip")
        linear = tv.center_crop(tv.resize(theirs, 48, BILINEAR), [48, 48])
        for other in (linear, coop_test(theirs, 48)):
            assert apart(view, other) > 2 * STEP
        for preprocess, expected in (("clip", clip_train), ("coop", coop_train)):
            assert (
                apart(ours(mine, 48, preprocess, 1), expected(theirs, 48, random.Random(2))) > STEP
            )
