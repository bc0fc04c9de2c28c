"""Fetching a data set from a server of the test's own into CoOp's layout."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import huggingface_hub
import pytest

import clip_adapter.datasets.download.get as module
from clip_adapter.datasets.catalog import Archive, SideFile, base, get_benchmark
from clip_adapter.datasets.coop import load_benchmark, read_rows, rows_digest
from clip_adapter.datasets.download.get import fetch_benchmark
from clip_adapter.errors import DataError, UsageError

ROWS = {
    "train": [["Forest/1.png", 0, "Forest"]],
    "val": [],
    "test": [["Forest/2.png", 0, "Forest"]],
}


@pytest.fixture
def packed(png_bytes):
    """A tar of two pictures and something that is not wanted."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("2750/Forest/1.png", "2750/Forest/2.png", "junk/3.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png_bytes)
            archive.addfile(info, io.BytesIO(png_bytes))
    return buffer.getvalue()


@pytest.fixture
def offer(server, packed, monkeypatch, tmp_path):
    """Puts EuroSAT on the server; ``changes`` go into its record."""
    split = json.dumps(ROWS).encode()
    (tmp_path / "given.json").write_bytes(split)
    digest = rows_digest(read_rows(tmp_path / "given.json"))
    monkeypatch.setattr(base, "DRIVE_DOWNLOAD", server.url + "/{}")

    def make(sha256="right", name="eurosat", **changes):
        if sha256 == "right":
            sha256 = hashlib.sha256(packed).hexdigest()
        record = get_benchmark(name)
        server.files["/a.tar"] = packed
        archive = Archive("a.tar", {"2750/": "eurosat/2750/"}, f"{server.url}/a.tar", sha256=sha256)
        if not record.split_folders:
            server.files[f"/{record.side_file.drive}"] = split
            changes.setdefault("side_file", replace(record.side_file, digest=digest))
        record = replace(record, **{"archives": (archive,), **changes})
        monkeypatch.setattr(module, "get_benchmark", lambda _: record)
        return record

    return make


def test_everything_is_fetched_once(offer, server, tmp_path, caplog):
    caplog.set_level("INFO")
    offer()
    stages = []
    root = tmp_path / "data"
    done = fetch_benchmark("eurosat", root, progress=stages.append)
    assert done.to_do == []
    assert [s.name for s in load_benchmark("eurosat", root).splits["test"]] == ["2750/Forest/2.png"]
    assert not list((root / "downloads").iterdir()), "the archive is no longer needed"
    assert not (root / "junk").exists()
    receipt = json.loads((root / "eurosat/downloaded.json").read_text())
    assert receipt["files"]["a.tar"]["checked"] == "sha256"
    assert receipt["files"]["a.tar"]["unpacked"] == 2
    assert receipt["files"]["split_zhou_EuroSAT.json"]["checked"] == "rows"
    assert {stage.title for stage in stages} == {
        "Downloading a.tar",
        "Unpacking a.tar",
        "Downloading split_zhou_EuroSAT.json",
    }
    server.asked.clear()
    again = fetch_benchmark("eurosat", root)
    assert server.asked == []
    assert again.files == done.files
    assert "a.tar was unpacked before." in caplog.messages


def test_no_published_checksum_is_said_and_recorded(offer, packed, tmp_path, caplog):
    caplog.set_level("INFO")
    offer(sha256=None)
    done = fetch_benchmark("eurosat", tmp_path, keep=True)
    sha256 = hashlib.sha256(packed).hexdigest()
    assert any("no published checksum" in line and sha256 in line for line in caplog.messages)
    assert done.files["a.tar"]["sha256"] == sha256
    assert done.files["a.tar"]["checked"] == "no published checksum"
    assert (tmp_path / "downloads/a.tar").is_file()


def test_a_wrong_archive_is_not_unpacked(offer, tmp_path):
    offer(sha256="0" * 64)
    with pytest.raises(DataError, match="not what was published"):
        fetch_benchmark("eurosat", tmp_path)
    assert not (tmp_path / "eurosat").exists()
    assert (tmp_path / "downloads/a.tar.wrong").is_file()


def test_an_archive_that_the_user_has_is_used(offer, server, packed, tmp_path):
    offer()
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/a.tar").write_bytes(packed)
    server.files.pop("/a.tar")
    assert fetch_benchmark("eurosat", tmp_path, keep=True).files["a.tar"]["unpacked"] == 2


