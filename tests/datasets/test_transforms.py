"""Test views equal torchvision's and open_clip's to the bit; training views repeat by seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.transforms import make_transform, view_seed
from clip_adapter.errors import UsageError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP = Preprocess(224, MEAN, STD)
SIZES = [(500, 333), (333, 500), (224, 224), (225, 224), (64, 64), (1, 1), (1000, 31), (223, 640)]


def picture(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("image_size", [224, 32])
def test_clip_preprocess_equals_open_clip(size, image_size):
    from open_clip.transform import image_transform

    ours = make_transform(Preprocess(image_size, MEAN, STD))(picture(*size))
    theirs = image_transform(image_size, is_train=False, mean=MEAN, std=STD)(picture(*size))
    assert ours.dtype == torch.float32
    assert ours.shape == (3, image_size, image_size)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(200, 130), (51, 97), (96, 96)])
def test_every_mode_of_open_clip_is_met(interpolation, resize_mode, size):
    from open_clip.transform import image_transform

    half = (0.5, 0.5, 0.5)
    ours = make_transform(Preprocess(96, half, half, interpolation, resize_mode))(picture(*size))
    theirs = image_transform(
        96,
        is_train=False,
        mean=half,
        std=half,
        interpolation=interpolation,
        resize_mode=resize_mode,
    )(picture(*size))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", SIZES)
def test_coop_preprocess_equals_torchvision_steps(size):
    from torchvision import transforms as T

    bicubic = T.InterpolationMode.BICUBIC
    steps = T.Compose(
        [
            T.Resize((224, 224), bicubic),
            T.Resize((252, 252), bicubic),
            T.CenterCrop((224, 224)),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )
    assert torch.equal(make_transform(CLIP, "coop")(picture(*size)), steps(picture(*size)))


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (3, 20_000)])
def test_extreme_strips_take_little_memory(size):
    assert make_transform(CLIP)(picture(*size)).shape == (3, 224, 224)


def test_cutting_a_strip_first_changes_nothing_that_is_seen():
    from open_clip.transform import image_transform

    strip = picture(1301, 20)
    ours = make_transform(Preprocess(32, MEAN, STD))(strip)
    theirs = image_transform(32, is_train=False, mean=MEAN, std=STD)(strip)
    # The centre may move by less than half a resized pixel.
    assert (ours - theirs).abs().mean() < 0.5 * theirs.std()
    smooth = Image.linear_gradient("L").resize((1301, 20)).convert("RGB")
    ours = make_transform(Preprocess(32, MEAN, STD))(smooth)
    theirs = image_transform(32, is_train=False, mean=MEAN, std=STD)(smooth)
    assert (ours - theirs).abs().max() < 0.05


@pytest.mark.parametrize("preprocess", ["clip", "coop"])
def test_training_views_repeat_by_seed_and_differ_between_seeds(preprocess):
    transform = make_transform(CLIP, preprocess, train=True)
    views = [transform(picture(90, 70), view_seed("ab" * 32, view)) for view in range(8)]
    again = [transform(picture(90, 70), view_seed("ab" * 32, view)) for view in reversed(range(8))]
    assert all(torch.equal(a, b) for a, b in zip(views, reversed(again), strict=True))
    assert len({view.numpy().tobytes() for view in views}) > 4


def test_training_views_leave_the_global_generators_alone():
    import random

    before = random.getstate(), torch.get_rng_state().clone()
    make_transform(CLIP, train=True)(picture(50, 50), 1)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 2**64 - 1),
    st.sampled_from(["clip", "coop"]),
    st.sampled_from([(0.08, 1.0), (0.5, 1.0), (1.0, 1.0)]),
)
def test_any_picture_and_seed_gives_a_finite_view(width, height, seed, preprocess, scale):
    transform = make_transform(Preprocess(16, MEAN, STD), preprocess, train=True, scale=scale)
    view = transform(picture(width, height), seed)
    assert view.shape == (3, 16, 16)
    assert torch.isfinite(view).all()


def test_crop_shares_keep_to_their_scale():
    import random

    from clip_adapter.datasets.transforms import _random_box

    for scale in ((0.08, 1.0), (0.5, 1.0)):
        shares = []
        for seed in range(300):
            left, top, right, bottom = _random_box(200, 180, scale, random.Random(seed))
            assert 0 <= left < right <= 200
            assert 0 <= top < bottom <= 180
            assert 0.72 < (right - left) / (bottom - top) < 1.37
            shares.append((right - left) * (bottom - top) / (200 * 180))
        assert scale[0] * 0.95 < min(shares) < scale[0] + 0.1
        assert max(shares) > 0.85


def test_half_of_the_views_are_mirrored():
    ramp = Image.linear_gradient("L").rotate(90).resize((64, 64)).convert("RGB")
    for preprocess in ("clip", "coop"):
        transform = make_transform(Preprocess(16, MEAN, STD), preprocess, train=True)
        views = [transform(ramp, seed) for seed in range(200)]
        mirrored = sum(bool(v[0, :, :8].mean() > v[0, :, 8:].mean()) for v in views)
        assert 70 < mirrored < 130


def test_view_seeds_differ_by_content_view_and_seed():
    seeds = {view_seed(d, v, s) for d in ("aa", "bb") for v in range(5) for s in range(3)}
    assert len(seeds) == 30


def test_description_names_all_that_decides_the_pixels():
    kinds = [
        make_transform(CLIP),
        make_transform(CLIP, "coop"),
        make_transform(CLIP, train=True),
        make_transform(CLIP, train=True, scale=(0.5, 1.0)),
        make_transform(Preprocess(224, MEAN, STD, resize_mode="squash")),
    ]
    assert len({str(kind.describe()) for kind in kinds}) == len(kinds)


def test_wrong_use_is_told():
    with pytest.raises(UsageError, match="preprocess 'clp'"):
        make_transform(CLIP, "clp")
    with pytest.raises(UsageError, match="resize mode"):
        make_transform(Preprocess(224, MEAN, STD, resize_mode="widest"))
    with pytest.raises(UsageError, match="Crop scale"):
        make_transform(CLIP, scale=(0.5, 1.5))
    with pytest.raises(UsageError, match="without a seed"):
        make_transform(CLIP, train=True)(picture(9, 9))
