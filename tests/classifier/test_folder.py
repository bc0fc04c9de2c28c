"""A classifier's folder: only its own files are replaced, and it is whole at every moment."""

import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from example_heads import NAMES, C, D, cache, draw

from clip_adapter.classifier import Classifier
from clip_adapter.classifier.folder import check_target
from clip_adapter.errors import ClassifierError
from clip_adapter.heads import Head


def with_cache(seen=("aa",)):
    head = Head(draw(C, D), cache=cache())
    return Classifier(head, NAMES, info={"method": "first"}, train_digests=seen)


def without(seen=("bb",)):
    return Classifier(Head(draw(C, D, seed=9)), NAMES, train_digests=seen)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_everything_else_stays(tmp_path):
    folder = with_cache().save(tmp_path / "m")
    others = {".git/HEAD": "ref", "notes.txt": "a week", "red/1.jpg": "a picture", ".x.new": "mine"}
    for name, text in others.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    own = {p.name for p in folder.iterdir()} - {".git", "notes.txt", "red", ".x.new"}
    check_target(folder)
    without().save(folder)
    assert {name: (folder / name).read_text() for name in others} == others
    own -= {"adapter.safetensors"}  # of the cache
    assert {p.name for p in folder.iterdir()} == own | {".git", "notes.txt", "red", ".x.new"}
    assert Classifier.load(folder).train_digests == {"bb"}


def test_links_are_followed(tmp_path):
    real = with_cache().save(tmp_path / "real")
    (tmp_path / "far").mkdir()
    for name in ("classifier.json", "class_weights.safetensors"):
        (real / name).rename(tmp_path / "far" / name)
        (real / name).symlink_to(f"../far/{name}")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "new").symlink_to("not-yet")
    for name in ("link", "new"):
        check_target(tmp_path / name)
        without().save(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert Classifier.load(tmp_path / name).train_digests == {"bb"}
    assert (real / "classifier.json").is_symlink()
    assert json.loads((tmp_path / "far/classifier.json").read_text())["side_files"]
    assert len(list((tmp_path / "far").iterdir())) == 2
    assert (tmp_path / "not-yet").is_dir()


def test_a_card_that_was_written_by_hand_stays_and_this_is_told(tmp_path, lines):
    folder = with_cache().save(tmp_path / "m")
    assert (folder / "README.md").read_text().startswith("---")
    (folder / "README.md").write_text("My own words.")
    without().save(folder)
    assert (folder / "README.md").read_text() == "My own words."
    assert [m for m in lines.messages if "README.md was written by hand" in m]
    (folder / "README.md").unlink()
    without().save(folder)
    assert (folder / "README.md").read_text().startswith("---")


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '{"weights": [1]}'])
def test_the_file_of_another_program_is_not_replaced(tmp_path, content):
    (tmp_path / "classifier.json").write_text(content)
    for attempt in (check_target, without().save):
        with pytest.raises(ClassifierError, match="not a saved classifier"):
            attempt(tmp_path)
    assert (tmp_path / "classifier.json").read_text() == content
    (tmp_path / "classifier.json").unlink()
    (tmp_path / "classifier.json").mkdir()
    with pytest.raises(ClassifierError, match="not a saved classifier"):
        check_target(tmp_path)


def test_an_empty_folder_and_a_new_volume(tmp_path):
    (tmp_path / "lost+found").mkdir()
    inode = tmp_path.stat().st_ino
    assert Classifier.load(without().save(tmp_path)).train_digests == {"bb"}
    assert tmp_path.stat().st_ino == inode, "a mounted folder cannot be renamed"
    assert (tmp_path / "lost+found").is_dir()


