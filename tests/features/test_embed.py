import errno
import os
import sys
import threading

import pytest
import torch
from PIL import Image

from clip_adapter.backbones import load_backbone
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.transforms import make_transform
from clip_adapter.errors import CancelledError, DataError, DecodeError, StoreError
from clip_adapter.features.embed import embed
from clip_adapter.features.pictures import embed_pictures
from clip_adapter.features.store import FeatureStore, content_digest
from clip_adapter.reporting import NotesWarning

CLASSES = ["a", "b", "c"]


class Counting:
    """A backbone that counts the batches it sees."""

    def __init__(self, inner):
        self._inner, self.batches = inner, []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def encode_images(self, images):
        self.batches.append(len(images))
        return self._inner.encode_images(images)


def test_features_are_those_of_the_backbone(tiny, pictures):
    samples = pictures(5)
    embedded, bad = embed(tiny, samples, CLASSES)
    transform = make_transform(tiny.preprocess)
    images = torch.stack([transform(decode(s.read(), s.name)) for s in samples])
    torch.testing.assert_close(
        embedded.plain_view, tiny.encode_images(images), rtol=1e-5, atol=1e-6
    )
    assert bad == []
    assert embedded.names == [s.name for s in samples]
    assert embedded.labels.tolist() == [0, 1, 2, 0, 1]
    assert embedded.feature_norm == "raw"
    assert len(set(embedded.digests)) == 5


def test_the_store_answers_the_second_time(tiny, pictures, tmp_path):
    samples, store = pictures(9), FeatureStore(tmp_path / "cache")
    counting = Counting(tiny)
    first, _ = embed(counting, samples, CLASSES, store=store, batch_size=4)
    assert counting.batches == [4, 4, 1]
    again, _ = embed(counting, samples[::-1], CLASSES, store=FeatureStore(tmp_path / "cache"))
    assert counting.batches == [4, 4, 1]
    assert torch.equal(again.plain_view.flip(0), first.plain_view)


def test_added_pictures_are_the_only_new_work(tiny, pictures, tmp_path):
    store, counting = FeatureStore(tmp_path / "cache"), Counting(tiny)
    embed(counting, pictures(4), CLASSES, store=store, batch_size=2)
    embedded, _ = embed(counting, pictures(7), CLASSES, store=store, batch_size=2)
    assert counting.batches == [2, 2, 2, 1]
    assert len(embedded) == 7


def test_the_same_content_is_embedded_once(tiny, pictures):
    (one,) = pictures(1)
    samples = [Sample(f"copy {i}", i, one.source) for i in range(3)]
    counting = Counting(tiny)
    with pytest.warns(NotesWarning, match="two labels"):
        embedded, _ = embed(counting, samples, CLASSES)
    assert counting.batches == [1]
    assert torch.equal(embedded.plain_view[0], embedded.plain_view[2])
    assert embedded.labels.tolist() == [0, 1, 2]


def test_a_row_depends_on_its_picture_alone(tiny):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 32, 32, generator=generator)
    straight = tiny.encode_images(images)
    assert torch.equal(tiny.encode_images(images.flip(0)).flip(0), straight)
    alone = torch.zeros_like(images)
    alone[5] = images[5]
    assert torch.equal(tiny.encode_images(alone)[5], straight[5])


def test_key_covers_style_view_and_weights(tiny, pictures, tmp_path):
    store, samples = FeatureStore(tmp_path / "cache"), pictures(2)
    embed(tiny, samples, CLASSES, store=store)
    embed(tiny, samples, CLASSES, store=store, preprocess="coop")
    embed(tiny, samples, CLASSES, store=store, views=2)
    embed(tiny, samples, CLASSES, store=store, views=3)  # two of its views are known
    embed(tiny, samples, CLASSES, store=store, views=2, seed=1)
    other = Counting(tiny)
    other.fingerprint = "other weights"
    embed(other, samples, CLASSES, store=store)
    assert len(store.info()) == 1 + 1 + 3 + 2 + 1
    assert all(shelf["rows"] == 2 for shelf in store.info())
    assert store.info()[0]["key"]["made_by"] == tiny.name


def test_the_same_weights_share_rows_under_any_name(tiny, pictures, tmp_path):
    store, samples, other = FeatureStore(tmp_path / "cache"), pictures(2), Counting(tiny)
    other.name, other.device = "another name", "cuda"
    embed(tiny, samples, CLASSES, store=store)
    embed(other, samples, CLASSES, store=store)
    assert other.batches == []


