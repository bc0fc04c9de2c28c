"""Which pictures are scored, why others are not, and what was answered on each."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from clip_adapter.features.store import content_digest


@pytest.fixture
def out(tmp_path):
    return tmp_path / "made"


@pytest.fixture
def learn(run_json, tiny, out):
    """Fits zero-shot on a folder, and gives the record that is printed."""

    def call(folder, *words):
        given = ("--backbone", tiny, "--method", "zero-shot", "--out", out, "--json")
        return run_json("fit", folder, *given, *words)

    return call


@pytest.fixture
def torn(paint_task, tmp_path):
    """Six pictures of each of three colours; two of red are blue as well."""
    folder = paint_task(tmp_path / "torn", {".": 6})
    for i in range(2):
        shutil.copy(folder / "red" / f"0{i}.png", folder / "blue" / f"also {i}.png")
    return folder


def test_what_fit_left_out_for_its_two_labels_is_never_scored(
    learn, torn, run, paint, tmp_path, out
):
    assert learn(torn)["train_pictures"] == 16
    assert "| Shots per class | at most 6 |" in (out / "README.md").read_text()
    result = run("evaluate", out, torn)
    assert result.exit_code == 1
    assert "16 were trained on, 4 lie under two labels or more" in result.stderr
    # Elsewhere one of the two labels alone is no better known.
    new = tmp_path / "new"
    paint(new / "green" / "new.png", (30, 200, 40), 9999)
    (new / "red").mkdir()
    shutil.copy(torn / "red" / "00.png", new / "red" / "one.png")
    shown = run("evaluate", out, new).stdout
    assert "Scored: 1 of 2 pictures; 1 lies under two labels or more." in shown


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_held_out_tells_of_two_labels_too(learn, torn, out, seed):
    record = learn(torn, "--hold-out", "50%", "--seed", str(seed))
    twice = {content_digest((torn / "red" / f"0{i}.png").read_bytes()) for i in range(2)}
    assert not twice & set(json.loads((out / "seen.json").read_text()))
    assert twice <= set(record["conflicting"])


def test_notes_on_copies_say_of_which_part_they_are(learn, torn, run, tiny, out):
    for i in range(2, 6):
        shutil.copy(torn / "green" / f"0{i}.png", torn / "green" / f"copy {i}.png")
    for i in range(2, 6):
        shutil.copy(torn / "red" / f"0{i}.png", torn / "blue" / f"also {i}.png")
    words = ("--backbone", tiny, "--method", "zero-shot", "--out", out)
    plain = run("fit", torn, *words).stderr
    assert "\n6 pictures are there under two labels" in plain
    assert plain.count("(blue)") == 3
    assert "; and 3 more.\n" in plain
    said = run("fit", torn, *words, "--hold-out", "50%").stderr.splitlines()
    copies = [line for line in said if "exact duplicate" in line or "two labels or more" in line]
    parts = "Of the training pictures: ", "Of the pictures held out: "
    assert all(line.startswith(parts) for line in copies)
    assert all(sum(line.startswith(part) for line in copies) for part in parts)
    assert len(copies) == len({*copies}), "once, and not again where they are scored"


def test_classes_that_were_not_scored_are_named(saved, paint_task, run, tmp_path):
    folder = paint_task(tmp_path / "p", {"test": 5}, first=9000)
    shutil.rmtree(folder / "test" / "red")
    (folder / "test" / "blue" / "00.png").unlink()
    shown = run("evaluate", saved, folder).stdout
    assert "No picture of 'red' was scored: not in this mean." in shown
    assert "Fewer than 5 pictures of 'blue' were scored: they prove little." in shown


def test_test_pictures_under_two_labels_are_not_scored(learn, paint_task, run_json, tmp_path, out):
    folder = paint_task(tmp_path / "p", {"train": 3, "test": 3})
    shutil.copy(folder / "test" / "red" / "00.png", folder / "test" / "blue" / "also.png")
    learn(folder)
    record = run_json("evaluate", out, folder, "--json")
    assert (record["n"], record["conflicting"], record["seen_in_training"]) == (8, 2, 0)


def test_what_is_held_out_and_what_is_scored_add_up(learn, torn, run, tiny, out):
    for i in range(2, 6):  # some copy of a learned picture is held out
        shutil.copy(torn / "green" / f"0{i}.png", torn / "green" / f"copy {i}.png")
    for name in ("red", "blue", "green"):
        for i in range(3):  # one that cannot be read is held out
            (torn / name / f"bad {i}.png").write_bytes(b"no picture")
    record = learn(torn, "--hold-out", "34%")
    test, bad = record["test"], 9 - len(record["skipped"])
    held = record["hold_out"]["pictures"]
    assert test["held_out"] == held == record["not_drawn"]
    assert held == test["n"] + test["left_out"] + test["conflicting"] + len(test["skipped"])
    assert len(test["skipped"]) == bad
    assert min(test["left_out"], bad) > 0
    words = ("--backbone", tiny, "--method", "zero-shot", "--out", out, "--hold-out", "34%")
    shown = run("fit", torn, *words).stdout
    assert f"Scored: {test['n']} of {held} pictures that were held out; " in shown
    again = run("evaluate", out, torn, "--split", "held-out").stdout
    assert f"Scored: {test['n']} of {held} pictures that were held out; " in again
    # What has changed since is scored by what it holds.
    shutil.copy(torn / "red" / "05.png", torn / "red" / "more.png")
    assert "held out" not in run("evaluate", out, torn, "--split", "held-out").stdout


def test_a_number_that_leaves_classes_one_picture_is_spelt_as_a_share(learn, torn, run, tiny, out):
    words = ("--backbone", tiny, "--method", "zero-shot", "--out", out, "--hold-out")
    result = run("fit", torn, *words, "20")
    assert "leaves 3 classes one picture to learn from" in result.stderr
    assert "written --hold-out 20%." in result.stderr
    for fine in ("20%", "2"):
        assert "one picture to learn from" not in run("fit", torn, *words, fine).stderr


def test_the_answers_are_written_wrong_ones_first(run, saved, photos, tmp_path):
    file = tmp_path / "answers.csv"
    result = run("evaluate", saved, photos, "--answers", file, "--json")
    assert result.exit_code == 0, result.stderr
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    record = json.loads(result.stdout)
    assert list(rows[0]) == ["path", "label", "answer", "probability"]
    assert {(Path(photos) / row["path"]).parent.name for row in rows} == {"red", "green", "blue"}
    assert all(Path(row["path"]).parent.name == row["label"] for row in rows)
    right = [row["label"] == row["answer"] for row in rows]
    assert len(rows) == record["n"] == 12
    assert 100 * sum(right) / 12 == pytest.approx(record["top1"])
    assert right == sorted(right)
    again = run("evaluate", saved, photos, "--answers", file)
    assert "in the place of an older file" in again.stderr
    for name in ("a.json", "a.txt"):
        assert run("evaluate", saved, photos, "--answers", tmp_path / name).exit_code == 0
    assert "answer" in (tmp_path / "a.txt").read_text()
    assert json.loads((tmp_path / "a.json").read_text())[0]["answer"]
    lost = run("evaluate", saved, photos, "--answers", Path(saved) / "classifier.json")
    assert (lost.exit_code, "would be lost" in lost.stderr) == (2, True)
    wrong = run("evaluate", saved, photos, "--answers", tmp_path / "a.doc")
    assert wrong.exit_code == 2
    assert "--answers" in wrong.stderr
    assert "--format" not in wrong.stderr


def test_names_that_were_given_once_are_remembered(learn, paint_task, run, run_json, tmp_path, out):
    folder = paint_task(tmp_path / "p", {"train": 3, "test": 2})
    names = tmp_path / "names.csv"
    names.write_text("folder,name\nred,crimson\ngreen,lime\nblue,navy\n")
    learn(folder, "--class-names", names)
    plain = run_json("evaluate", out, folder, "--json")
    assert plain["class_names"] == ["navy", "lime", "crimson"]
    assert (
        plain["confusion"]
        == run_json("evaluate", out, folder, "--class-names", names, "--json")["confusion"]
    )
    assert "'red' is 'crimson'" in run("evaluate", out, folder).stderr
    (folder / "test" / "red").rename(folder / "test" / "crimson")
    (folder / "train" / "red").rename(folder / "train" / "crimson")
    assert run("evaluate", out, folder).exit_code == 1  # some by label, some by name


def test_labels_that_are_also_names_are_asked_about(learn, paint_task, run, tmp_path, out):
    folder = paint_task(tmp_path / "p", {".": 3})
    names = tmp_path / "names.csv"
    names.write_text("folder,name\nred,green\ngreen,lime\nblue,navy\n")
    learn(folder, "--class-names", names)
    test = paint_task(tmp_path / "t", {".": 2}, first=50)
    assert run("evaluate", out, test).exit_code == 0  # by label: red and blue are no names
    for name in ("red", "blue"):
        shutil.rmtree(test / name)
    result = run("evaluate", out, test)
    assert result.exit_code == 1
    assert "--class-names" in result.stderr
    assert run("evaluate", out, test, "--class-names", names).exit_code == 2


def test_quotes_around_the_paths_of_a_list_are_understood(run_json, saved, paint, tmp_path):
    path = tmp_path / "my photos" / "1.png"
    paint(path, (9, 9, 200), 1)
    listed = f'\ufeff"{path}"\r\n\'{path}\'\r\n"{tmp_path}/none.png"\r\n'
    answers = run_json("predict", saved, "-", "--json", stdin=listed)
    assert [one["path"] for one in answers] == [str(path), str(path), f"{tmp_path}/none.png"]
    assert ["error" in one for one in answers] == [False, False, True]


def test_a_file_that_is_replaced_is_told(run, saved, photos, tmp_path):
    path = tmp_path / "all.csv"
    picture = next(Path(photos).rglob("*.png"))
    assert "older" not in run("predict", saved, picture, "--out", path).stderr
    assert "in the place of an older file" in run("predict", saved, picture, "--out", path).stderr
