"""``fetch_benchmark``: download, check and unpack a data set of the paper into CoOp's layout."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clip_adapter.datasets.catalog import (
    Archive,
    Benchmark,
    HubCopy,
    SideFile,
    get_benchmark,
)
from clip_adapter.datasets.coop import (
    HUB_FOLDER,
    has_pictures,
    how_to_get,
    read_rows,
    rows_digest,
)
from clip_adapter.datasets.download.fetch import download
from clip_adapter.datasets.download.unpack import unpack
from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import check_folder, read_json, write_file
from clip_adapter.reporting import Progress, listening, log
from clip_adapter.wording import first_line, shown

DOWNLOADS = "downloads"
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

    def write(self, path: Path) -> None:
        """Write the receipt of what came."""
        receipt = {"name": self.name, "files": self.files, "hub": self.hub}
        write_file(path, json.dumps(receipt, indent=1).encode() + b"\n")


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

    An archive that lies in ``downloads`` before the work is used, and stays there. Small files that
    cannot be fetched are no error: ``to_do`` says which one to put where.

    Args:
        name: see :func:`~clip_adapter.datasets.catalog.benchmark_names`.
        root: the folder of all sets; made if it is missing.
        hub: fetch the copy on the Hugging Face hub instead of the original archives.
        keep: keep the archives that were fetched, too, once they are unpacked.
        progress: hears of the bytes that come, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at its next step.

    Raises:
        UsageError: no such set, or it has no copy on the hub.
        DataError: an archive cannot be downloaded, is not what was published, or cannot be
            unpacked; or nothing may be written to ``root``.
        CancelledError: ``cancel`` was set; the same call goes on.
    """
    record = get_benchmark(name)
    root = Path(os.path.expanduser(root))
    check_folder(root)
    again = how_to_get(record, root)
    if hub and record.hub is None:
        raise UsageError(f"{record.title} has no copy on the hub that is known here.", hint=again)
    folder = root / record.folder
    fetched = Fetched(record.name)
    with contextlib.suppress(DataError):  # no receipt yet, or a damaged one
        fetched = read_json(folder / RECEIPT, "The receipt", Fetched, "")
    fetched.folder = shown(folder)
    own = {a.file for a in record.archives if (root / DOWNLOADS / a.file).exists()}
    with listening(progress, cancel):
        if hub and record.hub is not None:
            fetched.hub = _fetch_hub(record.hub, folder / HUB_FOLDER)
        for archive in () if hub else record.archives:
            gone = not archive.url and not (root / DOWNLOADS / archive.file).is_file()
            unpacked = gone or fetched.files.get(archive.file, {}).get("unpacked")
            if unpacked and has_pictures(record, folder):
                log.info(f"{archive.file} was unpacked before.")
                continue
            fetched.files[archive.file] = _fetch(archive, root, keep, archive.file in own)
            fetched.write(folder / RECEIPT)
        # The hub's copy has its own splits: CoOp's names files that are not in it.
        if record.side_file and (not hub or record.split_folders):
            fetched.to_do += _fetch_side_file(record, record.side_file, folder, fetched.files)
    fetched.write(folder / RECEIPT)
    if record.by_hand and not hub and not has_pictures(record, folder):
        fetched.to_do.append(record.by_hand)
        if record.hub is not None:
            terms = ", after you accept its terms there and log in" if record.hub.login else ""
            fetched.to_do.append(f"Or take the copy on the hub{terms}: {again} --hub")
    return fetched


def _fetch(archive: Archive, root: Path, keep: bool, own: bool) -> dict[str, Any]:
    """Download an archive, unless it came out of another, and unpack it; what to remember of it.

    It is removed then, if it is not to be kept; the user's ``own`` always stays.
    """
    path, receipt = root / DOWNLOADS / archive.file, {}
    if archive.url:
        receipt = download(
            archive.url, path, size=archive.size, md5=archive.md5, sha256=archive.sha256
        )
    count = unpack(path, root, archive.layout)
    log.info(f"{archive.file}: {count:,} files unpacked.")
    if own:
        log.info(f"{shown(path)} was there before and stays: remove it if you need the space.")
    elif not keep or not archive.url:
        path.unlink()
    return {**receipt, "unpacked": count}


def _fetch_side_file(
    record: Benchmark, file: SideFile, folder: Path, receipt: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """Fetch a file that lies beside the pictures, if it is not there; say what is left to do."""
    path, shared = folder / file.name, folder.parent / "imagenet" / file.name
    if not path.is_file() and shared.is_file():
        log.info(f"{file.name}: that of ImageNet is used, {shown(shared)}.")
        return
    if not path.is_file():
        if file.url is None:
            yield f"Put {file.name} into {shown(folder)}. Its owners may have it: {record.homepage}"
            return
        try:
            receipt[file.name] = download(file.url, path, tries=1)
        except DataError as error:
            yield (
                f"Open {file.link} in a browser and put {file.name} into {shown(folder)}. "
                f"(It could not be fetched: {error.found})"
            )
            return
    if file.digest is None:
        return
    try:
        fault = "" if rows_digest(read_rows(path)) == file.digest else "Its rows differ."
    except DataError as error:
        fault = error.found
    if fault:
        yield (
            f"{shown(path)} is not CoOp's split. {fault} Replace it by that at "
            f"{file.link or record.homepage}, or keep it knowingly."
        )
    else:
        log.info(f"{file.name}: CoOp's, row by row.")
        receipt.setdefault(file.name, {})["checked"] = "rows"


def _fetch_hub(hub: HubCopy, folder: Path) -> dict[str, str]:
    """A snapshot of the repository, without code; which one it was."""
    import huggingface_hub

    try:
        revision = str(huggingface_hub.HfApi().dataset_info(hub.repository).sha)
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