def test_views_are_random_and_reproducible(tiny, pictures):
    samples = pictures(3)
    one, _ = embed(tiny, samples, CLASSES, views=3)
    two, _ = embed(tiny, samples[1:], CLASSES, views=3)
    assert one.features.shape == (3, 3, 16)
    assert not torch.equal(one.features[0], one.features[1])
    torch.testing.assert_close(one.features[:, 1:], two.features)


def test_the_plain_view_is_known_beside_random_ones(tiny, pictures, tmp_path):
    samples, store, counting = pictures(5), FeatureStore(tmp_path / "cache"), Counting(tiny)
    alone, _ = embed(counting, samples, CLASSES, store=store)
    assert alone.plain is None
    counting.batches.clear()
    several, _ = embed(counting, samples, CLASSES, store=store, views=2)
    assert len(counting.batches) == 2  # the plain view comes from the store
    assert torch.equal(several.plain, alone.plain_view)
    assert torch.equal(several.plain_view, alone.plain_view)
    assert not any(torch.equal(view, alone.plain_view) for view in several.features)
    without_store, _ = embed(tiny, samples, CLASSES, views=2)
    assert torch.equal(without_store.plain, several.plain)
    assert torch.equal(without_store.features, several.features)


@pytest.mark.parametrize("views", [1, 2])
def test_broken_pictures_are_named_counted_and_skipped(tiny, pictures, tmp_path, lines, views):
    samples = pictures(4)
    (tmp_path / "text.jpg").write_text("no picture")
    samples.insert(1, Sample("text.jpg", 0, tmp_path / "text.jpg"))
    samples.insert(3, Sample("again.jpg", 1, tmp_path / "text.jpg"))
    samples.insert(0, Sample("gone.jpg", 0, tmp_path / "gone.jpg"))
    with pytest.warns(UserWarning, match="3 of 7 pictures skipped") as warned:
        embedded, bad = embed(tiny, samples, CLASSES, batch_size=2, views=views)
    assert len(warned) == 1
    assert [one.name for one in bad] == ["gone.jpg", "text.jpg", "again.jpg"]
    assert bad[0].reason == "No such file or directory"
    assert not bad[1].reason.startswith("text.jpg")
    assert embedded.names == ["000.png", "001.png", "002.png", "003.png"]
    assert embedded.labels.tolist() == [0, 1, 2, 0]
    assert embedded.plain_view.norm(dim=-1).min() > 0
    assert sum("text.jpg" in line for line in lines.messages) == 1
    with pytest.raises(DataError, match=r"3 pictures cannot be read.*(?s:.*)gone\.jpg"):
        embed(tiny, samples, CLASSES, unreadable="stop")
    lines.clear()
    again = embed(tiny, samples, CLASSES, views=views, unreadable="return")
    assert (again[1], lines.messages) == (bad, [])
    assert len(embed(tiny, samples[:1], CLASSES, unreadable="return")[0]) == 0


def test_nothing_readable_is_an_error(tiny, tmp_path):
    with pytest.raises(DataError, match="None of the pictures"):
        embed(tiny, [Sample("x", 0, tmp_path / "x")], CLASSES)
    with pytest.raises(DataError, match="no pictures"):
        embed(tiny, [], CLASSES)


@pytest.mark.parametrize("views", [1, 2])
def test_every_file_is_read_once(tiny, pictures, views):
    samples, reads = pictures(5), []

    def counted(sample):
        def read():
            reads.append(sample.name)
            return sample.read()

        return Sample(sample.name, sample.label, read)

    embedded, _ = embed(tiny, [counted(sample) for sample in samples], CLASSES, views=views)
    assert sorted(reads) == embedded.names
    assert embedded.digests == [content_digest(sample.read()) for sample in samples]


def test_a_store_that_cannot_be_written(tiny, pictures, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="--cache"):
        embed(tiny, pictures(1), CLASSES, store=FeatureStore(tmp_path / "file"))


def test_a_full_disk(tiny, pictures, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match=r"No space left(?s:.*)--cache"):
        embed(tiny, pictures(1), CLASSES, store=FeatureStore(tmp_path / "cache"))


def test_damage_is_repaired_on_the_way(tiny, pictures, tmp_path, lines):
    store, samples = FeatureStore(tmp_path / "cache"), pictures(5)
    first, _ = embed(tiny, samples, CLASSES, store=store)
    (shard,) = (tmp_path / "cache").rglob("0*.safetensors")
    shard.unlink()
    shard.write_bytes(b"damaged")
    again, _ = embed(tiny, samples, CLASSES, store=store)
    assert torch.equal(again.features, first.features)
    assert len(lines.messages) == 1
    assert "wrong checksum" in lines.messages[0]


