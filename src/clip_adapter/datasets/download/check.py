"""``check_benchmark``: what is missing, too much or damaged in a data set on disk, by name."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clip_adapter.datasets.catalog.base import Benchmark, get_benchmark
from clip_adapter.datasets.catalog.locate import find_folder, has_pictures
from clip_adapter.datasets.catalog.readers import (
    Listing,
    class_folders,
    list_files,
    load_benchmark,
)
from clip_adapter.datasets.coop import rows_digest
from clip_adapter.datasets.dataset import SPLITS
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.folder import PICTURE_SUFFIXES
from clip_adapter.errors import DecodeError
from clip_adapter.wording import counted, shown

Progress = Callable[[int, int], None]
# Pictures that wait for a thread at once: ImageNet has a million.
_AT_ONCE = 2048
# Renamed files are looked for among so few; a folder moved as a whole needs no guessing.
_MOST_PAIRS = 200


@dataclass
class Check:
    """What :func:`check_benchmark` found.

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
    name: str, root: str | Path, fast: bool = False, progress: Progress | None = None
) -> Check:
    """Compares a data set with its record and its lists, file by file.

    Args:
        name: see :func:`~clip_adapter.datasets.catalog.base.benchmark_names`.
        root: the folder with all sets, or the folder of this one.
        fast: leave out the decoding of every picture, which finds damaged ones.
        progress: told (pictures decoded, pictures to decode).

    Raises:
        UsageError: no such set.
        DataError: the set is not there, or lacks the lists that say what belongs to it.
    """
    record = get_benchmark(name)
    folder = find_folder(record, root)
    check = Check(record.name, shown(folder))
    check.expected = {split: size for split, size in record.sizes.items() if size}
    if not has_pictures(record, folder):
        return _check_hub_copy(record, root, check)
    listing = list_files(record, folder, root)
    check.classes = len(listing.labels)
    left_out = {f"{record.images}/{inner}" for inner in record.left_out}
    found = _walk(folder, _tops(record, listing), left_out)
    there = _compare(record, listing, found, check)
    _check_sizes(record, check)
    _check_content(record, listing, check)
    if not fast:
        check.unreadable = _decode_all(folder, there, progress)
        check.decoded = len(there) - len(check.unreadable)
    return check


def _compare(record: Benchmark, listing: Listing, found: set[str], check: Check) -> list[str]:
    """Fills in what is there and what is not; returns the files that are."""
    named = {split: [file for file, _ in files] for split, files in listing.files.items()}
    everything = [file for files in named.values() for file in files]
    there = set(everything) & found
    check.sizes = {s: sum(f in there for f in files) for s, files in named.items() if files}
    check.files = len(there)
    check.missing = [shown(file) for file in dict.fromkeys(everything) if file not in found]
    extra = sorted(found - set(everything))
    pairs = _pair(check.missing, [shown(file) for file in extra], record.has_unused)
    check.renamed = pairs
    paired = {new for _, new in pairs}
    for file in map(shown, extra):
        # Only what is a picture, or was one before it was renamed, can be a fault.
        if file in paired or (_is_picture(file) and not record.has_unused):
            check.unexpected.append(file)
    others = Counter("picture" if _is_picture(f) else "other file" for f in extra)
    unused = others["picture"] - sum(map(_is_picture, check.unexpected))
    if unused:
        check.notes.append(f"{counted(unused, 'picture')} that CoOp's splits do not use.")
    if others["other file"]:
        check.notes.append(f"{counted(others['other file'], 'file')} that are no pictures.")
    twice = [file for file, count in Counter(everything).items() if count > 1]
    if twice:
        check.wrong.append(f"{counted(len(twice), 'picture')} named twice, as {twice[0]}.")
    return [file for file in dict.fromkeys(everything) if file in there]


def _check_sizes(record: Benchmark, check: Check) -> None:
    if check.classes != record.classes:
        check.wrong.append(f"{check.classes} classes; {record.title} has {record.classes}.")
    for split in SPLITS:
        have, want = check.sizes.get(split, 0), check.expected.get(split, 0)
        # What is missing by name has been told already.
        if have != want and not (check.missing and have < want):
            check.wrong.append(f"{have:,} pictures in {split}; {record.title} has {want:,}.")


