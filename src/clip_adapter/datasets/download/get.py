"""``fetch_benchmark``: download, check and unpack a data set of the paper into CoOp's layout."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clip_adapter.datasets.catalog.base import Archive, Benchmark, HubCopy, SideFile, get_benchmark
from clip_adapter.datasets.catalog.locate import DOWNLOADS, HUB_FOLDER, has_pictures
from clip_adapter.datasets.coop import read_rows, rows_digest
from clip_adapter.datasets.download.fetch import Downloaded, download
from clip_adapter.datasets.download.unpack import unpack
from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import read_json, write_file
from clip_adapter.reporting import Progress, listening, log
from clip_adapter.wording import first_line, shown

RECEIPT = "downloaded.json"


@dataclass
class Fetched:
    """The result of :func:`fetch_benchmark`.

    Attributes:
        name: the data set.
        folder: where it lies.
        files: what came from where, with size and sha256; also kept in ``downloaded.json`` there.
        hub: repository and revision of the copy, if one was fetched.
        to_do: what is left for the user, a sentence each; empty when the set is complete.
    """

    name: str
    folder: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    hub: dict[str, str] | None = None
    to_do: list[str] = field(default_factory=list)


def fetch_benchmark(
    name: str,
    root: str | Path,
    *,
    hub: bool = False,
    keep: bool = False,
    progress: Progress = None,
    cancel: threading.Event | None = None,
) -> Fetched:
    """Bring a data set to ``root``; what is there already is not fetched again.

    Small files that cannot be fetched are no error: ``to_do`` says which one to put where.

    Args:
        name: see :func:`~clip_adapter.datasets.catalog.base.benchmark_names`.
        root: the folder of all sets; made if it is missing.
        hub: fetch the copy on the Hugging Face hub instead of the original archives.
        keep: keep the archives once they are unpacked.
        progress: hears of the bytes that come, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at its next step.

    Raises:
        UsageError: no such set, or it has no copy on the hub.
        DataError: an archive cannot be downloaded, is not what was published, or cannot be
            unpacked.
        CancelledError: ``cancel`` was set; the same call goes on.
    """
    record = get_benchmark(name)
    root = Path(os.path.expanduser(root))
    again = f"clip-adapter data get {record.name} --root {shown(root)}"
    if hub and record.hub is None:
        raise UsageError(f"{record.title} has no copy on the hub that is known here.", hint=again)
    folder = root / record.folder
    fetched = Fetched(record.name)
    with contextlib.suppress(DataError):  # no receipt yet, or a damaged one
        fetched = read_json(folder / RECEIPT, "The receipt", Fetched, "")
    fetched.folder = shown(folder)
    with listening(progress, cancel):
        if hub and record.hub is not None:
            fetched.hub = _fetch_hub(record.hub, folder / HUB_FOLDER)
        for archive in () if hub else record.archives:
            before = fetched.files.get(archive.file, {})
            if before.get("unpacked") and (folder / record.images).is_dir():
                log.info(f"{archive.file} was unpacked before.")
                continue
            fetched.files[archive.file] = _fetch(archive, root, keep)
            _write_receipt(fetched, folder)
        for file in record.side_files:
            # The hub's copy has its own splits: CoOp's names files that are not in it.
            if not (hub and file is record.split_file):
                _fetch_side_file(record, file, folder, fetched)
    _write_receipt(fetched, folder)
    if record.by_hand and not hub and not has_pictures(record, folder):
        fetched.to_do.append(record.by_hand)
        if record.hub is not None:
            terms = ", after you accept its terms there and log in" if record.hub.login else ""
            fetched.to_do.append(f"Or take the copy on the hub{terms}: {again} --hub")
    return fetched


def _write_receipt(fetched: Fetched, folder: Path) -> None:
    receipt = {"name": fetched.name, "files": fetched.files, "hub": fetched.hub}
    write_file(folder / RECEIPT, json.dumps(receipt, indent=1).encode() + b"\n")


def _fetch(archive: Archive, root: Path, keep: bool) -> dict[str, Any]:
    """Download and unpack an archive and the one in it; return its line of the receipt."""
    assert archive.url is not None, archive.file  # noqa: S101 - only inner archives have none
    path = root / DOWNLOADS / archive.file
    published = {"size": archive.size, "md5": archive.md5, "sha256": archive.sha256}
    downloaded = download(archive.url, path, **published)
    log.info(_checked(downloaded))
    count = unpack(path, root, archive.layout)
    if archive.inner is not None:
        inner = root / DOWNLOADS / archive.inner.file
        count = unpack(inner, root, archive.inner.layout)
        inner.unlink()
    if not keep:
        path.unlink()
    log.info(f"{archive.file}: {count:,} files unpacked.")
    return {**_receipt_line(downloaded, archive.url), "unpacked": count}


def _checked(file: Downloaded) -> str:
    kept = f"no published checksum: kept what came, sha256 is {file.sha256}"
    checked = f"{file.checked} as published" if file.checked else kept
    return f"{file.path.name}: {file.size:,} bytes, {checked}."


def _receipt_line(file: Downloaded, url: str) -> dict[str, Any]:
    return {
        "from": url,
        "bytes": file.size,
        "sha256": file.sha256,
        "checked": file.checked or "no published checksum",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _fetch_side_file(record: Benchmark, file: SideFile, folder: Path, fetched: Fetched) -> None:
    path = folder / file.name
    if not path.is_file():
        other = folder.parent / "imagenet" / file.name
        if file is record.class_file and other.is_file():
            log.info(f"{file.name}: that of ImageNet is used, {shown(other)}.")
            return
        try:
            downloaded = download(file.url, path, tries=1)
        except DataError as error:
            fetched.to_do.append(
                f"Open {file.link} in a browser and put {file.name} into {shown(folder)}. "
                f"(It could not be fetched: {error.found})"
            )
            return
        fetched.files[file.name] = _receipt_line(downloaded, file.url)
        if file.digest is None:
            log.info(_checked(downloaded))
    if file.digest is None:
        return
    try:
        same = rows_digest(read_rows(path)) == file.digest
    except DataError as error:
        fetched.to_do.append(f"Replace {shown(path)}. {error.found} CoOp's is at {file.link}")
        return
    if same:
        log.info(f"{file.name}: CoOp's, row by row.")
        fetched.files.setdefault(file.name, {})["checked"] = "rows"
    else:
        fetched.to_do.append(
            f"{shown(path)} is not CoOp's split: its rows differ. Replace it by that at "
            f"{file.link}, or keep it knowingly."
        )


def _fetch_hub(hub: HubCopy, folder: Path) -> dict[str, str]:
    """A snapshot of the repository, without code; which one it was."""
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().dataset_info(hub.repository, revision=hub.revision)
        revision = str(info.sha)
        log.info(f"{hub.repository}, revision {revision}.")
        huggingface_hub.snapshot_download(
            hub.repository,
            repo_type="dataset",
            revision=revision,
            local_dir=folder,
            ignore_patterns=["*.py"],
        )
    # The library raises its own errors, those of its HTTP client, and plain ValueErrors.
    except Exception as error:
        login = "Accept the terms on its page and run 'hf auth login'. " if hub.login else ""
        raise DataError(
            f"{hub.repository} cannot be fetched from the hub: {first_line(error)}",
            hint=f"{login}Check the connection and run the same command again: it goes on where "
            "it stopped.",
        ) from error
    return {"repository": hub.repository, "revision": revision}