def test_out_of_memory_goes_on_with_smaller_batches(tiny_folder, pictures, monkeypatch, lines):
    samples, backbone = pictures(8), load_backbone(str(tiny_folder), device="cpu")
    expected, _ = embed(backbone, samples, CLASSES)
    inner = backbone.model.encode_image

    def limited(batch):
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return inner(batch)

    monkeypatch.setattr(backbone.model, "encode_image", limited)
    embedded, _ = embed(backbone, samples, CLASSES)
    torch.testing.assert_close(embedded.plain_view, expected.plain_view)
    assert lines.messages[-2:] == [
        "Out of memory with a batch of 8: going on with 4.",
        "Out of memory with a batch of 4: going on with 2.",
    ]


def test_the_bar_goes_to_standard_error(tiny, pictures, capsys, monkeypatch):
    monkeypatch.setattr("clip_adapter.reporting.SHOW_AFTER", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    embed(tiny, pictures(4), CLASSES, batch_size=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "pictures/s" in err
    embed(tiny, pictures(4), CLASSES, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_listener_hears_every_batch_and_stops_it(tiny, pictures, tmp_path):
    stages, cancel = [], threading.Event()

    def listener(stage):
        stages.append((stage.title, stage.done, stage.total))
        if stage.done == 4:
            cancel.set()

    store, samples = FeatureStore(tmp_path / "cache"), pictures(9)
    with pytest.raises(CancelledError):
        embed(tiny, samples, CLASSES, batch_size=2, progress=listener, cancel=cancel)
    assert stages == [("Embedding", 2, 9), ("Embedding", 4, 9)]
    assert len(embed(tiny, samples, CLASSES, store=store)[0]) == 9


def test_one_content_under_two_labels_is_told(tiny, pictures, lines):
    a, b, c, d, e = pictures(5)
    copies = [
        *(Sample(f"other {one.name}", (one.label + 1) % 3, one.source) for one in (a, b, c, d)),
        Sample("again.png", a.label, a.source),
        Sample("third.png", e.label, e.source),
    ]
    with pytest.warns(NotesWarning, match="two labels") as warned:
        embedded, _ = embed(tiny, [a, b, c, d, e, *copies], CLASSES)
    assert len(warned) == 1
    assert len(embedded) == 11
    torn, doubles = lines.messages
    assert "4 pictures are there under two labels or more (9 files): " in torn
    assert "000.png (a) = other 000.png (b)" in torn
    assert "002.png" in torn
    assert "003.png" not in torn  # three are shown
    assert doubles.startswith("1 picture is an exact duplicate")  # what is torn is no plain copy


def test_without_copies_nothing_is_said(tiny, pictures, lines):
    embed(tiny, pictures(4), CLASSES)
    (one,) = pictures(1)
    unlabelled = [Sample(name, -1, one.source) for name in "xy"]
    embed(tiny, unlabelled, [])
    assert lines.messages == []


def test_a_name_with_a_line_break_stays_on_one_line(tiny, pictures, tmp_path, lines):
    (tmp_path / "bad").write_bytes(b"no picture")
    bad = Sample("new\nline.png", 0, tmp_path / "bad")
    with pytest.warns(UserWarning, match="1 of 3 pictures skipped"):
        _, skipped = embed(tiny, [*pictures(2), bad], CLASSES)
    assert lines.messages[0].startswith("Skipped 'new\\nline.png': ")
    assert skipped[0].name == "new\nline.png"
    with pytest.raises(DataError, match=r"new\\nline"):
        embed(tiny, [bad], CLASSES)


def test_paths_and_images_go_the_same_way(tiny, pictures, tmp_path):
    samples = pictures(3)
    expected, _ = embed(tiny, samples, CLASSES)
    paths = [sample.source for sample in samples]
    assert torch.equal(embed_pictures(tiny, paths), expected.plain_view)
    images = [Image.open(path) for path in paths]
    assert torch.equal(embed_pictures(tiny, images), expected.plain_view)
    assert embed_pictures(tiny, []).shape == (0, 16)
    (tmp_path / "text.jpg").write_text("no picture")
    for broken in (tmp_path / "text.jpg", "gone.jpg"):
        with pytest.raises(DecodeError, match=str(broken)):
            embed_pictures(tiny, [paths[0], broken])
    with pytest.raises(DecodeError, match="int is not a picture"):
        embed_pictures(tiny, [3])
