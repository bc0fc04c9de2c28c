"""Downloads from a server of the test's own, which breaks off, changes and lies."""

import hashlib
import threading

import pytest

import clip_adapter.datasets.download.fetch as module
from clip_adapter.datasets.download.fetch import download
from clip_adapter.errors import CancelledError, DataError, UsageError
from clip_adapter.reporting import listening

CONTENT = bytes(i * 7 % 256 for i in range(300_000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def content(server):
    server.files["/a.tar"] = CONTENT


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole(server, tmp_path):
    seen = []
    published = {"size": len(CONTENT), "md5": MD5, "sha256": SHA256}
    with listening(seen.append):
        got = download(f"{server.url}/a.tar", tmp_path / "x/a.tar", **published)
    assert (tmp_path / "x/a.tar").read_bytes() == CONTENT
    assert (got["bytes"], got["sha256"]) == (len(CONTENT), SHA256)
    assert got["checked"] == "sha256 and md5"
    assert (seen[-1].done, seen[-1].total) == (len(CONTENT), len(CONTENT))
    assert left(tmp_path / "x") == ["a.tar"]
    # What is there is checked and not fetched again.
    assert download(f"{server.url}/a.tar", tmp_path / "x/a.tar")["sha256"] == SHA256
    assert len(server.asked) == 1


@pytest.mark.parametrize("etag", ['"1"', None])
def test_it_goes_on_where_it_broke_off(server, tmp_path, etag):
    server.etag = etag
    server.breaks = [100_000, 50_000]
    download(f"{server.url}/a.tar", tmp_path / "a.tar", size=len(CONTENT), sha256=SHA256)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_goes_on(server, tmp_path):
    server.breaks = [100_000] + [0] * 9
    with pytest.raises(DataError, match=r"goes on after the 100,000 bytes"):
        download(f"{server.url}/a.tar", tmp_path / "a.tar", sha256=SHA256)
    assert left(tmp_path) == ["a.tar.part", "a.tar.part.json"]
    server.breaks.clear()
    server.asked.clear()
    download(f"{server.url}/a.tar", tmp_path / "a.tar", sha256=SHA256)
    assert server.asked == ["bytes=100000-"]
    assert left(tmp_path) == ["a.tar"]


def test_a_download_that_is_called_off_goes_on_later(server, tmp_path):
    stop = threading.Event()
    stop.set()
    with listening(cancel=stop), pytest.raises(CancelledError, match="Downloading"):
        download(f"{server.url}/a.tar", tmp_path / "a.tar")
    assert left(tmp_path) == ["a.tar.part", "a.tar.part.json"]
    assert download(f"{server.url}/a.tar", tmp_path / "a.tar")["sha256"] == SHA256


def test_another_file_on_the_server_is_fetched_from_its_beginning(server, tmp_path):
    server.breaks = [100_000]
    with pytest.raises(DataError):
        download(f"{server.url}/a.tar", tmp_path / "a.tar", tries=1)
    server.files["/a.tar"], server.etag = CONTENT[::-1], '"2"'
    download(f"{server.url}/a.tar", tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == CONTENT[::-1]


def test_a_server_that_cannot_go_on(server, tmp_path):
    server.ranges = False
    server.breaks = [100_000]
    download(f"{server.url}/a.tar", tmp_path / "a.tar", size=len(CONTENT))
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_all_has_come_but_its_name(server, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(CONTENT)
    download(f"{server.url}/a.tar", tmp_path / "a.tar", size=len(CONTENT), sha256=SHA256)
    assert not server.asked
    (tmp_path / "b.tar.part").write_bytes(CONTENT)
    (tmp_path / "b.tar.part.json").write_text(f'{{"url": "{server.url}/a.tar", "etag": "\\"1\\""}}')
    got = download(f"{server.url}/a.tar", tmp_path / "b.tar")
    assert got["sha256"] == SHA256
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize(
    ("given", "message"), [({"md5": "0" * 32}, "md5"), ({"sha256": "0" * 64}, "sha256")]
)
def test_a_wrong_checksum_is_kept_aside(server, tmp_path, given, message):
    with pytest.raises(DataError, match=rf"{message} .* instead of 000.*(?s:.*)a\.tar\.wrong"):
        download(f"{server.url}/a.tar", tmp_path / "a.tar", **given)
    assert left(tmp_path) == ["a.tar.wrong"]
    assert (tmp_path / "a.tar.wrong").read_bytes() == CONTENT


def test_a_file_that_is_longer_than_published(server, tmp_path):
    with pytest.raises(DataError, match="more than the 1,000 bytes"):
        download(f"{server.url}/a.tar", tmp_path / "a.tar", size=1000)
    assert "a.tar" not in left(tmp_path)


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.errors = [503, 429]
    assert download(f"{server.url}/a.tar", tmp_path / "a.tar")["sha256"] == SHA256
    server.asked.clear()
    with pytest.raises(DataError, match=r"cannot be downloaded: .* 404: .*(?s:.*)browser"):
        download(f"{server.url}/none.tar", tmp_path / "none.tar")
    assert len(server.asked) == 1


def test_nobody_there(server, tmp_path):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="cannot be downloaded"):
        download(f"{url}/a.tar", tmp_path / "a.tar", tries=2)
    assert left(tmp_path) == []


def test_a_web_page_is_no_file(server, tmp_path):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="a web page instead"):
        download(f"{server.url}/a.tar", tmp_path / "a.tar")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "data:,x", "/etc/passwd"])
def test_only_the_web_is_asked(url, tmp_path):
    with pytest.raises(UsageError, match="http and https"):
        download(url, tmp_path / "a.tar")


def test_redirects_stay_on_the_web(server, tmp_path):
    server.redirects = {"/here": f"{server.url}/a.tar", "/bad": "file:///etc/hostname"}
    assert download(f"{server.url}/here", tmp_path / "a.tar")["sha256"] == SHA256
    with pytest.raises(DataError, match=r"cannot be downloaded"):
        download(f"{server.url}/bad", tmp_path / "b.tar", tries=1)
    request = module.urllib.request.Request("https://safe/x")
    with pytest.raises(module.urllib.error.URLError, match="not safe to follow"):
        module._Redirects().redirect_request(request, None, 302, "", {}, "http://plain/x")


def test_a_full_disk_is_told_before_anything_is_written(server, tmp_path):
    with pytest.raises(DataError, match=r"are to come, and .* free\.(?s:.*)--root"):
        download(f"{server.url}/a.tar", tmp_path / "a.tar", size=10**18)
    assert not server.asked


def test_a_disk_that_fills_up(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "open", full, raising=False)
    with pytest.raises(DataError, match=r"No space left(?s:.*)goes on where it stopped"):
        download(f"{server.url}/a.tar", tmp_path / "a.tar")
    assert len(server.asked) == 1