class Moments:
    """Copies a folder before and after each change, and in the midst of writing a file."""

    def __init__(self, folder, copies, monkeypatch):
        self.folder, self.copies, self.count = folder, copies, 0
        write, replace, unlink = Path.write_bytes, os.replace, Path.unlink

        def write_bytes(path, data):
            write(path, data[: len(data) // 2])
            self.copy()
            write(path, data)
            self.copy()

        def rename(source, target):
            self.copy()
            replace(source, target)
            self.copy()

        def remove(path, missing_ok=False):
            unlink(path, missing_ok=missing_ok)
            self.copy()

        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        monkeypatch.setattr(os, "replace", rename)
        monkeypatch.setattr(Path, "unlink", remove)

    def copy(self):
        shutil.copytree(self.folder, self.copies / str(self.count))
        self.count += 1


@pytest.mark.parametrize(("old", "new"), [(with_cache, without), (without, with_cache)])
def test_whole_at_every_moment(tmp_path, monkeypatch, old, new):
    folder = old(["old"]).save(tmp_path / "m")
    x = draw(4, D, seed=5)
    wanted = {name: make().logits(x) for name, make in (("old", old), ("new", new))}
    with monkeypatch.context() as patch:
        moments = Moments(folder, tmp_path / "moments", patch)
        new(["new"]).save(folder)
    seen = []
    for number in range(moments.count):
        copy = tmp_path / "moments" / str(number)
        loaded = Classifier.load(copy)
        (name,) = loaded.train_digests
        assert loaded.logits(x).equal(wanted[name])
        seen.append(name)
        # And what is left over goes with the next one.
        check_target(copy)
        again = {p.name: p.read_bytes() for p in new(["new"]).save(copy).iterdir()}
        assert again == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert seen == sorted(seen, reverse=True), "first the old one, then the new one"
    assert {*seen} == {"old", "new"}


def test_a_first_one_that_was_broken_off_is_no_dead_end(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    with monkeypatch.context() as patch:
        moments = Moments(tmp_path / "m", tmp_path / "moments", patch)
        without().save(tmp_path / "m")
    assert moments.count > 5
    for number in range(moments.count):
        copy = tmp_path / "moments" / str(number)
        check_target(copy)
        assert len(list(with_cache().save(copy).iterdir())) == 5


def test_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    folder = with_cache(["old"]).save(tmp_path / "m")
    names = {p.name for p in folder.iterdir()}
    write = Path.write_bytes

    def full(path, data):
        write(path, data[:10])
        if "classifier.json" in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ClassifierError, match=r"No space left on device(?s:.*)Free some space"):
        without().save(folder)
    assert {p.name for p in folder.iterdir()} == names
    assert Classifier.load(folder).train_digests == {"old"}


def test_one_of_before_that_tells_no_digests_of_side_files(tmp_path):
    folder = with_cache().save(tmp_path / "m")
    record = json.loads((folder / "classifier.json").read_text())
    del record["side_files"]
    (folder / "classifier.json").write_text(json.dumps(record))
    assert Classifier.load(folder).train_digests == {"aa"}
    without().save(folder)
    assert Classifier.load(folder).train_digests == {"bb"}
    assert "side_files" in json.loads((folder / "classifier.json").read_text())


def test_a_digest_leads_nowhere_else(tmp_path):
    folder = with_cache().save(tmp_path / "m")
    record = json.loads((folder / "classifier.json").read_text())
    record["sha256"]["adapter.safetensors"] = "/../../../../dev/zero"
    (folder / "classifier.json").write_text(json.dumps(record))
    with pytest.raises(ClassifierError, match="damaged"):
        Classifier.load(folder)


@pytest.mark.parametrize("name", ["classifier.json", "class_weights.safetensors", "seen.json"])
def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, name):
    folder = with_cache().save(tmp_path / "m")
    read = Path.read_bytes

    def refuse(path):
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ClassifierError, match=rf"{name} may not be read \(permission\)") as caught:
        Classifier.load(folder)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        folder = with_cache().save(tmp_path / "m")
        (folder / "adapter.safetensors").chmod(0o600)  # as they once were
        with_cache().save(folder)
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o666 & ~mask}


def test_several_that_are_saved_at_once_leave_one_whole(tmp_path):
    made = {"aa": with_cache(), "bb": without()}
    alone = {seen: one.save(tmp_path / seen) for seen, one in made.items()}
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda one: one.save(tmp_path / "m"), [*made.values()] * 4))
        (seen,) = Classifier.load(tmp_path / "m").train_digests
        assert contents(tmp_path / "m") == contents(alone[seen])


AGAIN_AND_AGAIN = """
import sys
from clip_adapter import Classifier
one, folder = Classifier.load(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    one.save(folder)
"""


@pytest.mark.slow
def test_two_processes_that_save_at_once_leave_one_whole(tmp_path):
    alone = {"aa": with_cache().save(tmp_path / "aa"), "bb": without().save(tmp_path / "bb")}
    words = [sys.executable, "-c", AGAIN_AND_AGAIN]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([*words, one, tmp_path / "m"], **pipes) for one in alone.values()]
    assert [run.stdout.readline() for run in runs] == ["ready\n", "ready\n"]
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    assert [run.wait() for run in runs] == [0, 0]
    for run in runs:
        run.stdin.close()
        run.stdout.close()
    (seen,) = Classifier.load(tmp_path / "m").train_digests
    assert contents(tmp_path / "m") == contents(alone[seen])


@pytest.mark.parametrize("name", ["seen.json", "class_weights.safetensors", "adapter.safetensors"])
def test_a_lost_file_is_named(tmp_path, name):
    folder = with_cache().save(tmp_path / "m")
    (folder / name).unlink()
    with pytest.raises(ClassifierError, match=f"is damaged: the file {name} is missing"):
        Classifier.load(folder)


def test_one_of_old_without_digests_says_that_it_cannot_tell(tmp_path, lines):
    folder = without().save(tmp_path / "m")
    record = json.loads((folder / "classifier.json").read_text())
    del record["side_files"]
    (folder / "classifier.json").write_text(json.dumps(record))
    assert Classifier.load(folder).train_digests == {"bb"}
    assert not lines.messages
    (folder / "seen.json").unlink()
    assert Classifier.load(folder).train_digests == set()
    assert "which pictures it learned from is not known" in lines.messages[0]


def test_what_is_no_json_is_said_with_one_colon(tmp_path):
    folder = without().save(tmp_path / "m")
    (folder / "classifier.json").write_text("{")
    with pytest.raises(ClassifierError, match="is damaged: Invalid JSON"):
        Classifier.load(folder)


def test_a_save_that_fails_leaves_no_folder(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "there").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for folder in ("new/deep/m", "there/m"):
            with pytest.raises(ClassifierError, match="No space left"):
                without().save(tmp_path / folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
