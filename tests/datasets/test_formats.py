"""Pictures of phones (AVIF, HEIC), and files with much in them that is no picture."""

import io
import struct
import zlib

import numpy as np
import pytest
from picture_files import bomb, chunk, encode, rgb
from PIL import Image, features

from clip_adapter.datasets import decode as decoding
from clip_adapter.datasets.decode import HEIC_EXTRA, NEEDS_HEIC, decode
from clip_adapter.errors import DecodeError, how_to_install


def with_chunks(data, *chunks, at=33):
    """A PNG with more chunks, behind its header."""
    return data[:at] + b"".join(chunks) + data[at:]


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
MUCH = zlib.compress(bytes(5_000_000))
LONG = {
    "zTXt": chunk(b"zTXt", b"parameters\0\0" + MUCH),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + MUCH),
    "profile": chunk(b"iCCP", b"icc\0\0" + MUCH),
    "many": b"".join(chunk(b"tEXt", b"note\0" + bytes([n]) * 900_000) for n in range(75)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + MUCH),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_png_with_long_texts_is_read_without_them(kind):
    plain = encode(rgb(), "PNG")
    pixels = np.asarray(rgb())
    assert np.array_equal(decode(with_chunks(plain, LONG[kind]), "x"), pixels)
    assert np.array_equal(decode(with_chunks(plain, LONG[kind], at=len(plain) - 12), "x"), pixels)


def test_beside_long_texts_those_that_turn_the_picture_are_kept():
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    data = with_chunks(encode(rgb(), "PNG"), LONG["zTXt"], xmp)
    assert np.array_equal(decode(data, "x"), np.asarray(rgb())[::-1, ::-1])


def test_beside_long_texts_damage_and_bombs_are_still_refused():
    data = with_chunks(encode(rgb(64, 64), "PNG"), LONG["zTXt"])
    with pytest.raises(DecodeError, match="damaged"):
        decode(data[: -len(data) // 3], "half.png")
    with pytest.raises(DecodeError, match=r"bomb\.png: the picture has 900000000 pixels"):
        decode(with_chunks(bomb(30_000), LONG["iTXt"]), "bomb.png")


def test_a_jpeg_with_much_exif_and_text_is_read():
    jpeg = encode(rgb(), "JPEG")
    much = b"".join(
        b"\xff" + marker + b"\xff\xff" + start + bytes(65533 - len(start))
        for marker, start in ((b"\xe1", b"Exif\0\0"), (b"\xe1", b"http:\0"), (b"\xfe", b"")) * 40
    )
    assert np.array_equal(decode(jpeg[:2] + much + jpeg[2:], "x"), decode(jpeg, "x"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_avif_is_turned_upright(orientation):
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    picture = Image.new("RGB", (48, 32), (5, 5, 250))
    picture.paste((250, 5, 5), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {1: picture, 3: picture.rotate(180), 6: picture.rotate(-90, expand=True)}
    upright[8] = picture.rotate(90, expand=True)
    decoded = decode(encode(picture, "AVIF", exif=exif, quality=95), "x")
    assert decoded.size == upright[orientation].size
    assert np.abs(np.asarray(decoded, int) - np.asarray(upright[orientation])).mean() < 5


def test_avif_is_read_where_pillow_can():
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert decode(encode(rgb(16, 16), "AVIF"), "x").size == (16, 16)


def heic_head(major, *others):
    brands = major + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0\0\0\x08mdat"


@pytest.mark.parametrize("head", [(b"heic", b"mif1"), (b"heix",), (b"mif1", b"heic"), (b"msf1",)])
def test_heic_without_its_package_names_the_extra(head, monkeypatch):
    monkeypatch.setattr(decoding, "_reads_heic", lambda: False)
    with pytest.raises(DecodeError) as caught:
        decode(heic_head(*head), "IMG_1.HEIC")
    assert caught.value.found == f"IMG_1.HEIC: {NEEDS_HEIC}"
    assert caught.value.hint == HEIC_EXTRA == how_to_install("heic")


@pytest.mark.parametrize("head", [(b"avif", b"mif1"), (b"mif1", b"avif"), (b"isom", b"mp42")])
def test_avif_and_films_are_no_heic(head, monkeypatch):
    monkeypatch.setattr(decoding, "_reads_heic", lambda: False)
    with pytest.raises(DecodeError) as caught:
        decode(heic_head(*head), "x")
    assert "heic" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [heic_head(b"isom", b"mp42"), heic_head(b"qt  "), b"RIFF\0\0\0\0AVI LIST", b"\x1aE\xdf\xa3"],
)
def test_a_film_is_called_so(data):
    with pytest.raises(DecodeError, match="a video, not a picture"):
        decode(data, "holiday.mp4")


def test_heic_is_read_turned_and_whole():
    pillow_heif = pytest.importorskip("pillow_heif")
    picture = Image.new("RGB", (96, 64), (5, 5, 250))
    picture.paste((250, 5, 5), (0, 0, 32, 32))

    def heic(first, *more, **options):
        file = pillow_heif.from_pillow(first)
        for image in more:
            file.add_from_pillow(image)
        buffer = io.BytesIO()
        file.save(buffer, quality=90, **options)
        return buffer.getvalue()

    def difference(data, expected):
        decoded = decode(data, "IMG.HEIC")
        assert decoded.size == expected.size
        return np.abs(np.asarray(decoded, int) - np.asarray(expected.convert("RGB"))).mean()

    assert difference(heic(picture), picture) < 5
    # Of several pictures the one that the file names its first, which a camera shows.
    other = Image.new("RGB", (32, 32), (5, 250, 5))
    assert difference(heic(picture, other, primary_index=0), picture) < 5
    assert difference(heic(picture, other, primary_index=1), other) < 5
    exif = Image.Exif()
    exif[0x0112] = 6
    data = heic(picture, exif=exif.tobytes())
    assert difference(data, picture.rotate(-90, expand=True)) < 5
    with pytest.raises(DecodeError, match=r"damaged|not a picture"):
        decode(data[: len(data) // 2], "half.heic")
    with pytest.raises(DecodeError, match="at most 99 pixels"):
        decode(data, "large.heic", max_pixels=99)
    clear = Image.new("RGBA", (32, 32), (250, 0, 0, 0))
    assert difference(heic(clear), Image.new("RGB", (32, 32), "white")) < 5
