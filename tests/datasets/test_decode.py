"""Every odd picture decodes to the right pixels; everything else is a DecodeError by name."""

import logging
import struct
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import bomb, encode, png, rgb
from PIL import Image

from clip_adapter.datasets.decode import MAX_PIXELS, decode
from clip_adapter.errors import DecodeError

SHARED = Path(__file__).parents[3] / "shared"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_keep_every_pixel(kind):
    picture = rgb()
    assert np.array_equal(decode(encode(picture, kind), "x"), picture)


def test_webp_lossless_keeps_every_pixel():
    picture = rgb()
    assert np.array_equal(decode(encode(picture, "WEBP", lossless=True), "x"), picture)


def test_one_pixel_is_a_picture():
    picture = decode(encode(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), "x")
    assert picture.size == (1, 1)
    assert picture.getpixel((0, 0)) == (9, 8, 7)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    # Four flat quarters survive lossy coding; position tells the turn.
    quarters = np.zeros((32, 48, 3), np.uint8)
    quarters[:16, :24], quarters[:16, 24:], quarters[16:, :24] = (
        (250, 5, 5),
        (5, 250, 5),
        (5, 5, 250),
    )
    upright = Image.fromarray(quarters)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "WEBP":
        options = {"lossless": True}
    decoded = decode(encode(stored, kind, exif=exif, **options), "x")
    assert decoded.size == upright.size
    assert np.abs(np.asarray(decoded, int) - quarters).max() < 40


def test_palette_with_transparency_lies_on_white():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 10, 20] + [0] * 750)
    picture.putpixel((0, 0), 0)
    decoded = decode(encode(picture, "PNG", transparency=bytes([0, 255])), "x")
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 1)) == (200, 10, 20)


def test_alpha_is_composited_on_white():
    picture = Image.new("RGBA", (2, 1), (100, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 128))
    decoded = decode(encode(picture, "PNG"), "x")
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert abs(decoded.getpixel((1, 0))[0] - 127) <= 1


def test_grey_with_alpha_and_colour_key():
    grey = Image.new("LA", (1, 1), (10, 0))
    assert decode(encode(grey, "PNG"), "x").getpixel((0, 0)) == (255, 255, 255)
    keyed = Image.new("RGB", (2, 1), (1, 2, 3))
    keyed.putpixel((1, 0), (4, 5, 6))
    decoded = decode(encode(keyed, "PNG", transparency=(1, 2, 3)), "x")
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (4, 5, 6)]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_bitmap(mode):
    picture = Image.new(mode, (3, 2), 255)
    assert decode(encode(picture, "PNG"), "x").getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_jpeg_is_not_a_negative():
    # Pillow writes Adobe's inverted CMYK; pure yellow must come out yellow.
    picture = Image.new("CMYK", (16, 16), (0, 0, 255, 0))
    red, green, blue = decode(encode(picture, "JPEG", quality=95), "x").getpixel((8, 8))
    assert red > 240
    assert green > 240
    assert blue < 15


def test_sixteen_bit_grey_png_keeps_its_high_byte():
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    decoded = np.asarray(decode(encode(Image.fromarray(values), "PNG"), "x"))
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_sixteen_bit_colour_png_agrees_with_grey():
    values = [0, 256, 40000, 65535]
    row = b"".join(struct.pack(">HHH", v, v, v) for v in values)
    decoded = np.asarray(decode(png(4, 1, 16, 2, [row]), "x"))
    assert decoded[0, :, 1].tolist() == [v >> 8 for v in values]


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_tiff(order):
    values = np.array([[0, 512, 65535]], order)
    image = Image.fromarray(values.astype("<u2"))
    decoded = np.asarray(decode(encode(image, "TIFF"), "x"))
    assert decoded[0, :, 0].tolist() == [0, 2, 255]


