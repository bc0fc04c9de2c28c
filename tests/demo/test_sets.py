"""The demo sets: what each holds, that they repeat, and that work cut off is gone on with."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from clip_adapter.datasets.folder import load_folder
from clip_adapter.demo import sets, task
from clip_adapter.demo.sets import DEMO_SETS, DEMO_SHIFTS, demo_set, demo_templates
from clip_adapter.demo.shapes import COLOURS, SHAPES, TEXTURES
from clip_adapter.demo.task import DEMO_CLASSES, class_folder
from clip_adapter.errors import DataError, UsageError
from clip_adapter.reporting import listening

DRAWN = [name for name in DEMO_SETS if name != "demo"]
COMBINATIONS = {class_folder(thing) for thing in DEMO_CLASSES}
CLASSES = {
    "demo-colours": set(COLOURS),
    "demo-textures": set(TEXTURES),
    "demo-v2": COMBINATIONS,
    "demo-sketch": COMBINATIONS,
}


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def some(name, count=8):
    """Pictures of the demo task's things as a shift shows them, (count, 96, 96, 3) in 0..255."""
    chosen = sets._SETS[name]
    return np.stack([chosen.render(chosen.classes[i % 8], 70 + i, 96) for i in range(count)])


def test_the_sets_are_those_of_the_tables():
    assert list(DEMO_SETS)[:3] == ["demo", "demo-colours", "demo-textures"]
    assert list(DEMO_SETS)[3:] == list(DEMO_SHIFTS)
    assert DEMO_SHIFTS == ("demo-v2", "demo-sketch", "demo-a", "demo-r")
    assert len(set(DEMO_SETS.values())) == 7


@pytest.mark.parametrize("name", DRAWN)
def test_sizes_of_the_splits(name):
    paths = [path.split("/") for path in sets._SETS[name].pictures()]
    splits = ("test",) if name in DEMO_SHIFTS else ("train", "test")
    classes = {kind for _, kind, _ in paths}
    expected = {(split, c): {"train": 24, "test": 30}[split] for split in splits for c in classes}
    counts = {key: sum((path[0], path[1]) == key for path in paths) for key in expected}
    assert counts == expected
    assert len(paths) == sum(expected.values())
    if name in CLASSES:
        assert classes == CLASSES[name]
    else:
        assert len(classes) == 8
        assert classes < COMBINATIONS


def test_no_two_sets_share_an_index():
    indices = [{index for _, index in one.pictures().values()} for one in sets._SETS.values()]
    assert sum(map(len, indices)) == len(set.union(*indices))


def test_no_picture_is_in_two_sets(tmp_path, small):
    folders = [demo_set(name, tmp_path) for name in DEMO_SETS]
    folders.append(task.unseen_of(folders[0]))
    pictures = [picture for folder in folders for picture in contents(folder).values()]
    assert len(set(pictures)) == len(pictures) == 147


@pytest.mark.parametrize("name", DEMO_SETS)
def test_what_was_deleted_comes_back_to_the_byte_and_the_rest_is_left_alone(tmp_path, small, name):
    folder = demo_set(name, tmp_path)
    assert folder.parent == tmp_path
    before = contents(folder)
    gone = sorted(before)[::3]
    for path in gone:
        (folder / path).unlink()
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    stages = []
    with listening(stages.append):
        assert demo_set(name, tmp_path) == folder
    assert contents(folder) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times
    drawn = len(before) + len(contents(task.unseen_of(folder)))
    assert [stage.done for stage in stages] == [*range(1, drawn + 1)]


@pytest.mark.parametrize("name", DRAWN)
def test_a_set_reads_as_a_data_set(tmp_path, small, name):
    dataset = load_folder(demo_set(name, tmp_path))
    assert set(dataset.splits) == ({"test"} if name in DEMO_SHIFTS else {"train", "test"})
    demo = load_folder(demo_set("demo", tmp_path))
    if name in DEMO_SHIFTS:
        assert set(dataset.class_names) <= set(demo.class_names)
    assert dataset.notes == []


def test_demo_is_the_task(tmp_path, small):
    assert demo_set("demo", tmp_path) == task.demo_task(tmp_path)


KILLED = """
import os, sys
from pathlib import Path
from clip_adapter.demo import sets, task
real, done = os.replace, []
def replace(part, path):
    if len(done) == 5:
        os._exit(9)
    done.append(path)
    real(part, path)
os.replace = replace
task.PER_CLASS = {"train": 2, "test": 1}
task.TASK_PICTURE_SIZE = 16
sets.demo_set("demo-v2", Path(sys.argv[1]))
"""


def test_a_killed_rendering_is_gone_on_with(tmp_path, small):
    ran = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "cut")], check=False)
    assert ran.returncode == 9
    whole = demo_set("demo-v2", tmp_path / "whole")
    cut = tmp_path / "cut" / whole.name
    # Five pictures, and a hidden part of the sixth that no reader of folders sees.
    assert len([path for path in cut.rglob("*") if path.is_file()]) == 6
    assert len(load_folder(cut).pool("test")) == 5
    assert demo_set("demo-v2", tmp_path / "cut") == cut
    visible = {p: b for p, b in contents(cut).items() if not p.name.startswith(".")}
    assert visible == contents(whole)


def test_a_full_disk_is_told_and_leaves_no_part(tmp_path, small, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(DataError, match="No space left"):
        demo_set("demo-a", tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(("name", "fixed"), [("colour", "red"), ("texture", "striped")])
def test_only_the_class_is_the_same_in_all_pictures_of_it(monkeypatch, name, fixed):
    things = []
    monkeypatch.setattr(sets, "render_task_picture", lambda t, *_: things.append(t))
    for index in range(120):
        sets._SETS[f"demo-{name}s"].render(fixed, index, 16)
    for key, options in (("colour", COLOURS), ("texture", TEXTURES), ("shape", SHAPES)):
        assert {getattr(t, key) for t in things} == ({fixed} if key == name else set(options))


def test_sketches_are_dark_lines_on_white_without_colour():
    sketches = some("demo-sketch")
    assert (sketches == sketches[..., :1]).all()
    assert np.median(sketches) > 230
    # Lines in every picture, however dim the photograph was.
    assert ((sketches < 100).mean((1, 2, 3)) > 0.02).all()


def test_hard_pictures_are_darker_and_noisier_than_fresh_ones():
    hard, fresh = some("demo-a").astype(float), some("demo-v2").astype(float)
    assert hard.mean() < 0.65 * fresh.mean()

    def grain(pictures):
        return np.abs(np.diff(pictures, axis=2)).mean() / pictures.mean()

    assert grain(hard) > 2 * grain(fresh)


def test_renditions_are_by_turns_drawings_and_posters():
    drawings, posters = some("demo-r")[::2], some("demo-r")[1::2]
    assert set(np.unique(posters)) == {0, 85, 170, 255}
    # Paper all around.
    assert (np.median(drawings, (1, 2)) > 150).all()


def test_templates_fit_the_class_names():
    for name in ("demo-colours", "demo-textures"):  # adjectives
        assert demo_templates(name) == ("a photo of a {} thing.",)
    for name in ("demo", *DEMO_SHIFTS):
        assert demo_templates(name) == ("a photo of a {}.",)


@pytest.mark.parametrize("ask", [demo_templates, lambda name: demo_set(name, None)])
def test_an_unknown_set_is_told(ask):
    with pytest.raises(UsageError, match=r"demo set 'demo-skech'\. Did you mean 'demo-sketch'"):
        ask("demo-skech")
