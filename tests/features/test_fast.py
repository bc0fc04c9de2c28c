"""Fast decoding: near the exact features, and nothing else differs."""

import functools
import io
import tarfile
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_adapter.backbones import load_backbone
from clip_adapter.backbones.base import Preprocess
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import decode, is_plain
from clip_adapter.features import embed as module
from clip_adapter.features import pixels
from clip_adapter.features.embed import embed
from clip_adapter.features.packed import cut_to_size
from clip_adapter.features.store import FeatureStore

NEAR = 0.05  # of the median distance between two pictures
HALF = (0.5, 0.5, 0.5)


def jpeg(width, height, seed=0, mode="RGB", **options):
    """The bytes of a picture with edges and gradients, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(40, 30, exif=exif)


def samples_of(files):
    return [Sample(f"{i}", 0, lambda data=data: data) for i, data in enumerate(files)]


def off(backbone, samples, size=64):
    """How far fast features are from exact ones, by the median distance between pictures."""
    exact, _ = embed(backbone, samples, ["a"], batch_size=size)
    fast, _ = embed(backbone, samples, ["a"], decode="fast", batch_size=size)
    apart = torch.pdist(exact.plain_view).median()
    return (fast.plain_view - exact.plain_view).norm(dim=-1) / apart


@pytest.fixture(scope="module")
def demo():
    return load_backbone("demo", device="cpu")


def test_smaller_drafts_are_near(demo):
    sizes = [(400, 300), (384, 512), (1600, 1200)]
    files = [jpeg(*size, seed=i) for i, size in enumerate(sizes * 4)]
    assert 0 < off(demo, samples_of(files)).max() < NEAR


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_shorter_numbers_are_near(demo, dtype):
    samples = samples_of(jpeg(96, 96, seed=i) for i in range(6))
    exact, _ = embed(demo, samples, ["a"])
    short, _ = embed(load_backbone("demo", device="cpu", dtype=dtype), samples, ["a"])
    near = (short.plain_view - exact.plain_view).norm(dim=-1)
    assert 0 < near.max() < NEAR * torch.pdist(exact.plain_view).median()


@pytest.mark.shared
def test_photographs_are_near(demo, shared):
    with tarfile.open(shared / "images" / "photos.tar") as archive:
        files = [archive.extractfile(member).read() for member in archive if member.isfile()]
    assert (off(demo, samples_of(files)) < NEAR).all()


def test_a_draft_is_of_whole_pixels():
    assert decode(jpeg(402, 300), "x", draft=96).size == (201, 150)
    assert decode(jpeg(401, 300), "x", draft=96).size == (401, 300)
    assert decode(jpeg(4000, 3000), "x", draft=96).size == (500, 375)
    assert decode(jpeg(40, 300), "x", draft=96).size == (40, 300)


def with_segment(marker, body):
    data = jpeg(40, 30)
    return data[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (jpeg(40, 30), True),
        (jpeg(40, 30, progressive=True), True),
        (turned(1), True),
        (with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01"), True),
        (with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), True),
        (turned(6), False),
        (with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0 tiff:Orientation='6'"), False),
        (with_segment(0xE1, b"Exif\0\0nonsense"), False),
        (with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"), False),
        (jpeg(40, 30, mode="CMYK"), False),
        (jpeg(40, 30, mode="L"), False),
        (jpeg(40, 30, keep_rgb=True), False),
        (jpeg(101, 30), False),
        (jpeg(40, 30)[:-1], False),
        (jpeg(40, 30)[:60], False),
        (jpeg(40, 30) + b"more", False),
        (b"\xff\xd8\xff\xd9", False),
        (b"", False),
    ],
)
def test_which_files_any_decoder_reads_alike(data, plain):
    assert is_plain(data, longest=100) is plain


def test_small_pictures_whose_colours_are_filled_in_are_not_plain():
    assert is_plain(jpeg(40, 30), 100, shortest=30)
    assert not is_plain(jpeg(40, 30), 100, shortest=31)
    assert is_plain(jpeg(40, 30, subsampling=0), 100, shortest=31)


class Together:
    """Stands in for a GPU: decodes several at once, and refuses what Pillow saved at 33 x 33."""

    def __init__(self, inputs):
        self._inputs = inputs

    def cut(self, files):
        images = [decode(file.numpy().tobytes(), "x") for file in files]
        planes = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
        cuts = cut_to_size(planes, self._inputs)
        return [None if i.size == (33, 33) else cut for i, cut in zip(images, cuts, strict=True)]


@pytest.mark.filterwarnings("ignore:.*exact duplicate")
@pytest.mark.parametrize("views", [1, 2])
def test_all_that_a_gpu_does_not_decode_goes_the_exact_way(tiny, monkeypatch, views):
    class Views(pixels.Views):
        def __init__(self, *args):
            super().__init__(*args)
            self._gpu = Together(tiny.preprocess)

    png = io.BytesIO()
    Image.new("RGB", (50, 40), "red").save(png, "PNG")
    files = [jpeg(40, 30, i) for i in range(9)]
    files[2:2] = [turned(6), png.getvalue(), jpeg(33, 33), b"no picture", jpeg(40, 30)[:80]]
    files += [jpeg(33, 33)[:-40] + b"\xff\xd9", files[0], files[4], files[5]]
    samples = samples_of(files)
    exact, broken = embed(tiny, samples, ["a"], views=views, unreadable="return", batch_size=4)
    monkeypatch.setattr(module, "Views", Views)
    monkeypatch.setattr(module, "_TOGETHER", 3)
    fast, bad = embed(tiny, samples, ["a"], views=views, unreadable="return", batch_size=4)
    assert bad == broken
    assert (fast.names, fast.digests) == (exact.names, exact.digests)
    near, far = fast.features - exact.features, torch.pdist(exact.plain_view).median()
    assert near.norm(dim=-1).max() < NEAR * far


def test_the_store_keeps_fast_and_exact_features_apart(tiny, tmp_path):
    store, samples = FeatureStore(tmp_path), samples_of([jpeg(256, 256)])
    for decode_ in ("exact", "auto", "fast", "fast"):
        embed(tiny, samples, ["a"], store=store, decode=decode_)
    decoders = [shelf["key"].get("decoder") for shelf in store.info()]
    assert sorted(decoders, key=str) == [None, "draft"]


class Traced:
    """A backbone whose feature is the grey value of a picture; keeps what came in each batch."""

    name, fingerprint, device, dtype, embed_dim = "traced", "f", "cpu", "float32", 1
    preprocess = Preprocess(8, (0, 0, 0), (1, 1, 1))

    def __init__(self, look=lambda rows: None):
        self.batches, self._look = [], look

    def encode_images(self, images):
        self._look(len(images))
        self.batches.append((images.mean((1, 2, 3)) * 255).round().int().tolist())
        return images.mean((1, 2, 3))[:, None]


def grey(value):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:.*exact duplicate")
@given(
    st.lists(st.integers(-3, 12), min_size=1, max_size=40).filter(lambda v: max(v) > 0),
    st.lists(st.integers(1, 12), max_size=8),
    st.sampled_from([1, 2, 4, 16]),
)
def test_batches_are_of_new_contents_in_order(tmp_path_factory, values, known, batch):
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    contents = {value: grey(value) if value > 0 else b"broken" * (1 - value) for value in values}
    if known:
        embed(Traced(), samples_of(map(grey, known)), ["a"], store=store)
    backbone = Traced()
    samples = samples_of(contents[value] for value in values)
    embedded, bad = embed(
        backbone, samples, ["a"], store=store, batch_size=batch, unreadable="return"
    )
    new = [value for value in dict.fromkeys(values) if value > 0 and value not in known]
    parts = [new[i : i + batch] for i in range(0, len(new), batch)]
    assert [[value for value in one if value] for one in backbone.batches] == parts
    assert [int(one.name) for one in bad] == [i for i, value in enumerate(values) if value <= 0]
    rows = (embedded.plain_view[:, 0] * 255).round().int().tolist()
    assert rows == [value for value in values if value > 0]


@pytest.mark.parametrize(("parts", "last"), [(None, 8), (1, 5), (2, 6), (3, 6), (4, 8), (64, 8)])
def test_a_last_batch_is_no_longer_than_its_parts_need(parts, last):
    backbone = Traced()
    if parts:
        backbone.pictures_at_once = parts
    embedded, _ = embed(backbone, samples_of(map(grey, range(1, 14))), ["a"], batch_size=8)
    assert [len(one) for one in backbone.batches] == [8, last]
    assert (embedded.plain_view[:, 0] * 255).round().int().tolist() == [*range(1, 14)]


def test_batches_lie_in_the_same_memory_and_features_do_not():
    class Views(Traced):
        def encode_images(self, images):
            self.batches.append(images.data_ptr())
            return images[:, 0, 0, :1]

    backbone = Views()
    embedded, _ = embed(backbone, samples_of(map(grey, range(1, 10))), ["a"], batch_size=4)
    assert len(set(backbone.batches)) == 1 < len(backbone.batches)
    assert (embedded.plain_view[:, 0] * 255).round().int().tolist() == [*range(1, 10)]


@pytest.mark.parametrize(
    ("cores", "views", "batch"), [(3, 1, 4), (3, 1, 64), (3, 4, 8), (16, 4, 64)]
)
def test_all_threads_read_at_once(monkeypatch, cores, views, batch):
    for part in ("embed", "pixels"):
        monkeypatch.setattr(f"clip_adapter.features.{part}.cores", lambda: cores)
    reading, lock = 0, threading.Lock()
    all_of_them, in_vain = threading.Event(), threading.Event()

    def read(i):
        nonlocal reading
        with lock:
            reading += 1
            if reading == cores + 1:
                all_of_them.set()
        if not in_vain.is_set() and not all_of_them.wait(5):
            in_vain.set()
        with lock:
            reading -= 1
        return grey(i)

    samples = [Sample(f"{i}", 0, functools.partial(read, i)) for i in range(1, 200)]
    embed(Traced(), samples, ["a"], batch_size=batch, views=views)
    assert all_of_them.is_set()


def test_a_bounded_number_of_pictures_is_held():
    reads, held, encoded = [], [], 0

    def read(i):
        reads.append(i)
        return grey(i)

    def look(rows):
        nonlocal encoded
        time.sleep(0.02)  # the readers are ahead now
        held.append(len(reads) - encoded)
        encoded += rows

    samples = [Sample(f"{i}", 0, lambda i=i: read(i)) for i in range(200)]
    embed(Traced(look), samples, ["a"], batch_size=4)
    assert 4 < max(held) <= (module._AHEAD + 2) * 4
