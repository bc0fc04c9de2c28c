"""Folders as people have them, through the commands: told, counted, or refused with exit code 2."""

import json
import os
import shutil

import pytest

FIT = ("--method", "zero-shot")


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        ({"test": "eval"}, "'eval' is no split that is known"),
        ({"test": "train/red/test"}, "Put splits above the classes"),
        ({"test": "TRAIN"}, "'TRAIN' is the split train; 'train' is the split train"),
    ],
)
def test_a_layout_that_is_not_sure_is_refused(run, photos, tiny, tmp_path, moves, words):
    data = shutil.copytree(photos, tmp_path / "data")
    for name, place in moves.items():
        (data / name).rename(data / place)
    result = run("fit", data, "--backbone", tiny, *FIT, "--out", tmp_path / "made", "--json")
    assert result.exit_code == 2
    assert words in json.loads(result.stdout)["error"] + json.loads(result.stdout)["next"]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "made").exists()


def test_what_the_commands_write_is_never_learned_from(run, photos, tiny, tmp_path, monkeypatch):
    shutil.copytree(f"{photos}/train", tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert run("fit", ".", "--backbone", tiny, *FIT).exit_code == 0
    for plots in ("plots", "red"):
        assert run("evaluate", "classifier", f"{photos}/test", "--plots", plots).exit_code == 0
    out = ("--format", "csv", "--out", "answers/all.csv")
    assert run("predict", "classifier", f"{photos}/test", *out).exit_code == 0
    assert run("embed", ".", "--backbone", tiny, "--out", "files/all.parquet").exit_code == 0
    result = run("fit", ".", "--backbone", tiny, *FIT, "--out", "other", "--json")
    printed = json.loads(result.stdout)
    assert (printed["classes"], printed["train_pictures"]) == (3, 18)
    assert "'classifier', 'plots', 'red/confusion.png' (of clip-adapter)" in result.stderr
    assert "'answers', 'files' (no pictures in it, so no class)" in result.stderr
    # No mark where other things lie.
    assert not (tmp_path / "here/red/.clip-adapter-output").exists()


def test_predict_reads_folders_as_fit_does(run, saved, photos, tmp_path, monkeypatch):
    folder = shutil.copytree(f"{photos}/test/red", tmp_path / "holiday" / "train")
    elsewhere = shutil.copytree(f"{photos}/test/blue", tmp_path / "blue")
    (folder.parent / "linked").symlink_to(elsewhere)
    (folder / "back").symlink_to(folder.parent)
    for name in ("1.PSD", "2.psd", "notes.txt", "train/.x.png"):
        shutil.copy(folder / "00.png", folder.parent / name)
    for name in ("@eaDir", "closed"):
        shutil.copytree(folder, folder.parent / name, symlinks=True)
    scandir, closed = os.scandir, str(folder.parent / "closed")

    def refusing(path):
        if os.fspath(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    result = run("predict", saved, folder.parent, "--json")
    assert result.exit_code == 0
    records = json.loads(result.stdout)
    paths = [os.path.relpath(one["path"], folder.parent) for one in records]
    own = [f"{name}/0{i}.png" for name in ("linked", "train") for i in range(4)]
    assert paths == [*own, "closed"]
    assert records[-1]["error"] == "cannot be opened"
    for words in ("(2 .psd, 1 .txt)", "'@eaDir' (of the system)", "'train/.x.png' (hidden)"):
        assert words in result.stderr
    assert "'train/back' (another way to a folder that is read)" in result.stderr
    alone = run("predict", saved, closed, "--json")
    assert alone.exit_code == 1
    assert "cannot be listed: Permission denied" in json.loads(alone.stdout)[0]["error"]


def test_embed_tells_what_it_leaves_out(run, photos, tiny, tmp_path):
    folder = shutil.copytree(f"{photos}/test/red", tmp_path / "holiday")
    (folder / "1.psd").write_bytes(b"x")
    words = ("embed", folder, "--unlabelled", "--backbone", tiny, "--out", tmp_path / "f.parquet")
    result = run(*words, "--json")
    assert json.loads(result.stdout)["sets"] == {"all": 4}
    assert "1 file left out, not pictures by their ending (1 .psd)" in result.stderr
