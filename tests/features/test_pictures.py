"""A picture is the same picture by every way in; what is not sure is refused."""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clip_adapter.classifier import Classifier
from clip_adapter.errors import ClassifierError, DecodeError
from clip_adapter.features.pictures import embed_pictures
from clip_adapter.heads import Head

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
GREY = np.array(PICTURE.convert("L"))


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


def clear(mode):
    picture = PICTURE.convert("RGBA")
    picture.putalpha(Image.fromarray(GREY))
    return picture.convert(mode)


KINDS = {
    "dark-16-bit.png": (Image.fromarray(GREY.astype(np.uint16) * 100), {}),
    "16-bit.tif": (Image.fromarray(GREY.astype(np.uint16) * 200), {}),
    "integers.tif": (Image.fromarray(GREY.astype(np.int32) * 100), {}),
    "floats.tif": (Image.fromarray(GREY.astype(np.float32) / 255), {}),
    "negative.tif": (Image.fromarray(GREY.astype(np.float32) - 90), {}),
    "clear.png": (clear("RGBA"), {}),
    "clear-grey.png": (clear("LA"), {}),
    "clear.webp": (clear("RGBA"), {"lossless": True}),
    "palette.png": (PICTURE.quantize(16), {"transparency": 3}),
    "key.png": (PICTURE.convert("L"), {"transparency": 90}),
    "inks.jpg": (PICTURE.convert("CMYK"), {}),
    "turned.jpg": (PICTURE, turned()),
    "turned.png": (PICTURE, turned()),
    "turned.tif": (PICTURE, turned()),
    "two-tone.png": (PICTURE.convert("1"), {}),
    "film.gif": (PICTURE, {"save_all": True, "append_images": [Image.new("RGB", (48, 40))]}),
}


