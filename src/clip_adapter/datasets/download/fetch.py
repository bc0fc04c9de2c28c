"""``download``: a file from the web, resumed where it broke off, and checked before it is used."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_adapter._version import __version__
from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import replacing
from clip_adapter.wording import shown

Progress = Callable[[int, int], None]
_BLOCK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
TRIES = 5  # in a row that bring nothing new
_WAIT = 1.0  # seconds before the second try; doubled each time
_SCHEMES = ("http://", "https://")
# Other errors of the system are those of the disk.
_NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


@dataclass(frozen=True)
class Downloaded:
    """A file that came whole.

    Attributes:
        path: where it is.
        size: bytes.
        sha256: of its content.
        checked: what was compared: "sha256", "md5", both, or "" where nothing is published.
    """

    path: Path
    size: int
    sha256: str
    checked: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        secure = req.full_url.lower().startswith("https://")
        if not newurl.lower().startswith("https://" if secure else _SCHEMES):
            raise urllib.error.URLError(f"it sends on to {newurl}, which is not safe to follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Speaks http and https alone: no file:, ftp: or data: addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
    tries: int = TRIES,
) -> Downloaded:
    """Brings ``url`` to ``path``, or checks what is there already.

    What has come is kept in ``path.part``, from where a later call goes on. ``path`` appears only
    once the size and every published checksum fit; else what came is kept as ``path.wrong``.

    Args:
        url: http or https.
        path: the file to make; its folder is made too.
        size: bytes, as published.
        md5: as published.
        sha256: as published.
        progress: told (bytes here, bytes in all; the same number twice where it is not known).
        tries: how many requests in a row may bring nothing before the work is given up.

    Raises:
        UsageError: another kind of address.
        DataError: the server, the network, the disk or the content is not as it should be.
    """
    if not url.lower().startswith(_SCHEMES):
        raise UsageError(f"The address {url} is not for download.", allowed="http and https")
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _bring(url, part, size, progress, tries)
            source = part
        else:
            source = path
        return _accept(source, path, url, size, md5, sha256)
    except OSError as error:
        raise _disk_error(error, path) from error


def _bring(url: str, part: Path, size: int | None, progress: Progress | None, most: int) -> None:
    """Fills ``part``; breaks are mended as long as every few tries bring something."""
    have = part.stat().st_size if part.exists() else 0
    _check_space(part, size, have)
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _stream(url, part, size, progress)
            return
        except _NETWORK as error:
            # A 404 does not go away; 429 and 5xx may.
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            here = part.stat().st_size if part.exists() else 0
            tries = 1 if here > before else tries + 1
            if (final and getattr(error, "code", 0) != 429) or tries >= most:
                raise _network_error(error, url, part) from error
            time.sleep(_WAIT * 2 ** (tries - 1))


def _stream(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """One request, from where ``part`` ends, if the server still has the same file."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return
    request = urllib.request.Request(url)  # noqa: S310  the caller has seen to the scheme
    request.add_header("User-Agent", f"clip-adapter/{__version__}")
    request.add_header("Accept-Encoding", "identity")
    tag = _read_tag(part, url)
    if have and (tag or size is not None):
        request.add_header("Range", f"bytes={have}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        response = _opener().open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing lies behind what is here: it is whole, or of another file.
        error.close()
        if size is None and error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        raise http.client.HTTPException("the server has another file than before") from error
    with response:
        _refuse_page(response, url)
        resumed = response.status == 206
        if resumed and not (response.headers.get("Content-Range") or "").startswith(
            f"bytes {have}-"
        ):
            part.unlink()
            raise http.client.HTTPException("the server went on at another place")
        if not resumed:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else size
        _write_tag(part, url, response.headers.get("ETag"))
        _check_space(part, total, have)
        with open(part, "ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                have += len(block)
                if size is not None and have > size:
                    raise DataError(
                        f"{url} sends more than the {size:,} bytes that are published.",
                        hint=f"Remove {shown(part)} and try again, or fetch the file by hand.",
                    )
                if progress is not None:
                    progress(have, total or have)
        if total is not None and have < total:
            raise http.client.IncompleteRead(b"", total - have)


def _refuse_page(response: Any, url: str) -> None:
    if response.headers.get_content_type() == "text/html":
        raise DataError(
            f"{url} answers with a web page instead of the file.",
            hint="It may ask for a login or a click: open it in a browser.",
        )


def _accept(
    source: Path, path: Path, url: str, size: int | None, md5: str | None, sha256: str | None
) -> Downloaded:
    """Compares ``source`` with what is published and gives it its name."""
    found = _digests(source)
    here = source.stat().st_size
    wanted = {"sha256": sha256, "md5": md5}
    differs = [
        f"{kind} {found[kind]} instead of {value}"
        for kind, value in wanted.items()
        if value is not None and found[kind] != value
    ]
    if size is not None and here != size:
        differs.append(f"{here:,} bytes instead of {size:,}")
    if differs:
        aside = path.with_name(f"{path.name}.wrong")
        os.replace(source, aside)
        _tag_path(source).unlink(missing_ok=True)
        raise DataError(
            f"{path.name} from {url} is not what was published: {'; '.join(differs)}.",
            hint=f"It is kept as {shown(aside)}. Try again; if it stays so, the file has changed.",
        )
    if source != path:
        os.replace(source, path)
        _tag_path(source).unlink(missing_ok=True)
    checked = " and ".join(kind for kind, value in wanted.items() if value is not None)
    return Downloaded(path, here, found["sha256"], checked)


def _digests(path: Path) -> dict[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            md5.update(block)
    return {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}


def _tag_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_tag(part: Path, url: str) -> str | None:
    """The server's name for the content that ``part`` is the beginning of."""
    try:
        told = json.loads(_tag_path(part).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or told.get("url") != url:
        return None
    tag = told.get("etag")
    return tag if isinstance(tag, str) and tag.isprintable() else None


def _write_tag(part: Path, url: str, etag: str | None) -> None:
    # A weak tag promises the same meaning, not the same bytes.
    if etag is None or etag.startswith("W/"):
        _tag_path(part).unlink(missing_ok=True)
        return
    with replacing(_tag_path(part)) as temporary:
        temporary.write_text(json.dumps({"url": url, "etag": etag}), "utf-8")


def _check_space(part: Path, total: int | None, have: int) -> None:
    if total is None:
        return
    free = shutil.disk_usage(part.parent).free
    if total - have > free:
        raise DataError(
            f"{total - have:,} bytes are to come, and {shown(part.parent)} has {free:,} free.",
            hint="Free some space, or name another --root.",
        )


def _network_error(error: Exception, url: str, part: Path) -> DataError:
    reason = getattr(error, "reason", None) or error
    code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
    kept = part.stat().st_size if part.exists() else 0
    return DataError(
        f"{url} cannot be downloaded: {code}{str(reason) or type(reason).__name__}",
        hint="Check the connection and run the same command again"
        + (f": it goes on after the {kept:,} bytes that are here." if kept else ".")
        + " Or fetch the file in a browser.",
    )


def _disk_error(error: OSError, path: Path) -> DataError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return DataError(
        f"{shown(path)} cannot be written: {error.strerror or error}.",
        hint="Free some space and run the same command again: it goes on where it stopped."
        if full
        else "Check the folder's rights, or name another --root.",
    )