def test_an_archive_in_an_archive(offer, server, packed, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as outer:
        outer.writestr("caltech/inner.tar", packed)
    server.files["/outer.zip"] = buffer.getvalue()
    outer = Archive(
        "outer.zip", {"caltech/inner.tar": "downloads/inner.tar"}, f"{server.url}/outer.zip"
    )
    offer(archives=(outer, Archive("inner.tar", {"2750/": "eurosat/2750/"})))
    files = fetch_benchmark("eurosat", tmp_path).files
    assert (files["outer.zip"]["unpacked"], files["inner.tar"]["unpacked"]) == (1, 2)
    # A receipt of before does not know the inner one.
    receipt = tmp_path / "eurosat/downloaded.json"
    receipt.write_text(json.dumps({"name": "eurosat", "files": {"outer.zip": files["outer.zip"]}}))
    fetch_benchmark("eurosat", tmp_path)
    assert (tmp_path / "eurosat/2750/Forest/1.png").is_file()
    assert not list((tmp_path / "downloads").iterdir())


def test_a_side_file_that_cannot_be_fetched_is_left_to_the_user(offer, server, tmp_path):
    record = offer()
    del server.files[f"/{record.side_file.drive}"]
    done = fetch_benchmark("eurosat", tmp_path)
    (line,) = done.to_do
    assert record.side_file.link in line
    assert "split_zhou_EuroSAT.json" in line
    assert str(tmp_path / "eurosat") in line
    assert done.files["a.tar"]["unpacked"] == 2


def test_a_side_file_without_an_address_is_asked_for(offer, tmp_path):
    record = offer(side_file=SideFile("split.json"))
    (line,) = fetch_benchmark("eurosat", tmp_path).to_do
    assert line.startswith(f"Put split.json into {tmp_path / 'eurosat'}.")
    assert line.endswith(record.homepage)


@pytest.mark.parametrize("content", [json.dumps({**ROWS, "test": ROWS["train"]}), "{}", "no json"])
def test_another_side_file_is_told(offer, server, tmp_path, content):
    record = offer()
    server.files[f"/{record.side_file.drive}"] = content.encode()
    (line,) = fetch_benchmark("eurosat", tmp_path).to_do
    assert record.side_file.link in line


def test_what_only_a_person_can_do(offer, server, tmp_path):
    record = offer(name="imagenet", archives=())
    server.files[f"/{record.side_file.drive}"] = b"n01440764 tench\n"
    done = fetch_benchmark("imagenet", tmp_path)
    assert record.by_hand in done.to_do
    assert any("--hub" in line and "log in" in line for line in done.to_do)
    assert (tmp_path / "imagenet/classnames.txt").read_text() == "n01440764 tench\n"
    for split in ("train", "val"):
        (tmp_path / "imagenet/images" / split).mkdir(parents=True)
    assert fetch_benchmark("imagenet", tmp_path).to_do == []


def test_a_shift_uses_imagenets_class_names(offer, server, tmp_path):
    offer(name="imagenet_a")
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet/classnames.txt").write_text("n1 ape\n")
    assert fetch_benchmark("imagenet_a", tmp_path).to_do == []
    assert len(server.asked) == 1


def test_a_copy_of_the_hub_is_pinned_to_what_it_was(tmp_path, monkeypatch):
    asked = {}

    class Api:
        def dataset_info(self, repository):
            asked["info"] = repository
            return SimpleNamespace(sha="abc123")

    def snapshot(repository, **options):
        asked["snapshot"] = (repository, options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    done = fetch_benchmark("stanford_cars", tmp_path, hub=True)
    assert asked["info"] == "tanganke/stanford_cars"
    repository, options = asked["snapshot"]
    assert repository == "tanganke/stanford_cars"
    assert options["revision"] == "abc123"
    assert options["ignore_patterns"] == ["*.py"], "no code is fetched"
    assert options["local_dir"] == tmp_path / "stanford_cars/hub"
    assert done.hub == {"repository": repository, "revision": "abc123"}
    assert json.loads((tmp_path / "stanford_cars/downloaded.json").read_text())["hub"] == done.hub


def test_the_hub_that_cannot_be_reached(tmp_path):
    # The tests are offline: so says the library itself.
    with pytest.raises(DataError, match=r"cannot be fetched from the hub(?s:.*)auth login"):
        fetch_benchmark("imagenet", tmp_path, hub=True)
    with pytest.raises(UsageError, match="no copy on the hub"):
        fetch_benchmark("dtd", tmp_path, hub=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"files": 1}', '{"files": {"a.tar": 1}}'])
def test_a_damaged_receipt_is_no_reason_to_stop(offer, tmp_path, text):
    offer()
    (tmp_path / "eurosat").mkdir()
    (tmp_path / "eurosat/downloaded.json").write_text(text)
    assert fetch_benchmark("eurosat", tmp_path).files["a.tar"]["unpacked"] == 2


@pytest.mark.parametrize("keep", [False, True])
def test_an_archive_that_was_there_stays(offer, server, packed, tmp_path, keep, caplog):
    caplog.set_level("INFO")
    offer()
    (tmp_path / "far.tar").write_bytes(packed)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/a.tar").symlink_to(tmp_path / "far.tar")
    (tmp_path / "downloads/b.tar").write_bytes(b"of another set")
    assert fetch_benchmark("eurosat", tmp_path, keep=keep).files["a.tar"]["unpacked"] == 2
    assert (tmp_path / "downloads/a.tar").is_symlink()
    assert (tmp_path / "far.tar").read_bytes() == packed
    assert (tmp_path / "downloads/b.tar").read_bytes() == b"of another set"
    assert any("was there before and stays" in line for line in caplog.messages)
    assert "/a.tar" not in server.asked


def test_an_inner_archive_that_was_there_stays(offer, server, packed, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as outer:
        outer.writestr("caltech/inner.tar", packed)
    server.files["/outer.zip"] = buffer.getvalue()
    outer = Archive(
        "outer.zip", {"caltech/inner.tar": "downloads/inner.tar"}, f"{server.url}/outer.zip"
    )
    offer(archives=(outer, Archive("inner.tar", {"2750/": "eurosat/2750/"})))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/inner.tar").write_bytes(packed)
    fetch_benchmark("eurosat", tmp_path)
    assert [p.name for p in (tmp_path / "downloads").iterdir()] == ["inner.tar"]


def test_wrong_archives_do_not_replace_each_other(offer, server, tmp_path):
    offer(sha256="0" * 64)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/a.tar").write_bytes(b"of the user")
    for _ in range(2):
        with pytest.raises(DataError, match="not what was published"):
            fetch_benchmark("eurosat", tmp_path)
    names = {p.name: p.read_bytes() for p in (tmp_path / "downloads").iterdir()}
    assert names == {"a.tar.wrong": b"of the user", "a.tar.wrong.2": server.files["/a.tar"]}


def test_a_root_that_is_no_folder_is_told(offer, tmp_path):
    offer()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder"):
        fetch_benchmark("eurosat", tmp_path / "file")
