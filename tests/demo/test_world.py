"""The demo world and its task: reproducible, honest about what is held out, safe to interrupt."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from PIL import Image

from clip_adapter.backbones.names import DEMO_WORDS
from clip_adapter.datasets.folder import load_folder
from clip_adapter.demo.shapes import COLOURS, SHAPES, TEXTURES
from clip_adapter.demo.task import (
    DEMO_CLASSES,
    DEMO_TEMPLATES,
    PER_CLASS,
    TASK_SEED,
    TASK_VERSION,
    class_folder,
    demo_task,
    render_task_picture,
    unseen_of,
)
from clip_adapter.demo.world import (
    HELD_OUT,
    Pose,
    Thing,
    canvas,
    paint,
    random_thing,
)
from clip_adapter.errors import CancelledError, DataError
from clip_adapter.reporting import listening
from training_world import BACKGROUNDS, render_pair, render_pretraining


def _painted(shape: str, texture: str = "plain") -> np.ndarray:
    x, y = canvas(96)
    picture = np.zeros((96, 96, 3), np.float32)
    thing = Thing("white", texture, shape)
    paint(picture, x, y, thing, Pose((0, 0), 0.8, 0), np.random.default_rng(0))
    return picture


def test_same_seed_same_bytes_whatever_the_order():
    pictures, captions = render_pretraining(6, seed=3)
    assert pictures.shape == (6, 48, 48, 3)
    assert pictures.dtype == np.uint8
    tail, tail_captions = render_pretraining(2, seed=3, start=4)
    np.testing.assert_array_equal(tail, pictures[4:])
    assert tail_captions == captions[4:]


def test_another_seed_or_index_gives_another_picture():
    base, _ = render_pair(0, 0)
    assert (base != render_pair(1, 0)[0]).any()
    assert (base != render_pair(0, 1)[0]).any()


def test_things_of_the_task_never_appear_in_training():
    rng = np.random.default_rng(0)
    seen = {random_thing(rng) for _ in range(20_000)}
    assert not seen & HELD_OUT
    # Nearly everything else does appear: the world is compositional.
    assert len(seen) > 0.95 * (len(COLOURS) * len(TEXTURES) * len(SHAPES) - len(HELD_OUT))


def test_every_word_of_a_class_name_is_in_the_captions():
    _, captions = render_pretraining(600, seed=0, size=8)
    words = set(re.findall(r"[a-z]+", " ".join(captions)))
    for thing in DEMO_CLASSES:
        assert set(class_folder(thing).split("_")) <= words


def test_captions_use_the_default_template_and_scenes():
    _, captions = render_pretraining(600, seed=0, size=8)
    assert sum(c.startswith(("a photo of a ", "a photo of an ")) for c in captions) > 30
    for scene in BACKGROUNDS:
        assert any(scene in caption for caption in captions), scene
    for relation in (" next to ", " above ", " to the left of ", "two ", "three ", "four "):
        assert any(relation in caption for caption in captions), relation


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_circle_and_stay_inside_it(shape):
    cover = _painted(shape).mean(-1) > 0.5
    x, y = canvas(96)
    assert not cover[np.hypot(x, y) > 0.8 * 1.3].any()
    assert 0.08 < cover.mean() < 0.55
    if shape != "crescent":
        np.testing.assert_array_equal(cover, cover[:, ::-1])


def test_shapes_and_textures_all_differ():
    shapes = [_painted(shape) for shape in SHAPES]
    textures = [_painted("square", texture) for texture in TEXTURES]
    for pictures in (shapes, textures):
        for i, first in enumerate(pictures):
            for second in pictures[:i]:
                assert np.abs(first - second).mean() > 0.01


def test_an_object_is_painted_where_it_is_placed():
    x, y = canvas(64)
    picture = np.zeros((64, 64, 3), np.float32)
    rng = np.random.default_rng(0)
    paint(picture, x, y, Thing("white", "plain", "circle"), Pose((0.5, -0.5), 0.3, 0.0), rng)
    rows, columns = np.nonzero(picture.mean(-1) > 0.5)
    assert abs(rows.mean() - 16) < 1
    assert abs(columns.mean() - 48) < 1


def test_task_classes_are_the_held_out_combinations():
    assert set(DEMO_CLASSES) == HELD_OUT
    assert 10 <= len(DEMO_CLASSES) <= 16
    assert PER_CLASS["train"] > 16
    assert all(template.count("{}") == 1 for template in DEMO_TEMPLATES)


def test_task_pictures_repeat_and_differ():
    first = render_task_picture(DEMO_CLASSES[0], 1, 0)
    np.testing.assert_array_equal(first, render_task_picture(DEMO_CLASSES[0], 1, 0))
    assert (first != render_task_picture(DEMO_CLASSES[0], 1, 1)).any()
    assert (first != render_task_picture(DEMO_CLASSES[1], 1, 0)).any()


@pytest.mark.parametrize(
    ("row", "index", "colour"),
    [
        (0, 0, (134.32, 120.91, 93.49)),
        (9, 20, (87.05, 62.8, 44.32)),
        (15, 53, (154.16, 136.52, 100.82)),
    ],
)
def test_task_pictures_are_those_of_the_published_numbers(row, index, colour):
    picture = render_task_picture(DEMO_CLASSES[row], TASK_SEED, index)
    # Any other draw moves these means by whole units; the sines of another machine do not.
    np.testing.assert_allclose(picture.mean((0, 1)), colour, atol=0.1)
    assert TASK_VERSION == 2


def test_task_folder_reads_as_a_data_set(tmp_path, small):
    folder = demo_task(tmp_path)
    dataset = load_folder(folder)
    assert dataset.class_names == sorted(class_folder(t).replace("_", " ") for t in DEMO_CLASSES)
    assert len(dataset.pool("train")) == 2 * len(DEMO_CLASSES)
    assert len(dataset.pool("test")) == len(DEMO_CLASSES)
    assert len(list(unseen_of(folder).iterdir())) == 3
    with Image.open(unseen_of(folder) / "photo_00.png") as picture:
        assert picture.mode == "RGB"


def test_interrupted_work_is_completed_to_the_same_bytes(tmp_path, small):
    whole = demo_task(tmp_path / "whole")

    stop = threading.Event()

    def listen(stage):
        if stage.done == 16:
            stop.set()

    with pytest.raises(CancelledError), listening(listen, stop):
        demo_task(tmp_path / "cut")
    cut = tmp_path / "cut" / whole.name
    assert len(list(cut.rglob("*.png"))) == 17
    assert demo_task(tmp_path / "cut") == cut
    expected = {p.relative_to(whole): p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    written = {p.relative_to(cut): p.read_bytes() for p in cut.rglob("*") if p.is_file()}
    assert written == expected


def test_root_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        demo_task(tmp_path / "file")


def test_the_words_of_the_demo_backbone_are_those_of_its_world():
    assert {*COLOURS, *TEXTURES, *SHAPES} == DEMO_WORDS