@pytest.fixture
def path(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_in_gives_the_same_features(tiny, tmp_path, kind):
    image, options = KINDS[kind]
    path = tmp_path / kind
    image.save(path, **options)
    by_path = embed_pictures(tiny, path)
    data = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as lazy, Image.open(path) as loaded:
        loaded.load()
        ways = [str(path), lazy, loaded, loaded.copy(), data, bytearray(data), io.BytesIO(data)]
        ways += [file, np.frombuffer(data, np.uint8), torch.tensor(list(data), dtype=torch.uint8)]
        assert torch.equal(embed_pictures(tiny, ways), by_path.expand(len(ways), -1))
        for way in ways:
            assert torch.equal(embed_pictures(tiny, way), by_path)


def test_pixels_as_arrays_and_tensors(tiny, path, tmp_path):
    expected = embed_pictures(tiny, path)
    opaque = np.dstack([PIXELS, np.full(GREY.shape, 255, np.uint8)])
    for pixels in (
        PIXELS,
        PIXELS.transpose(2, 0, 1),
        opaque,
        PIXELS[None],
        PIXELS[:, ::-1][:, ::-1],
    ):
        tensor = torch.tensor(pixels.copy())
        for array in (pixels, [pixels], tensor, [tensor]):
            if pixels.ndim < 4 or not isinstance(array, list):
                assert torch.equal(embed_pictures(tiny, array), expected)
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    expected = embed_pictures(tiny, tmp_path / "grey.png")
    for pixels in (GREY, GREY[None], GREY[..., None], torch.tensor(GREY)):
        assert torch.equal(embed_pictures(tiny, pixels), expected)
    faint = np.dstack([PIXELS, GREY])
    assert torch.equal(embed_pictures(tiny, faint), embed_pictures(tiny, clear("RGBA")))


def test_several_pictures_in_any_order_that_is_sure(tiny, path, tmp_path):
    other = tmp_path / "b.png"
    PICTURE.rotate(180).save(other)
    names = [str(path), str(other)]
    expected = embed_pictures(tiny, names)
    assert not torch.equal(expected[0], expected[1])
    ways = [tuple(names), iter(names), (name for name in names), np.array(names), pd.Index(names)]
    ways += [pd.Series(names, index=[7, 3]), np.array([path, other]), sorted(tmp_path.iterdir())]
    for way in ways:
        assert torch.equal(embed_pictures(tiny, way), expected)
    batch = np.stack([PIXELS, PIXELS[::-1, ::-1]])
    assert torch.equal(embed_pictures(tiny, batch), expected)
    assert embed_pictures(tiny, []).shape == embed_pictures(tiny, iter(())).shape == (0, 16)
    with Image.open(path) as lazy:
        assert torch.equal(embed_pictures(tiny, [lazy] * 9), expected[:1].expand(9, -1))


def test_files_in_an_archive_and_files_read_to_their_end(tiny, path, tmp_path):
    expected = embed_pictures(tiny, path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.png") as file:
        assert torch.equal(embed_pictures(tiny, [file]), expected)
        assert torch.equal(embed_pictures(tiny, zipfile.Path(archive, "a.png")), expected)
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")  # and it stands at the end
    assert torch.equal(embed_pictures(tiny, buffer), expected)


def closed():
    file = io.BytesIO(b"x")
    file.close()
    return file


REFUSED = {
    "floats": (PIXELS / 255, "which number is black and which white"),
    "floats in a list": ([PIXELS.astype(np.float32)], r"pictures\[0\].*which number is black"),
    "16 bits": ([GREY.astype(np.uint16)], "which number is black"),
    "a mask": ([GREY > 9], "which number is black"),
    "a float tensor": ([torch.rand(3, 4, 4)], "which number is black"),
    "two axes of channels": (np.zeros((3, 5, 4), np.uint8), "where the channels are"),
    "no axis of channels": (np.zeros((5, 6, 7), np.uint8), "where the channels are"),
    "no pixels": (np.zeros((0, 5, 3), np.uint8), "no pixels"),
    "an image without pixels": (Image.new("RGB", (0, 5)), "no pixels"),
    "words": ("a cat on a mat", "a cat on a mat: No such file"),
    "very many words": ("A" * 5000, "too long"),
    "an address": (["https://example.org/a.jpg"], "is an address"),
    "data in an address": ("data:image/png;base64,AAAA", "is an address"),
    "no path": ("a\0b", "is no path"),
    "a table": (pd.DataFrame({"path": ["a.png"]}), "DataFrame is no list"),
    "a set": ({"a.png"}, "set is no list"),
    "a dict": ({"a": "a.png"}, "dict is no list"),
    "a gap": (pd.Series([PICTURE, None, float("nan")], dtype=object), r"pictures\[1\]: NoneType"),
    "a number": (3, "int is not a picture"),
    "a list of lists": ([["a.png"]], "list is not a picture"),
    "a row of features": ([np.ones(16, np.float32)], "which number is black"),
    "text": (io.StringIO("x"), "file of text"),
    "a closed file": (closed(), "closed file"),
    "bytes of something else": (b"hello", "a text file, not a picture"),
    "no bytes": ([b""], r"pictures\[0\]: the file is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_sure_is_refused_with_what_is_allowed(tiny, case):
    given, words = REFUSED[case]
    with pytest.raises(DecodeError, match=words) as caught:
        embed_pictures(tiny, given)
    assert caught.value.allowed or "no pixels" in caught.value.found
    assert len(str(caught.value)) < 900


def test_a_damaged_image_is_named(tiny, path, tmp_path):
    half = tmp_path / "half.png"
    half.write_bytes(path.read_bytes()[:900])
    with Image.open(half) as lazy, pytest.raises(DecodeError, match=r"half\.png.*damaged"):
        embed_pictures(tiny, [PICTURE, lazy])


def test_a_classifier_tells_pictures_from_features(tiny, path):
    classifier = Classifier(Head(torch.eye(16)[:3]), ["a", "b", "c"])
    classifier.use(tiny, same=True)
    expected = classifier.logits(path)
    for way in (
        PIXELS,
        PIXELS[None],
        torch.tensor(PIXELS),
        [PIXELS],
        np.array([str(path)]),
        PICTURE,
    ):
        assert torch.equal(classifier.logits(way), expected)
    assert torch.equal(classifier.logits(classifier.embed(pd.Series([Path(path)]))), expected)
    narrow = PIXELS[:, :16, 0]
    with pytest.raises(DecodeError, match="may be a picture or features"):
        classifier.predict(narrow)
    assert len(classifier.predict([narrow])) == 1
    assert len(classifier.predict(narrow.astype(np.float32))) == 40


def test_a_classifier_of_features_takes_one_array_and_tells_what_to_make_of_a_list():
    classifier = Classifier(Head(torch.eye(16)[:3]), ["a", "b", "c"])
    rows = torch.eye(16)[:2]
    assert classifier.predict(rows) == ["a", "b"]
    for wrong in ([*rows], [*rows.numpy()], rows.tolist(), (*rows[0].numpy(),)):
        with pytest.raises(DecodeError, match=r"(?s)list of \d+ .*one array.*numpy\.stack"):
            classifier.predict(wrong)
    for nothing in ([], (), np.zeros((0, 16), np.float32), rows[:0]):
        with pytest.warns(UserWarning, match="nothing to classify"):
            assert classifier.predict(nothing) == []
    with pytest.raises(ClassifierError, match=r"(?s)shape \(0,\).*\(N, 16\)"):
        classifier.predict(np.zeros(0))


def test_a_zipped_file_and_a_name_that_is_empty(tiny, tmp_path):
    with gzip.open(tmp_path / "red.png.gz", "wb") as file:
        Image.new("RGB", (40, 40), (250, 0, 0)).save(file, "PNG")
    packed = io.BytesIO((tmp_path / "red.png.gz").read_bytes())
    with gzip.open(tmp_path / "red.png.gz") as file, gzip.open(packed) as unnamed:
        rows = embed_pictures(tiny, [file, unnamed])
    assert torch.equal(rows[0], rows[1])
    with pytest.raises(DecodeError, match="'' is no path"):
        embed_pictures(tiny, [""])


def test_what_cannot_be_read_is_logged_by_name(tiny, tmp_path, lines):
    PICTURE.save(tmp_path / "good.png")
    with pytest.warns(UserWarning, match="1 of 2 pictures cannot be read"):
        embed_pictures(tiny, [tmp_path / "good.png", tmp_path / "none.png"], unreadable="mark")
    warned = [one.getMessage() for one in lines.records if one.levelname == "WARNING"]
    assert warned == [
        f"Unreadable: {tmp_path / 'none.png'}: No such file or directory",
        "1 of 2 pictures cannot be read: they get no answer.",
    ]