def _check_content(record: Benchmark, listing: Listing, check: Check) -> None:
    if listing.rows is not None and record.split_file is not None and record.split_file.digest:
        if rows_digest(listing.rows) != record.split_file.digest:
            check.wrong.append(
                f"{record.split_file.name} is not CoOp's: other rows, or another order, so other "
                f"pictures would be drawn. CoOp's is at {record.split_file.link}"
            )
        else:
            check.notes.append(f"{record.split_file.name} is CoOp's, row by row.")
    for split, number in record.per_class.items():
        counts = Counter(label for _, label in listing.files[split])
        for label, name in enumerate(listing.labels):
            if listing.files[split] and counts[label] != number:
                check.wrong.append(f"{counts[label]} of {number} pictures of {name!r} in {split}.")
    if record.split_folders and not record.numbered:
        by_split = {
            split: set(class_folders(listing.folder / inner))
            for split, inner in record.split_folders.items()
        }
        union = set().union(*by_split.values())
        for split, folders in by_split.items():
            for key in sorted(union - folders):
                check.wrong.append(f"{record.split_folders[split]}/{key}/ is missing.")


def _tops(record: Benchmark, listing: Listing) -> list[str]:
    """The folders to walk, relative to the set's."""
    if record.split_folders:
        return list(record.split_folders.values())
    if record.images:
        return [record.images]
    return sorted({f.split("/")[0] for files in listing.files.values() for f, _ in files})


def _walk(folder: Path, tops: Iterable[str], left_out: set[str]) -> set[str]:
    """All files below ``tops`` but those in ``left_out``, relative to ``folder``; none hidden."""
    found: set[str] = set()
    seen: set[str] = set()
    for top in tops:
        for here, folders, files in os.walk(folder / top, followlinks=True):
            # Links are followed, circles of them are not.
            real = os.path.realpath(here)
            relative = Path(here).relative_to(folder).as_posix()
            if real in seen or relative in left_out:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
            found.update(f"{relative}/{file}" for file in files if not file.startswith("."))
    return found


def _pair(missing: list[str], extra: list[str], strict: bool) -> list[tuple[str, str]]:
    """Missing and unexpected files of one folder whose names are alike, the most alike first.

    With ``strict``, the old name must be in the new one: among pictures that no split uses there
    are always names much like any other.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    for file in extra:
        by_folder[os.path.dirname(file)].append(file)
    scored = [
        (_alike(old, new), old, new)
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


def _alike(old: str, new: str) -> float:
    return difflib.SequenceMatcher(None, _plain(old), _plain(new), autojunk=False).ratio()


def _is_picture(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in PICTURE_SUFFIXES


def _decode_all(folder: Path, files: list[str], progress: Progress | None) -> list[tuple[str, str]]:
    """(file, reason) of every picture that cannot be decoded whole."""
    bad: list[tuple[str, str]] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(files), _AT_ONCE):
            part = files[start : start + _AT_ONCE]
            reasons = threads.map(lambda file: _fault(folder / file, file), part)
            for done, (file, reason) in enumerate(zip(part, reasons, strict=True), start + 1):
                if reason is not None:
                    bad.append((shown(file), reason))
                if progress is not None and (done % 64 == 0 or done == len(files)):
                    progress(done, len(files))
    return bad


def _fault(path: Path, name: str) -> str | None:
    try:
        decode(path.read_bytes(), shown(name))
    except DecodeError as error:
        return error.found.removeprefix(f"{shown(name)}: ")
    except OSError as error:
        return f"{error.strerror or error}"
    return None


def _check_hub_copy(record: Benchmark, root: str | Path, check: Check) -> Check:
    """A copy of the hub has no files to name; only its counts can be told."""
    dataset = load_benchmark(record.name, root)
    check.classes = len(dataset.class_names)
    check.sizes = {split: len(samples) for split, samples in dataset.splits.items()}
    check.files = sum(check.sizes.values())
    check.notes += dataset.notes
    if check.classes != record.classes:
        check.wrong.append(f"{check.classes} classes; {record.title} has {record.classes}.")
    test, want = check.sizes.get("test", 0), record.sizes["test"]
    if test != want:
        check.wrong.append(f"{test:,} pictures in test; {record.title} has {want:,}.")
    return check