def test_sixteen_bit_dark_pgm_stays_dark():
    data = b"P5 3 1 65535\n" + struct.pack(">HHH", 0, 200, 65535 // 4)
    assert np.asarray(decode(data, "x"))[0, :, 0].tolist() == [0, 0, 63]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 25600.0, 65535.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 0.0, float("inf")], [0, 0, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_float_tiff_is_scaled_by_its_range(values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    assert np.asarray(decode(encode(image, "TIFF"), "x"))[0, :, 0].tolist() == expected


def test_integer_tiff_of_any_range():
    for values, expected in (([0, 9, 255], [0, 9, 255]), ([-(2**31), 0, 2**31 - 1], [0, 128, 255])):
        image = Image.fromarray(np.array([values], np.int32))
        assert np.asarray(decode(encode(image, "TIFF"), "x"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), c) for c in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data, "x").getpixel((4, 4)) == (250, 0, 0)


def test_empty_file_is_named():
    with pytest.raises(DecodeError, match=r"a/b\.jpg: the file is empty"):
        decode(b"", "a/b.jpg")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello, I am not a picture\n", "text file"),
        (b"<!DOCTYPE html><html></html>", "HTML page"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (bytes(5000), "zero bytes"),
        (b"%PDF-1.4\xff\xfe\x00\x01", "begins with 25 50 44 46"),
    ],
)
def test_what_is_no_picture_is_told_apart(data, reason):
    with pytest.raises(DecodeError, match=reason) as caught:
        decode(data, "cat.jpg")
    assert "cat.jpg" in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_picture_is_named(kind):
    data = encode(rgb(64, 64), kind)
    with pytest.raises(DecodeError, match=r"half\.img"):
        decode(data[: len(data) // 2], "half.img")


def test_postscript_and_other_parsers_are_closed():
    with pytest.raises(DecodeError):
        decode(encode(rgb(), "PCX"), "x")
    with pytest.raises(DecodeError):
        decode(encode(rgb(), "TGA"), "x")


def test_bomb_is_refused_from_its_header():
    data = bomb(30_000)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=r"bomb\.png: the picture has 900000000 pixels"):
            decode(data, "bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_limit_is_in_pixels_and_inclusive():
    data = encode(rgb(10, 10), "PNG")
    assert decode(data, "x", max_pixels=100).size == (10, 10)
    with pytest.raises(DecodeError, match="at most 99 pixels"):
        decode(data, "x", max_pixels=99)
    assert MAX_PIXELS < 30_000**2


def test_warnings_stay_inside_even_when_they_are_errors(caplog):
    broken_exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff" * 3
    jpeg = encode(rgb(), "JPEG", exif=broken_exif)
    just_below = bomb(11_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(jpeg, "x").size == (12, 8)
        with pytest.raises(DecodeError, match="damaged") as caught:
            decode(just_below, "x")
    assert "bomb" not in str(caught.value)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_other_warnings_are_still_heard():
    decode(encode(rgb(), "PNG"), "x")
    with pytest.warns(UserWarning, match="still here"):
        warnings.warn("still here", stacklevel=1)


def test_threads_agree_with_one():
    pictures = [encode(rgb(40, 30, seed), "PNG") for seed in range(8)]
    expected = [np.asarray(decode(data, "x")) for data in pictures]
    wrong = []

    def work():
        for data, values in zip(pictures, expected, strict=True):
            if not np.array_equal(decode(data, "x"), values):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def image_or_error(data):
    try:
        picture = decode(data, "some name", max_pixels=10**6)
    except DecodeError as error:
        message = str(error)
    else:
        assert picture.mode == "RGB"
        assert min(picture.size) >= 1
        return
    assert "some name" in message


MAGIC = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P6 ",
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=300))
def test_any_bytes_give_a_picture_or_a_decode_error(magic, data):
    image_or_error(magic + data)


SEEDS = [
    encode(rgb(), "JPEG"),
    encode(rgb(), "PNG"),
    encode(rgb(), "GIF"),
    encode(rgb(), "TIFF"),
    encode(rgb(), "TIFF", compression="tiff_lzw"),
    encode(rgb(), "WEBP"),
    encode(rgb(), "BMP"),
    encode(rgb().convert("CMYK"), "JPEG"),
    encode(rgb().convert("P"), "PNG", transparency=b"\0\x80"),
    encode(Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12)), "PNG"),
    encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    b"P5 3 1 65535\n\0\1\2\3\4\5",
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    st.integers(0, 10**6),
)
def test_mutated_pictures_give_a_picture_or_a_decode_error(data, changes, cut):
    changed = bytearray(data)
    for place, value in changes:
        changed[place % len(changed)] = value
    image_or_error(bytes(changed[: cut % (2 * len(changed)) + 1]))


@pytest.mark.shared
def test_all_real_photographs_decode():
    import tarfile

    archive = SHARED / "images" / "photos.tar"
    if not archive.exists():
        pytest.skip("no ../shared here")
    with tarfile.open(archive) as tar:
        sizes = []
        for member in tar:
            if member.isfile():
                file = tar.extractfile(member)
                assert file
                sizes.append(decode(file.read(), member.name).size)
    assert len(sizes) == 200
    assert min(min(size) for size in sizes) > 50


def test_the_filters_can_be_handed_to_scikit_learns_workers(png_bytes):
    from sklearn.utils.parallel import Parallel, delayed

    decode(png_bytes, "a.png")
    assert Parallel(n_jobs=2, backend="threading")(delayed(abs)(i) for i in (-1, 2)) == [1, 2]
