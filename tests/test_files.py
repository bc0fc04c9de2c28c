"""Files are checked before the work, and written whole or not at all."""

import errno
import os
import socket
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import check_file, check_folder, replacing, write_file


def test_written_with_its_folder_and_nothing_beside_it(tmp_path):
    path = write_file(tmp_path / "new" / "a.bin", b"one")
    assert write_file(path, b"two").read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_file(tmp_path / "a.bin", b"old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    file = write_file(tmp_path / "file", b"")
    with pytest.raises(DataError, match="cannot be written"):
        write_file(file / "below" / "a.bin", b"")
    with pytest.raises(DataError, match="cannot be written"):
        write_file(tmp_path, b"")  # a folder is there


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "far").mkdir()
    for name, target in {"known": "far/a.bin", "dangling": "far/deep/b.bin"}.items():
        (tmp_path / name).symlink_to(target)
    write_file(tmp_path / "far/a.bin", b"old")
    for name in ("known", "dangling"):
        write_file(tmp_path / name, b"new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"new"
    (tmp_path / "door").symlink_to("far")
    write_file(tmp_path / "door/c.bin", b"new")
    assert sorted(p.name for p in (tmp_path / "far").iterdir()) == ["a.bin", "c.bin", "deep"]


def test_a_pipe_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        heard = []
        reader = threading.Thread(
            target=lambda heard=heard: heard.append((tmp_path / "pipe").read_bytes())
        )
        reader.start()
        check_file(tmp_path / name)
        write_file(tmp_path / name, b"row\n" * 50_000)
        reader.join(10)
        assert heard == [b"row\n" * 50_000]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]


def test_an_open_file_is_gone_on_with(tmp_path):
    with open(tmp_path / "log", "ab") as log:
        log.write(b"before\n")
        log.flush()
        for folder in ("/dev/fd", "/proc/self/fd"):
            write_file(Path(folder, str(log.fileno())), b"row\n")
    assert (tmp_path / "log").read_bytes() == b"before\nrow\nrow\n"
    check_file(Path("/dev/null"))
    assert write_file(Path("/dev/null"), b"away").is_char_device()


def test_a_full_device_says_what_to_do():
    with pytest.raises(DataError, match=r"No space left(?s:.*)Free some space, or name another"):
        write_file(Path("/dev/full"), b"x")


def test_a_reader_that_has_gone_is_no_fault_of_the_file(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        write_file(Path(f"/dev/fd/{writer}"), b"x")
    os.close(writer)


def test_a_file_that_is_mounted_is_written_in_place(tmp_path, monkeypatch):
    path = write_file(tmp_path / "a.bin", b"a longer old content")
    inode = path.stat().st_ino

    def busy(source, target):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    assert write_file(path, b"new").read_bytes() == b"new"
    assert path.stat().st_ino == inode
    with pytest.raises(DataError, match="busy"):
        write_file(tmp_path / "b.bin", b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_a_folder_that_takes_no_new_ones(tmp_path, monkeypatch):
    path = write_file(tmp_path / "a.bin", b"old")
    inode, access = path.stat().st_ino, os.access
    monkeypatch.setattr(os, "access", lambda p, *more: p != tmp_path and access(p, *more))
    assert write_file(path, b"new").read_bytes() == b"new"
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_modes_follow_the_umask(tmp_path, mask):
    from torch import ones, save, zeros

    from clip_adapter.features.feature_set import FeatureSet
    from clip_adapter.features.files import write_features

    rows = FeatureSet(ones(2, 4), zeros(2).long(), ["a"])
    before = os.umask(mask)
    try:
        write_file(tmp_path / "a.bin", b"")
        write_features(tmp_path / "a.safetensors", {"all": rows})
        with replacing(tmp_path / "a.pt") as temporary:
            save({}, temporary)
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["a.bin", "a.pt", "a.safetensors"], 0o666 & ~mask)


def test_what_cannot_be_a_file_is_told_before_the_work(tmp_path, monkeypatch):
    file = write_file(tmp_path / "file", b"x")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("socket")  # a whole path may be too long for it
    wrong = {
        tmp_path: "is a folder",
        file / "below" / "a.csv": "file is no folder",
        tmp_path / "one": "symbolic links",
        tmp_path / ("x" * 300): "too long",
        tmp_path / "socket": "neither a file nor a pipe",
    }
    for path, words in wrong.items():
        with pytest.raises((UsageError, DataError), match=words):
            check_file(path)
    with pytest.raises(UsageError, match="is no folder"):
        check_folder(file)
    check_file(tmp_path / "new" / "deep" / "a.csv")
    check_folder(tmp_path / "new" / "deep")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "one", "socket", "two"]


def test_what_is_read_is_not_written_by_any_name(tmp_path):
    file = write_file(tmp_path / "x.csv", b"x")
    (tmp_path / "soft.csv").symlink_to("x.csv")
    os.link(file, tmp_path / "hard.csv")
    for path in (file, tmp_path / "soft.csv", tmp_path / "hard.csv"):
        with pytest.raises(UsageError, match="would be lost"):
            check_file(path, inputs=["nowhere", "a\0b", file])
    with open(file) as opened, pytest.raises(UsageError, match="would be lost"):
        check_file(file, inputs=[opened.fileno()])
    check_file(file, inputs=["nowhere", tmp_path])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "Free some space, or name another place."),
        (errno.EACCES, "Ask for the right to write there, or name another place."),
        (errno.EROFS, "Next: Name another place."),
    ],
)
def test_the_reason_decides_what_to_do(tmp_path, monkeypatch, number, words):
    def refuse(**_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    for check in (check_file, check_folder):
        with pytest.raises(DataError) as caught:
            check(tmp_path / "new")
        assert os.strerror(number) in caught.value.found
        assert str(caught.value).endswith(words)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    from clip_adapter.features.files import load_features

    path, access = tmp_path / "x.safetensors", os.access
    path.write_bytes(b"of another user")
    monkeypatch.setattr(os, "access", lambda one, *more: one != path and access(one, *more))
    with pytest.raises(DataError, match=r"x\.safetensors may not be read \(permission\)"):
        load_features(path)
