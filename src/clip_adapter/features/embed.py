"""``embed``: pictures through a frozen backbone, each content once, resumed after a kill.

The rows that are missing are embedded in order, in batches of one size. What the store holds after
a kill is a run of whole batches from the start, so the batches of the next run are composed as
those of an undisturbed one, and the features are the same to the bit.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from clip_adapter.backbones.base import Backbone
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import fault_of
from clip_adapter.errors import DataError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.pixels import Pictures, decoders
from clip_adapter.features.store import FeatureStore, Shelf, content_digest
from clip_adapter.reporting import Progress, Tracker, listening, log, tracking
from clip_adapter.wording import counted

# A shard is written after this many rows or seconds, whichever comes first: what a kill can cost.
_SHARD_ROWS = 2048
_SHARD_SECONDS = 5.0
_AHEAD = 3  # batches that are decoded while the model works

_SHOWN_TWINS = 3

Batch = tuple[list[int], Tensor]


@dataclass(frozen=True)
class BadPicture:
    """A picture that was skipped, and why."""

    name: str
    reason: str


def embed(
    backbone: Backbone,
    samples: Sequence[Sample],
    class_names: list[str],
    *,
    store: FeatureStore | None = None,
    preprocess: str = "clip",
    views: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    unreadable: Literal["skip", "stop", "return"] = "skip",
    progress: Progress = None,
    cancel: threading.Event | None = None,
) -> tuple[FeatureSet, list[BadPicture]]:
    """Raw features of pictures, from the store where they are known.

    Args:
        backbone: the frozen model.
        samples: N pictures.
        class_names: C names in label order.
        store: where features are kept; None keeps nothing.
        preprocess: how pictures are cut to size, "clip" or "coop".
        views: 1 is the plain (test) view; V > 1 are V random views of training, and the plain one
            beside them.
        seed: of the random views.
        batch_size: pictures per batch. A last, smaller batch is filled up with zeros to a power
            of two. Out of memory, a backbone halves its batches by itself.
        unreadable: what becomes of pictures that cannot be read. "skip": they are counted in a
            warning, and it is an error when none can be read. "stop": one is an error. "return":
            they are returned without a message.
        progress: hears how far the work is, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at its next step.

    Returns:
        The features (V, n, D) of the n readable pictures in the order of ``samples`` (for V > 1
        with ``plain`` (n, D)), and the pictures that were skipped.

    Raises:
        DataError: there are no pictures, none can be read, or with "stop" one cannot.
        StoreError: the store cannot be written.
        CancelledError: ``cancel`` was set.
    """
    if not backbone.fingerprint:
        store = None  # nothing tells its features from those of another one
    numbers = [*range(views), None] if views > 1 else [None]
    with listening(progress, cancel), decoders() as pool:
        contents = list(pool.map(_digest, samples))
        reasons = {i: reason for i, (_, reason) in enumerate(contents) if reason}
        copies: dict[str, list[int]] = {}
        for i, (digest, _) in enumerate(contents):
            if digest:
                copies.setdefault(digest, []).append(i)
        distinct = [samples[places[0]] for places in copies.values()]
        pictures = Pictures(distinct, copies, backbone.preprocess, preprocess, seed)
        tables = torch.zeros(len(numbers), len(copies), backbone.embed_dim)
        work = _Work(backbone, pictures, list(copies), pool, batch_size)
        for table, number in zip(tables, numbers, strict=True):
            work.fill(table, number, store)
    row_of = {digest: row for row, digest in enumerate(copies)}
    for digest, reason in work.broken.items():
        reasons |= dict.fromkeys(copies.pop(digest), reason)
    skipped = [BadPicture(samples[i].name, reasons[i]) for i in sorted(reasons)]
    _report_copies(copies.values(), samples, class_names)
    if unreadable != "return":
        _report_skipped(skipped, len(samples), unreadable == "stop")
    kept = [i for i in range(len(samples)) if i not in reasons]
    features = tables[:, [row_of[contents[i][0]] for i in kept]]
    embedded = FeatureSet(
        features[:views],
        torch.tensor([samples[i].label for i in kept], dtype=torch.long),
        class_names,
        [samples[i].name for i in kept],
        [contents[i][0] for i in kept],
        plain=features[-1] if views > 1 else None,
    )
    return embedded, skipped


def _digest(sample: Sample) -> tuple[str, str]:
    """The content digest of a picture and "", or "" and why it cannot be read."""
    try:
        return content_digest(sample.read()), ""
    except (OSError, DataError) as error:
        return "", fault_of(error, sample.name)


@dataclass
class _Work:
    """Pictures of distinct content through a backbone.

    Attributes:
        digests: of the contents, row by row as ``pictures``.
        broken: why a content cannot be decoded, by its digest; filled on the way.
    """

    backbone: Backbone
    pictures: Pictures
    digests: list[str]
    pool: ThreadPoolExecutor
    batch_size: int
    broken: dict[str, str] = field(default_factory=dict)

    def fill(self, table: Tensor, view: int | None, store: FeatureStore | None) -> None:
        """Fill ``table`` (U, D) with the features of a view, from the store and by embedding.

        Rows of pictures that cannot be decoded stay as they are.
        """
        shelf = None
        if store is not None:
            # All that decides a row, besides the picture's content.
            key = {
                "kind": "image",
                "fingerprint": self.backbone.fingerprint,
                "dtype": self.backbone.dtype,
                **self.pictures.describe(view),
            }
            shelf = store.shelf(key, self.backbone.name)
            shelf.refresh()
        if not self._missing(table, shelf):
            return
        with shelf.lock() if shelf is not None else nullcontext():
            missing = self._missing(table, shelf)
            with tracking("Embedding", len(missing), "pictures") as tracker:
                for rows, features in _shards(self._batches(missing, view, tracker)):
                    if shelf is not None:
                        shelf.put([self.digests[row] for row in rows], features)
                    table[rows] = features

    def _missing(self, table: Tensor, shelf: Shelf | None) -> list[int]:
        """Copy the rows that ``shelf`` holds into ``table``; return the others."""
        rows = [row for row, digest in enumerate(self.digests) if digest not in self.broken]
        if shelf is None:
            return rows
        features, absent = shelf.get([self.digests[row] for row in rows])
        if features is not None:
            present = sorted({*range(len(rows))} - {*absent})
            table[[rows[i] for i in present]] = features[present]
        return [rows[i] for i in absent]

    def _batches(self, missing: list[int], view: int | None, tracker: Tracker) -> Iterator[Batch]:
        """Features batch by batch; broken pictures take no place."""
        decoded = self._decoded(missing, view, tracker)
        while batch := list(islice(decoded, self.batch_size)):
            rows, pixels = zip(*batch, strict=True)
            size = min(self.batch_size, 1 << (len(rows) - 1).bit_length())
            images = torch.zeros(size, *pixels[0].shape)
            images[: len(rows)] = torch.stack(pixels)
            yield list(rows), self.backbone.encode_images(images)[: len(rows)]
            tracker.advance(len(rows))

    def _decoded(
        self, missing: list[int], view: int | None, tracker: Tracker
    ) -> Iterator[tuple[int, Tensor]]:
        """The rows that can be decoded, in order, with their pixels (3, S, S)."""
        ahead: deque[tuple[int, Future[Tensor]]] = deque()
        waiting = iter(missing)
        try:
            while True:
                for row in islice(waiting, _AHEAD * self.batch_size - len(ahead)):
                    load = self.pool.submit(self.pictures.load, row, view, unchanged=True)
                    ahead.append((row, load))
                if not ahead:
                    return
                row, load = ahead.popleft()
                try:
                    pixels = load.result()
                except (OSError, DataError) as error:
                    self.broken[self.digests[row]] = fault_of(error, self.pictures.name(row))
                    tracker.advance()
                else:
                    yield row, pixels
        finally:
            for _, load in ahead:
                load.cancel()


def _shards(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches joined to runs of so many rows or seconds."""
    rows: list[int] = []
    parts: list[Tensor] = []
    start = time.monotonic()
    for some, features in batches:
        rows += some
        parts.append(features)
        if len(rows) >= _SHARD_ROWS or time.monotonic() - start > _SHARD_SECONDS:
            yield rows, torch.cat(parts)
            rows, parts, start = [], [], time.monotonic()
    if rows:
        yield rows, torch.cat(parts)


