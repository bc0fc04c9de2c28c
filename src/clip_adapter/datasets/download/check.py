"""``check_benchmark``: what is missing, too much or damaged in a data set on disk, by name."""

from __future__ import annotations

import os
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from itertools import groupby
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from clip_adapter.datasets.catalog import Benchmark, get_benchmark
from clip_adapter.datasets.coop import (
    Listing,
    class_folders,
    find_folder,
    has_pictures,
    list_files,
    load_benchmark,
    rows_digest,
)
from clip_adapter.datasets.dataset import SPLITS
from clip_adapter.datasets.decode import decode, fault_of
from clip_adapter.datasets.walk import ENDING, Walk, is_picture
from clip_adapter.errors import DecodeError
from clip_adapter.reporting import Progress, listening, track
from clip_adapter.wording import counted, shown

# Pictures that a thread takes at once: ImageNet has a million.
_AT_ONCE = 64
# Renamed files are looked for among so few; a folder moved as a whole needs no guessing.
_MOST_PAIRS = 200


@dataclass
class Check:
    """The result of :func:`check_benchmark`.

    Attributes:
        name: the data set.
        folder: where it lies.
        classes: how many there are.
        sizes: pictures that are there, by split.
        expected: pictures that should be there, by split.
        files: pictures on disk that a split names.
        decoded: how many of them were read whole; 0 with ``fast``.
        missing: files that are not there.
        unexpected: files that no list names.
        renamed: (missing, unexpected) that may be the same file.
        unreadable: (file, reason).
        wrong: other faults, a sentence each.
        notes: what is worth knowing and no fault.
    """

    name: str
    folder: str
    classes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    files: int = 0
    decoded: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.unexpected or self.unreadable or self.wrong)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON types."""
        return {"ok": self.ok, **asdict(self)}


def check_benchmark(
    name: str,
    root: str | Path,
    fast: bool = False,
    progress: Progress = None,
    cancel: threading.Event | None = None,
) -> Check:
    """Compare a data set with its record and its lists, file by file.

    Args:
        name: see :func:`~clip_adapter.datasets.catalog.benchmark_names`.
        root: the folder with all sets, or the folder of this one.
        fast: leave out the decoding of every picture, which finds damaged ones.
        progress: hears of the pictures decoded, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at the next picture.

    Raises:
        UsageError: no such set.
        DataError: the set is not there, or lacks the lists that say what belongs to it.
        CancelledError: ``cancel`` was set.
    """
    record = get_benchmark(name)
    folder = find_folder(record, root)
    check = Check(record.name, shown(folder))
    check.expected = {split: size for split, size in record.sizes.items() if size}
    if not has_pictures(record, folder):
        # A copy of the hub has no files to name. Its train and val are its own; the test split is
        # the paper's.
        dataset = load_benchmark(record.name, root)
        check.classes, check.notes = len(dataset.class_names), dataset.notes
        check.sizes = {split: len(samples) for split, samples in dataset.splits.items()}
        check.files = sum(check.sizes.values())
        check.wrong += _wrong_sizes(record, check, ["test"])
        return check
    listing = list_files(record, folder, root)
    there = _compare(record, folder, listing, check)
    check.wrong += _wrong_sizes(record, check, SPLITS)
    check.wrong += _wrong_content(record, folder, listing, check)
    if not fast:
        with listening(progress, cancel):
            check.unreadable = _decode_all(folder, there)
        check.decoded = len(there) - len(check.unreadable)
    return check


def _compare(record: Benchmark, folder: Path, listing: Listing, check: Check) -> list[str]:
    """Fill in what is there and what is missing; return the listed files that are there."""
    counts = Counter(file for files in listing.files.values() for file, _ in files)
    left_out = tuple(f"{inner}/" for inner in record.left_out)
    walk = Walk(folder)
    # But what CoOp leaves out.
    on_disk = {
        file
        for top in record.picture_folders
        if (folder / top).is_dir()
        for _, content in walk.below(folder / top)
        for path in (*content.pictures, *content.without(ENDING))
        if not (file := path.relative_to(folder).as_posix()).startswith(left_out)
    }
    there = [file for file in counts if file in on_disk]
    check.classes, check.files = len(listing.labels), len(there)
    check.sizes = {
        split: sum(file in on_disk for file, _ in files)
        for split, files in listing.files.items()
        if files
    }
    check.missing = [shown(file) for file in counts if file not in on_disk]
    extra = sorted(map(shown, on_disk - counts.keys()), key=os.path.split)
    check.renamed = _pair(check.missing, extra, record.has_unused)
    # Only what is a picture, or was one before it was renamed, can be a fault.
    faults = {new for _, new in check.renamed}
    if not record.has_unused:
        faults.update(filter(is_picture, extra))
    check.unexpected = [file for file in extra if file in faults]
    if unused := sum(is_picture(file) and file not in faults for file in extra):
        check.notes.append(f"{counted(unused, 'picture')} that CoOp's splits do not use.")
    check.notes += walk.notes()
    if twice := [file for file, count in counts.items() if count > 1]:
        check.wrong.append(f"{counted(len(twice), 'picture')} named twice, as {twice[0]}.")
    return there


def _wrong_sizes(record: Benchmark, check: Check, splits: Sequence[str]) -> Iterator[str]:
    if check.classes != record.classes:
        have = counted(check.classes, "class", "classes")
        yield f"{have}; {record.title} has {record.classes:,}."
    for split in splits:
        have, want = check.sizes.get(split, 0), check.expected.get(split, 0)
        # Missing files are already named in ``check.missing``.
        if have != want and not (check.missing and have < want):
            yield f"{counted(have, 'picture')} in {split}; {record.title} has {want:,}."


def _wrong_content(
    record: Benchmark, folder: Path, listing: Listing, check: Check
) -> Iterator[str]:
    """What is wrong with the rows of the split file and with single classes."""
    file = record.side_file
    if listing.rows is not None and file is not None and file.digest:
        if rows_digest(listing.rows) == file.digest:
            check.notes.append(f"{file.name} is CoOp's, row by row.")
        else:
            yield (
                f"{file.name} is not CoOp's: other rows, or another order, so other pictures would "
                f"be drawn. CoOp's is at {file.link or record.homepage}"
            )
    for split, number in record.per_class.items():
        counts = Counter(label for _, label in listing.files[split])
        for label, name in enumerate(listing.labels):
            if counts and counts[label] != number:
                yield f"{counts[label]} of {number} pictures of {name!r} in {split}."
    if not record.numbered:
        inside = {top: class_folders(folder / top) for top in record.split_folders.values()}
        for top, keys in inside.items():
            for key in sorted(set().union(*inside.values()) - keys):
                yield f"{top}/{key}/ is missing."


def _pair(missing: list[str], extra: list[str], strict: bool) -> list[tuple[str, str]]:
    """Missing and unexpected files of one folder whose names are alike, the most alike first.

    With ``strict``, the old name must be in the new one: among pictures that no split uses there
    are always names much like any other.
    """
    by_folder = {key: list(some) for key, some in groupby(extra, os.path.dirname)}
    scored = [
        (SequenceMatcher(None, _plain(old), _plain(new), autojunk=False).ratio(), old, new)
        for old in missing[:_MOST_PAIRS]
        for new in by_folder.get(os.path.dirname(old), [])[:_MOST_PAIRS]
        if not strict or os.path.splitext(_plain(old))[0] in _plain(new)
    ]
    pairs: dict[str, str] = {}
    for _, old, new in sorted(scored, key=lambda item: (-item[0], item[1:])):
        if old not in pairs and new not in pairs.values():
            pairs[old] = new
    return list(pairs.items())


def _plain(file: str) -> str:
    # File systems and zip tools differ in how they spell an accent.
    return unicodedata.normalize("NFC", os.path.basename(file)).lower()


def _decode_all(folder: Path, files: list[str]) -> list[tuple[str, str]]:
    """(file, reason) of every picture that cannot be decoded whole."""

    def fault(file: str) -> str:
        try:
            decode((folder / file).read_bytes(), shown(file))
        except (OSError, DecodeError) as error:
            return fault_of(error, shown(file))
        return ""

    with ThreadPool() as threads:
        faults = threads.imap(fault, files, _AT_ONCE)
        counted_faults = track(faults, "Decoding", "pictures", total=len(files))
        return [(shown(file), why) for file, why in zip(files, counted_faults, strict=True) if why]
