"""The demo's steps on a small task and a tiny backbone; its numbers are not looked at here."""

import csv
import json

import pytest
from PIL import Image

from clip_adapter.demo.run import METHODS


@pytest.fixture
def small(monkeypatch, tiny, tmp_path):
    def draw(root):
        folder = root / "pictures"
        for k, name in enumerate(("red_ring", "blue_star", "old_hat")):
            for split, count in (("train", 5), ("test", 4)):
                (folder / split / name).mkdir(parents=True, exist_ok=True)
                for i in range(count):
                    colour = (80 * k, 255 - 80 * k, 20 * i + (split == "test") * 9)
                    Image.new("RGB", (40, 40), colour).save(folder / split / name / f"{i}.png")
        unseen = folder.with_name("pictures-unseen")
        unseen.mkdir(exist_ok=True)
        for i in range(2):
            Image.new("RGB", (40, 40), (200 * i, 40, 40)).save(unseen / f"{i}.png")
        return folder

    monkeypatch.setattr("clip_adapter.demo.run.demo_task", draw)
    monkeypatch.setattr("clip_adapter.demo.run.BACKBONE", tiny)
    # The linear probe is the slowest: its coarse grid alone.
    monkeypatch.setattr("clip_adapter.methods.linear_probe.BISECTIONS", 0)
    return tmp_path / "demo"


@pytest.fixture
def quick(monkeypatch):
    """The methods of the table, each with little to choose and to train."""
    few = {
        "linear-probe": {"C": 1.0},
        "clip-adapter": {"steps": 2},
        "auto": {"among": "zero-shot,gda"},
    }
    for row, (name, options) in METHODS.items():
        monkeypatch.setitem(METHODS, row, (name, options | few.get(name, {})))


def test_everything_is_made(run, small, quick):
    words = ["demo", "--out", small, "--shots", "1", "--shots", "2", "--seeds", "2"]
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    methods = {row["method"] for row in printed["rows"]}
    assert {"zero-shot", "linear-probe", "clip-adapter, visual"} <= methods
    assert len(printed["rows"]) == 2 * len(methods)
    assert all(len(row["runs"]) == 2 for row in printed["rows"])
    zero = [row for row in printed["rows"] if row["method"] == "zero-shot"]
    assert all(row["sd"] == 0 for row in zero)
    assert printed["test_pictures"] == 12
    assert json.loads((small / "table.json").read_text()) == printed["rows"]
    with (small / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(printed["rows"])
    for name in ("accuracy-by-shots.png", "confusion.png"):
        with Image.open(small / name) as image:
            assert image.width > 300
    assert len(printed["predictions"]) == 2
    again = run("predict", printed["files"]["classifier"], small / "pictures-unseen", "--json")
    assert [a["label"] for a in json.loads(again.stdout)] == [
        p["label"] for p in printed["predictions"]
    ]


def test_the_table_for_people(run, small):
    result = run("demo", "--out", small, "--shots", "1", "--seeds", "1")
    assert result.exit_code == 0, result.stderr
    for words in ("linear-probe", "clip-adapter, both", "accuracy-by-shots.png", "unseen", "Next:"):
        assert words in result.stdout
    assert "±" not in result.stdout
    assert "left out" not in result.stderr


def test_wrong_shots(run, tmp_path):
    assert run("demo", "--out", tmp_path, "--shots", "0").exit_code == 2
    (tmp_path / "file").write_text("in the way")
    result = run("demo", "--out", tmp_path / "file")
    assert result.exit_code == 2
    assert "is no folder" in result.stderr
