"""``download``: a file from the web, resumed where it broke off, and checked before it is used."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from clip_adapter._version import __version__
from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import read_json, write_file, writing
from clip_adapter.reporting import Tracker, log, tracking
from clip_adapter.wording import shown

_BLOCK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
TRIES = 5  # in a row that bring nothing new
_WAIT = 1.0  # seconds before the second try; doubled each time
_ELSEWHERE = "name another --root. The same command goes on where it stopped"
_SCHEMES = ("http://", "https://")
# Other errors of the system are those of the disk.
_NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        secure = req.full_url.lower().startswith("https://")
        if not newurl.lower().startswith("https://" if secure else _SCHEMES):
            raise urllib.error.URLError(f"it sends on to {newurl}, which is not safe to follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    tries: int = TRIES,
) -> dict[str, Any]:
    """Bring ``url`` to ``path``, or check what is there already.

    What has come is kept in ``path.part``, from where a later call goes on. ``path`` appears only
    once the size and every published checksum fit; else what came, or was there, is kept as
    ``path.wrong``, beside others of that name.

    Args:
        url: http or https.
        path: the file to make; its folder is made too.
        size: bytes, as published.
        md5: as published.
        sha256: as published.
        tries: how many requests in a row may bring nothing before the work is given up.

    Returns:
        What came: "from" where, "bytes", "sha256", what was "checked" ("sha256", "md5", both, or
        "no published checksum"), and "at" what time.

    Raises:
        UsageError: another kind of address.
        DataError: the server, the network, the disk or the content is not as it should be.
    """
    if not url.lower().startswith(_SCHEMES):
        raise UsageError(f"The address {url} is not for download.", allowed="http and https")
    part = path.with_name(f"{path.name}.part")
    with writing(path, _ELSEWHERE):
        if not path.exists():
            _download_part(url, part, size, tries)
        source = path if path.exists() else part
        digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
        with open(source, "rb") as file:
            while block := file.read(_BLOCK):
                for digest in digests.values():
                    digest.update(block)
        here = {kind: digest.hexdigest() for kind, digest in digests.items()}
        published = {k: v for k, v in {"sha256": sha256, "md5": md5}.items() if v is not None}
        differs = [f"{k} {here[k]} instead of {v}" for k, v in published.items() if v != here[k]]
        if size not in (None, _size(source)):
            differs.append(f"{_size(source):,} bytes instead of {size:,}")
        ends = itertools.chain([""], map(".{}".format, itertools.count(2)))
        wrong = (path.with_name(f"{path.name}.wrong{end}") for end in ends)
        place = next(one for one in wrong if not os.path.lexists(one)) if differs else path
        os.replace(source, place)
        Path(f"{part}.json").unlink(missing_ok=True)
    if differs:
        raise DataError(
            f"{path.name} from {url} is not what was published: {'; '.join(differs)}.",
            hint=f"It is kept as {shown(place)}. Try again; if it stays so, the file has changed.",
        )
    checked = " and ".join(published) or "no published checksum"
    how = f"{checked} as published"
    if not published:
        how = f"{checked}: kept what came, sha256 is {here['sha256']}"
    log.info(f"{path.name}: {_size(path):,} bytes, {how}.")
    return {
        "from": url,
        "bytes": _size(path),
        "sha256": here["sha256"],
        "checked": checked,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _download_part(url: str, part: Path, size: int | None, most: int) -> None:
    """Fill ``part``; try again after a break, up to ``most`` times without a new byte."""
    _check_space(part, size)
    tries = 0
    with tracking(f"Downloading {part.stem}", size or 0, "bytes") as tracker:
        while True:
            before = _size(part)
            try:
                return _stream(url, part, size, tracker)
            except _NETWORK as error:
                have, code = _size(part), getattr(error, "code", None)
                tries = 1 if have > before else tries + 1
                # A 404 does not go away; 429 and 5xx may.
                if (code and code < 500 and code != 429) or tries >= most:
                    reason = str(error if code else getattr(error, "reason", error))
                    kept = f": it goes on after the {have:,} bytes that are here" if have else ""
                    raise DataError(
                        f"{url} cannot be downloaded: {reason or type(error).__name__}",
                        hint=f"Check the connection and run the same command again{kept}. Or fetch "
                        "the file in a browser.",
                    ) from error
                time.sleep(_WAIT * 2 ** (tries - 1))


def _stream(url: str, part: Path, size: int | None, tracker: Tracker) -> None:
    """One request, from where ``part`` ends, if the server still has the same file."""
    have = _size(part)
    if have == size:
        return
    # Where the part comes from, and the server's name for its content.
    note, etag = Path(f"{part}.json"), ""
    with contextlib.suppress(DataError):  # none yet, or a damaged one
        kept = read_json(note, "The note", dict[str, str], "")
        etag = kept.get("etag", "") if kept.get("url") == url else ""
    headers = {"User-Agent": f"clip-adapter/{__version__}", "Accept-Encoding": "identity"}
    if have and (etag or size is not None):
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT)
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
        if response.headers.get_content_type() == "text/html":
            raise DataError(
                f"{url} answers with a web page instead of the file.",
                hint="It may ask for a login or a click: open it in a browser.",
            )
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise http.client.HTTPException("the server went on at another place")
        have = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else size
        etag = response.headers.get("ETag", "")
        # A weak tag promises the same meaning, not the same bytes.
        kept = {"url": url, "etag": "" if etag.startswith("W/") else etag}
        write_file(note, json.dumps(kept).encode())
        with open(part, "ab" if resumed else "wb") as file:
            _check_space(part, total)
            while block := response.read(_BLOCK):
                file.write(block)
                have += len(block)
                tracker.at(have, total or have)
                if size is not None and have > size:
                    raise DataError(
                        f"{url} sends more than the {size:,} bytes that are published.",
                        hint=f"Remove {shown(part)} and try again, or fetch the file by hand.",
                    )
        if total is not None and have < total:
            raise http.client.IncompleteRead(b"", total - have)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(part: Path, total: int | None) -> None:
    free, need = shutil.disk_usage(part.parent).free, (total or 0) - _size(part)
    if need > free:
        raise DataError(
            f"{need:,} bytes are to come, and {shown(part.parent)} has {free:,} free.",
            hint="Free some space, or name another --root.",
        )
