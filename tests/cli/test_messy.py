"""Folders as they come: each thing gives a result or a message, and never a traceback."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image


def paint(path, colour, seed, **save):
    noise = np.random.default_rng(seed).normal(0, 20, (40, 48, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))
    image.save(path, **save)
    return image


def huge_png(path):
    """A PNG whose header tells 30,000 x 30,000 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


ZERO_SHOT = ("--method", "zero-shot")
BROKEN = ("empty.jpg", "text.jpg", "truncated.jpg", "huge.png")


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    root = tmp_path_factory.mktemp("messy")
    long = "a very long label " * 14
    names = ["cats", "花 und \"Bäume\" 'x'", long.strip()[:250]]
    for k, name in enumerate(names):
        for i in range(3):
            paint(root / name / f"{i}.png", (60 * k, 200 - 60 * k, 90), 10 * k + i)
    here = root / "cats"
    (here / "empty.jpg").write_bytes(b"")
    (here / "text.jpg").write_text("not a picture at all")
    paint(here / "whole.jpg", (10, 200, 90), 91)
    (here / "truncated.jpg").write_bytes((here / "whole.jpg").read_bytes()[:400])
    deep = np.random.default_rng(5).integers(0, 65536, (20, 20), dtype=np.uint16)
    Image.fromarray(deep).save(here / "sixteen.png")
    paint(here / "rgb.jpg", (1, 2, 250), 92).convert("CMYK").save(here / "cmyk.jpg")
    frames = [Image.new("P", (20, 20), i) for i in (1, 2, 3)]
    frames[0].save(here / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1), (7, 90, 7)).save(here / "one pixel.png")
    paint(here / 'it\'s "quoted" & spaced 写真.png', (9, 9, 9), 93)
    huge_png(here / "huge.png")
    (here / "notes.docx").write_text("left out by its ending")
    (root / "nothing in here").mkdir()
    return root


def test_fit_names_skips_and_counts(run, messy, tiny, tmp_path):
    out = tmp_path / "made"
    result = run("fit", messy, *ZERO_SHOT, "--backbone", tiny, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert sorted(one["name"].rpartition("/")[2] for one in printed["skipped"]) == sorted(BROKEN)
    assert all(one["reason"] for one in printed["skipped"])
    assert printed["classes"] == 4
    for words in (*BROKEN, "4 of ", "'nothing in here' has no pictures", "1 .docx", "Cut at "):
        assert words in result.stderr
    scored = run("evaluate", out, messy, "--json")
    assert scored.exit_code == 1
    assert "16 were trained on, 4 cannot be read" in json.loads(scored.stdout)["error"]


def test_strict_stops(run, messy, tiny, tmp_path):
    result = run("fit", messy, "--backbone", tiny, "--strict", "--out", tmp_path / "made")
    assert result.exit_code == 1
    for name in BROKEN:
        assert name in result.stderr
    assert not (tmp_path / "made").exists()


def test_predict_gives_every_picture_an_entry(run, messy, saved):
    result = run("predict", saved, messy / "cats", "--json")
    assert result.exit_code == 0, result.stderr
    printed = {one["path"].rpartition("/")[2]: one for one in json.loads(result.stdout)}
    assert {name for name, one in printed.items() if "error" in one} == set(BROKEN)
    for name in ("sixteen.png", "cmyk.jpg", "moving.gif", "one pixel.png"):
        assert printed[name]["label"]


def test_plots_with_any_label(run, messy, tiny, tmp_path):
    out = tmp_path / "made"
    words = (*ZERO_SHOT, "--backbone", tiny, "--shots", "2", "--out", out)
    assert run("fit", messy, *words, "--json").exit_code == 0
    result = run("evaluate", out, messy, "--plots", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "花" in result.stdout
    assert "5 were trained on, 4 cannot be read" in result.stdout


@pytest.mark.parametrize(("method", "table"), [("auto", False), ("linear-probe", True)])
def test_one_class_only_is_refused_once_before_the_backbone(
    run, tmp_path, method, table, monkeypatch
):
    monkeypatch.delattr("clip_adapter.options.SourceOptions.load_backbone")
    for i in (1, 2):
        paint(tmp_path / "one" / "cat" / f"{i}.png", (1, 200, 3), i)
    (tmp_path / "one.csv").write_text("path,label\none/cat/1.png,cat\none/cat/2.png,cat\n")
    words = ("--method", method, "--backbone", "demo", "--out", tmp_path / "made")
    result = run("fit", tmp_path / ("one.csv" if table else "one"), *words, "--json")
    assert result.exit_code == 1
    assert result.stderr.count("only one class, 'cat'") == 1
    assert json.loads(result.stdout)["next"]


def test_nothing_to_learn_from(run, tmp_path):
    for make in ("absent", "empty", "flat"):
        folder = tmp_path / make
        if make != "absent":
            folder.mkdir()
        if make == "flat":
            paint(folder / "1.png", (1, 2, 3), 1)
        result = run("fit", folder, "--backbone", "demo", "--out", tmp_path / "made")
        assert result.exit_code == 1
        assert "Traceback" not in result.stderr
        assert "Allowed: " in result.stderr


def test_all_broken(run, tiny, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "x.jpg").write_text(name)
    result = run("fit", tmp_path / "bad", "--backbone", tiny, "--out", tmp_path / "made")
    assert result.exit_code == 1
    assert "None of the pictures can be read (2 of 2)" in result.stderr


def test_a_label_of_300_characters(run, tiny, tmp_path):
    label = "a label that does not end " * 11 + "here at last."
    assert len(label) == 299
    rows = ["path,label"]
    for k, name in enumerate((f"{label}!", "short")):
        for i in range(2):
            paint(tmp_path / f"{k}{i}.png", (200 * k, 9, 9), 10 * k + i)
            rows.append(f"{k}{i}.png,{name}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    out = tmp_path / "made"
    words = (*ZERO_SHOT, "--backbone", tiny, "--shots", "1", "--out", out)
    shown = run("fit", tmp_path / "t.csv", *words)
    assert shown.exit_code == 0, shown.stderr
    assert "Cut at " in shown.stderr
    printed = json.loads(run("evaluate", out, tmp_path / "t.csv", "--json").stdout)
    assert f"{label}!" in printed["per_class"]
    assert run("evaluate", out, tmp_path / "t.csv", "--plots", tmp_path).exit_code == 0
    assert run("predict", out, tmp_path / "00.png", "--top", "2").exit_code == 0