def _report_copies(
    copies: Iterable[list[int]], samples: Sequence[Sample], class_names: list[str]
) -> None:
    """Log which contents are there more than once: under two labels, or within a class.

    ``copies`` holds the places in ``samples`` of each content. Unlabelled pictures are of no class.
    """
    torn: list[str] = []
    extra = 0
    for places in copies:
        labelled = [i for i in places if samples[i].label >= 0]
        place_of = {samples[i].label: i for i in reversed(labelled)}
        extra += len(labelled) - len(place_of)
        if len(place_of) > 1:
            names = [
                f"{_on_one_line(samples[i].name)} ({class_names[samples[i].label]})"
                for i in sorted(place_of.values())
            ]
            torn.append(" = ".join(names[:2]))
    if torn:
        shown = "; ".join(torn[:_SHOWN_TWINS]) + ("; ..." if len(torn) > _SHOWN_TWINS else "")
        what = counted(len(torn), "picture is", "pictures are")
        log.warning(f"Warning: {what} there under two labels or more: {shown}.")
    if extra:
        what = counted(extra, "picture is an exact duplicate", "pictures are exact duplicates")
        log.warning(f"{what} of another one of the same class.")


def _on_one_line(name: str) -> str:
    """``name`` on one line: as it is, or in quotes where it holds line breaks and the like."""
    return name if name.isprintable() else repr(name)


def _report_skipped(skipped: list[BadPicture], total: int, strict: bool) -> None:
    """Name the pictures that were skipped, and warn of their number.

    Raises:
        DataError: none is left, or with ``strict`` one was skipped.
    """
    if not total:
        raise DataError("There are no pictures to embed.", hint="Check the path and the split.")
    lines = [f"{_on_one_line(one.name)}: {one.reason}" for one in skipped]
    none = len(skipped) == total
    if none or (skipped and strict):
        which = "None of the pictures can" if none else f"{len(skipped)} pictures cannot"
        raise DataError(
            f"{which} be read ({len(skipped)} of {total}):\n  " + "\n  ".join(lines),
            hint="Replace or remove them" + ("." if none else ", or leave --strict away."),
        )
    for line in lines:
        log.info(f"Skipped {line}")
    if skipped:
        warnings.warn(f"{len(skipped)} of {total} pictures skipped.", UserWarning, stacklevel=3)
