"""Archives that are fine, and archives that want to be elsewhere."""

import contextlib
import io
import os
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clip_adapter.datasets.download.unpack as module
from clip_adapter.datasets.download.unpack import unpack
from clip_adapter.errors import DataError
from clip_adapter.reporting import listening

LAYOUT = {"2750/": "eurosat/2750/"}
FILES = {"2750/Forest/1.jpg": b"one", "2750/River/2.jpg": b"two", "notes.txt": b"left"}


def make_tar(path, files=FILES, mode="w", extra=()):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return path


def make_zip(path, files=FILES, **_):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


MAKERS = {
    "tar": make_tar,
    "tar.gz": lambda path, files=FILES: make_tar(path, files, "w:gz"),
    "tar.xz": lambda path, files=FILES: make_tar(path, files, "w:xz"),
    # DTD's archive is called .tar.gz and is a plain tar: the content counts.
    "plain.tar.gz": make_tar,
    "zip": make_zip,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_files_go_where_the_layout_says(kind, tmp_path):
    archive = MAKERS[kind](tmp_path / f"a.{kind}")
    seen = []
    with listening(seen.append):
        assert unpack(archive, tmp_path / "out", LAYOUT) == 2
    assert contents(tmp_path / "out") == {
        "eurosat/2750/Forest/1.jpg": b"one",
        "eurosat/2750/River/2.jpg": b"two",
    }
    assert seen
    assert all(stage.done <= stage.total for stage in seen)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_second_call_leaves_what_is_there_and_tells_what_differs(kind, tmp_path, lines):
    archive = MAKERS[kind](tmp_path / f"a.{kind}")
    unpack(archive, tmp_path / "out", LAYOUT)
    whole = tmp_path / "out/eurosat/2750/Forest/1.jpg"
    mine = tmp_path / "out/eurosat/2750/River/2.jpg"
    before = whole.stat().st_ino
    assert not lines.messages
    mine.write_bytes(b"edited")
    unpack(archive, tmp_path / "out", LAYOUT)
    assert whole.stat().st_ino == before
    assert mine.read_bytes() == b"edited"
    assert "1 file in" in lines.messages[0]
    mine.unlink()
    unpack(archive, tmp_path / "out", LAYOUT)
    assert mine.read_bytes() == b"two"
    assert len(lines.messages) == 1


PATHS = (
    "2750/../../evil",
    "2750/../evil",
    "2750//etc/evil",
    "2750/./evil",
    "2750/a/../../../evil",
    "2750/..",
    "2750/a\\..\\evil",
    "2750/C:evil",
)


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("name", PATHS)
def test_no_path_leads_outside(make, name, tmp_path):
    archive = make(tmp_path / "a", {name: b"evil"})
    with pytest.raises(DataError, match="may lead outside"):
        unpack(archive, tmp_path / "out", LAYOUT)
    assert contents(tmp_path) == {"a": archive.read_bytes()}


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("name", ["../evil", "/evil", "C:/evil", "..\\evil"])
def test_what_the_layout_leaves_out_harms_nobody(make, name, tmp_path, lines):
    archive = make(tmp_path / "a", {name: b"evil", **FILES})
    assert unpack(archive, tmp_path / "out", LAYOUT) == 2
    assert set(contents(tmp_path)) == {"a", *(f"out/eurosat/{n}" for n in FILES if "2750" in n)}
    assert lines.messages == ["a: 1 file whose path may lead outside stayed in there."]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["..", ".", "", "a", "/", "b\\c", "x:y"]), min_size=1, max_size=6))
def test_whatever_the_path_nothing_is_written_outside(tmp_path, parts):
    archive = make_zip(tmp_path / "a.zip", {"2750/" + "/".join(parts) + "/f": b"x"})
    with contextlib.suppress(DataError):
        unpack(archive, tmp_path / "in" / "out", LAYOUT)
    inside = tmp_path / "in/out/eurosat/2750"
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]
    assert all(path.resolve().is_relative_to(inside.resolve()) for path in files)


def link(kind, name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    "info",
    [
        link(tarfile.SYMTYPE, "2750/out", "/etc"),
        link(tarfile.SYMTYPE, "2750/in", "Forest/1.jpg"),
        link(tarfile.LNKTYPE, "2750/hard", "2750/Forest/1.jpg"),
        link(tarfile.CHRTYPE, "2750/device", ""),
        link(tarfile.FIFOTYPE, "2750/pipe", ""),
    ],
    ids=lambda info: info.name,
)
def test_no_links_and_no_devices(info, tmp_path):
    archive = make_tar(tmp_path / "a.tar", extra=[info])
    with pytest.raises(DataError, match="a link or a device"):
        unpack(archive, tmp_path / "out", LAYOUT)
    assert not (tmp_path / "out/eurosat" / info.name).exists()


def test_no_links_in_a_zip(tmp_path):
    info = zipfile.ZipInfo("2750/out")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(DataError, match="a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out", LAYOUT)


def test_modes_of_the_archive_are_not_taken_over(tmp_path):
    info = tarfile.TarInfo("2750/a.jpg")
    info.mode = 0o6777
    unpack(make_tar(tmp_path / "a.tar", {}, extra=[info]), tmp_path / "out", LAYOUT)
    assert not (tmp_path / "out/eurosat/2750/a.jpg").stat().st_mode & 0o7111


def test_a_folder_that_the_user_linked_is_followed(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "out/eurosat").mkdir(parents=True)
    (tmp_path / "out/eurosat/2750").symlink_to(tmp_path / "big")
    unpack(make_tar(tmp_path / "a.tar"), tmp_path / "out", LAYOUT)
    assert (tmp_path / "big/Forest/1.jpg").read_bytes() == b"one"


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_bombs_are_stopped(make, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FREE_GROWTH", 1000)
    monkeypatch.setattr(module, "MAX_GROWTH", 2)
    files = {f"2750/{i}.jpg": b"\0" * 5_000_000 for i in range(3)}
    plain = make(tmp_path / "plain", files)
    # A tar is as large as its content; squeezed, it is a bomb like a zip.
    archive = plain if make is make_zip else make_tar(tmp_path / "a", files, "w:gz")
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(archive, tmp_path / "out", LAYOUT)
    monkeypatch.setattr(module, "MAX_FILES", 1)
    with pytest.raises(DataError, match="or 1 files"):
        unpack(make(tmp_path / "many"), tmp_path / "out", LAYOUT)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_archive(kind, tmp_path):
    files = {f"2750/{i}.jpg": os.urandom(20_000) for i in range(5)}
    archive = MAKERS[kind](tmp_path / f"a.{kind}", files)
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"damaged|unpacked"):
        unpack(archive, tmp_path / "out", LAYOUT)
    for name, content in contents(tmp_path / "out").items() if (tmp_path / "out").exists() else ():
        assert files[name.removeprefix("eurosat/")] == content, "no half file gets its name"


def test_bytes_that_are_no_archive(tmp_path):
    (tmp_path / "a").write_bytes(b"<html>please log in</html>")
    with pytest.raises(DataError, match="no tar or zip"):
        unpack(tmp_path / "a", tmp_path / "out", LAYOUT)


def test_another_archive(tmp_path):
    archive = make_tar(tmp_path / "a.tar", {"other/1.jpg": b"x"})
    with pytest.raises(DataError, match=r"holds none of 2750/"):
        unpack(archive, tmp_path / "out", LAYOUT)


def test_a_disk_that_cannot_be_written(tmp_path):
    (tmp_path / "out").write_bytes(b"a file, no folder")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(make_tar(tmp_path / "a.tar"), tmp_path / "out", LAYOUT)
