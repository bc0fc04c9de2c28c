"""Where ``--out`` leads: by the ending, through links and pipes, and never over what is read."""

import csv
import io
import json
import os
import shutil
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image


@pytest.fixture
def answers(saved, photos):
    return ["predict", saved, f"{photos}/test/red"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.csv", lambda p: list(csv.DictReader(p.read_text().splitlines()))),
        ("a.CSV", lambda p: list(csv.DictReader(p.read_text().splitlines()))),
        ("a.json", lambda p: json.loads(p.read_text())),
        ("a.jsonl", lambda p: [json.loads(line) for line in p.read_text().splitlines()]),
        ("a.parquet", lambda p: pq.read_table(p).to_pylist()),
    ],
)
def test_the_format_follows_the_ending(run, run_json, answers, tmp_path, name, read):
    result = run(*answers, "--out", tmp_path / name)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    wanted = [(one["path"], one["label"]) for one in run_json(*answers, "--json")]
    assert [(row["path"], row["label"]) for row in read(tmp_path / name)] == wanted


def test_a_text_file_is_as_the_screen(run, answers, tmp_path):
    assert run(*answers, "--out", tmp_path / "a.txt").exit_code == 0
    assert (tmp_path / "a.txt").read_text() == run(*answers).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.xlsx"], ".csv, .json, .jsonl, .parquet, .txt"),
        (["--out", "a.csv.gz"], ".csv, .json, .jsonl, .parquet, .txt"),
        (["--out", "answers"], "does not say how to write"),
        (["--out", "a.csv", "--format", "json"], "for the format csv, and json is asked for"),
        (["--out", "a.csv", "--json"], "for the format csv, and json is asked for"),
        (["--out", "a.txt", "--format", "parquet"], "for the format table"),
        (["--out", "."], "is a folder"),
        (["--out", "file/a.csv"], "file is no folder"),
    ],
)
def test_what_is_not_understood_is_told_before_the_work(run, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    result = run("predict", "no-classifier", "no-picture", *words)
    assert result.exit_code == 2
    assert message in result.stderr + result.stdout
    assert os.listdir() == ["file"]


def test_an_ending_that_says_nothing_takes_the_format_that_is_given(run, answers, tmp_path):
    result = run(*answers, "--out", tmp_path / "a.dat", "--format", "csv")
    assert "a.dat (csv)" in result.stderr
    assert (tmp_path / "a.dat").read_text().startswith("path,label")


def test_a_pipe_and_an_open_file_hear_the_answers(run, answers, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    heard = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_text()))
    reader.start()
    assert run(*answers, "--format", "csv", "--out", tmp_path / "pipe").exit_code == 0
    reader.join(10)
    rows = list(csv.DictReader(io.StringIO(heard[0])))
    assert len(rows) == 4
    assert (tmp_path / "pipe").is_fifo()
    with open(tmp_path / "log", "w") as log:
        path = f"/dev/fd/{log.fileno()}"
        assert run(*answers, "--format", "csv", "--out", path).exit_code == 0
    assert (tmp_path / "log").read_text() == heard[0]


def test_no_command_writes_over_what_it_reads(run, saved, photos, tiny, tmp_path):
    picture = Path(shutil.copy(f"{photos}/test/red/00.png", tmp_path / "a.png"))
    os.link(picture, tmp_path / "b.csv")
    (tmp_path / "f.parquet").write_text("features")
    own = Path(shutil.copytree(saved, tmp_path / "own"))
    (tmp_path / "t.parquet").symlink_to("f.parquet")
    shutil.copytree(tiny, tmp_path / "clip")
    weights = tmp_path / "clip" / "open_clip_model.safetensors"
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for words in (
        ["predict", own, picture, "--format", "csv", "--out", picture],
        ["predict", own, tmp_path, "--out", tmp_path / "b.csv"],
        ["predict", own, picture, "--out", own / "classifier.json"],
        ["predict", own, picture, "--out", own / "seen.json"],
        ["predict", own, f"{tmp_path}/f.parquet#train", "--out", tmp_path / "t.parquet"],
        ["embed", f"{tmp_path}/t.parquet", "--out", tmp_path / "f.parquet"],
        ["embed", photos, "--backbone", tmp_path / "clip", "--out", weights],
    ):
        result = run(*words)
        assert result.exit_code == 2, words
        assert "it would be lost" in result.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_folders_are_checked_before_the_work(run, saved, photos, tmp_path):
    (tmp_path / "file").write_text("mine")
    for words in (
        ["evaluate", "no-classifier", photos, "--plots"],
        ["bench", "run", "figure4", "--profile", "demo", "--out"],
        ["demo", "--out"],
        ["data", "get", "eurosat", "--root"],
    ):
        result = run(*words, tmp_path / "file")
        assert result.exit_code == 2, result.stderr
        assert "is no folder" in result.stderr
    assert run("fit", photos, "--out", tmp_path / "file").exit_code == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_the_demo_does_not_replace_files_of_others(run, tmp_path):
    (tmp_path / "table.csv").write_text("mine")
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 2
    assert "table.csv, which would be replaced" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_fit_keeps_the_pictures_that_it_learns_from(run_json, tiny, tmp_path):
    for name, colour in {"red": (250, 0, 0), "blue": (0, 0, 250)}.items():
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (*colour[:1], 9 * i, colour[2])).save(
                tmp_path / name / f"{i}.png"
            )
    words = ["fit", tmp_path, "--backbone", tiny, "--method", "zero-shot", "--json"]
    first = tmp_path.with_name("first")
    run_json(*words, "--out", first)
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    pictures = {p: p.read_bytes() for p in tmp_path.rglob("*.png")}
    run_json(*words, "--out", tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.png")} == pictures
    assert len(pictures) == 4
