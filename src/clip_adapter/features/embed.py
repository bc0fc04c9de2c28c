"""``extract``: pictures through a frozen backbone, each content once, resumed after a kill.

The rows that are missing are embedded in order, in batches of one size. What the store holds after
a kill is a run of whole batches from the start, so the batches of the next run are composed as
those of an undisturbed one, and the features are the same to the bit.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clip_adapter.backbones.base import Backbone
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.transforms import Transform, make_transform, view_seed
from clip_adapter.errors import DataError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.store import FeatureStore, Shelf, content_digest
from clip_adapter.reporting import log, tracking

# A shard is written after this many rows or seconds, whichever comes first: what a kill can cost.
_SHARD_ROWS = 2048
_SHARD_SECONDS = 5.0
_AHEAD = 3  # batches that are decoded while the model works

_SHOWN_TWINS = 3


@dataclass(frozen=True)
class BadPicture:
    """A picture that was skipped, and why."""

    name: str
    reason: str


def extract(
    backbone: Backbone,
    samples: Sequence[Sample],
    class_names: list[str],
    *,
    store: FeatureStore | None = None,
    style: str = "clip",
    views: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    strict: bool = False,
    allow_none: bool = False,
) -> tuple[FeatureSet, list[BadPicture]]:
    """Raw features of pictures, from the store where they are known.

    Args:
        backbone: the frozen model.
        samples: N pictures.
        class_names: C names in label order.
        store: where features are kept; None keeps nothing.
        style: "clip" or "coop" preprocessing.
        views: 1 is the plain (test) view; V > 1 are V random views of training, and the plain one
            beside them.
        seed: of the random views.
        batch_size: pictures per batch. A last, smaller batch is filled up with zeros to a power
            of two. Out of memory, a backbone halves its batches by itself.
        strict: a picture that cannot be read is an error.
        allow_none: that none of them can be read is no error.

    Returns:
        The features (V, n, D) of the n readable pictures in the order of ``samples`` (for V > 1
        with ``plain`` (n, D)), and the pictures that were skipped.

    Raises:
        DataError: there are no pictures, none can be read, or with ``strict`` one cannot.
        StoreError: the store cannot be written.
    """
    if not backbone.fingerprint:
        store = None  # nothing tells its features from those of another one
    bad: dict[int, BadPicture] = {}
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        digests = _digests(samples, pool, bad)
        where: dict[str, list[int]] = {}
        for i, digest in enumerate(digests):
            where.setdefault(digest, []).append(i)
        where.pop("", None)
        order = {digest: row for row, digest in enumerate(where)}  # each content once, in order
        numbers = [*range(views), None] if views > 1 else [None]
        tables = torch.zeros(len(numbers), len(order), backbone.embed_dim)
        for table, view in zip(tables, numbers, strict=True):
            train = view is not None
            work = _Work(backbone, make_transform(backbone.preprocess, style, train), pool)
            work.view, work.seed, work.batch_size = view, seed, batch_size
            shelf = store.shelf(work.key(), backbone.name) if store is not None else None
            wanted = [(d, samples[positions[0]]) for d, positions in where.items()]
            for digest, reason in _fill(table, order, work, wanted, shelf).items():
                for i in where.pop(digest):
                    bad[i] = BadPicture(samples[i].name, reason)
    skipped = [bad[i] for i in sorted(bad)]
    _report_twins(where, samples, class_names)  # of the readable ones: the rest is gone
    _report(skipped, len(samples), strict, allow_none)
    keep = [i for i in range(len(samples)) if i not in bad]
    found = tables[:, [order[digests[i]] for i in keep]]
    features = FeatureSet(
        found[:views],
        torch.tensor([samples[i].label for i in keep], dtype=torch.long),
        class_names,
        [samples[i].name for i in keep],
        [digests[i] for i in keep],
        plain=found[-1] if views > 1 else None,
    )
    return features, skipped


@dataclass
class _Work:
    """What is done to every picture of one view; None is the plain one."""

    backbone: Backbone
    transform: Transform
    pool: ThreadPoolExecutor
    view: int | None = None
    seed: int = 0
    batch_size: int = 64

    def key(self) -> dict[str, Any]:
        """All that decides a row, besides the picture's content."""
        return {
            "kind": "image",
            "fingerprint": self.backbone.fingerprint,
            "dtype": self.backbone.dtype,
            "transform": self.transform.describe(),
            "view": {"number": self.view, "seed": self.seed} if self.view is not None else "test",
        }

    def load(self, digest: str, sample: Sample) -> Tensor:
        """The transformed picture (3, S, S)."""
        data = sample.read()
        if content_digest(data) != digest:
            raise DataError(f"{sample.name}: the file changed while it was read.")
        picture = decode(data, sample.name)
        if self.view is None:
            return self.transform(picture)
        return self.transform(picture, view_seed(digest, self.view, self.seed))


def _digests(
    samples: Sequence[Sample], pool: ThreadPoolExecutor, bad: dict[int, BadPicture]
) -> list[str]:
    """Content digests of all samples; "" for one that cannot be read, which goes to ``bad``."""

    def digest(sample: Sample) -> str | BadPicture:
        try:
            return content_digest(sample.read())
        except (OSError, DataError) as error:
            return BadPicture(sample.name, _reason(error, sample.name))

    found = list(pool.map(digest, samples))
    bad.update({i: one for i, one in enumerate(found) if isinstance(one, BadPicture)})
    return [one if isinstance(one, str) else "" for one in found]


def _fill(
    table: Tensor,
    order: dict[str, int],
    work: _Work,
    wanted: list[tuple[str, Sample]],
    shelf: Shelf | None,
) -> dict[str, str]:
    """Fill rows ``order[digest]`` of ``table`` (U, D) from the shelf and by embedding.

    Returns:
        The digests of pictures that cannot be decoded, with the reasons.
    """
    broken: dict[str, str] = {}

    def look() -> list[tuple[str, Sample]]:
        if shelf is None:
            return wanted
        found, missing = shelf.get([digest for digest, _ in wanted])
        if found is not None:
            absent = set(missing)
            here = [i for i in range(len(wanted)) if i not in absent]
            table[[order[wanted[i][0]] for i in here]] = found[here]
        return [wanted[i] for i in missing]

    if shelf is not None:
        shelf.refresh()
    if not look():
        return broken
    with shelf.lock() if shelf is not None else nullcontext():
        missing = look()
        with tracking("Embedding", len(missing), "pictures") as tracker:
            for digests, features in _shards(work, missing, broken, tracker.advance):
                if shelf is not None:
                    shelf.put(digests, features)
                table[[order[digest] for digest in digests]] = features
    return broken


def _shards(
    work: _Work,
    missing: list[tuple[str, Sample]],
    broken: dict[str, str],
    advance: Callable[[int], None],
) -> Iterator[tuple[list[str], Tensor]]:
    """Features in runs of whole batches."""
    digests: list[str] = []
    parts: list[Tensor] = []
    start = time.monotonic()
    for some, features in _batches(work, missing, broken, advance):
        digests += some
        parts.append(features)
        if len(digests) >= _SHARD_ROWS or time.monotonic() - start > _SHARD_SECONDS:
            yield digests, torch.cat(parts)
            digests, parts, start = [], [], time.monotonic()
    if digests:
        yield digests, torch.cat(parts)


def _batches(
    work: _Work,
    missing: list[tuple[str, Sample]],
    broken: dict[str, str],
    advance: Callable[[int], None],
) -> Iterator[tuple[list[str], Tensor]]:
    """Features batch by batch; pictures are decoded ahead, broken ones take no place."""
    ahead: deque[tuple[str, Sample, Future[Tensor]]] = deque()
    waiting = iter(missing)
    digests: list[str] = []
    pictures: list[Tensor] = []

    def forward() -> tuple[list[str], Tensor]:
        full = work.batch_size
        size = full if len(pictures) == full else min(full, 1 << (len(pictures) - 1).bit_length())
        batch = torch.zeros(size, *pictures[0].shape)
        batch[: len(pictures)] = torch.stack(pictures)
        out = list(digests), work.backbone.encode_images(batch)[: len(pictures)]
        advance(len(pictures))
        digests.clear()
        pictures.clear()
        return out

    try:
        while True:
            while len(ahead) < _AHEAD * work.batch_size and (one := next(waiting, None)):
                ahead.append((*one, work.pool.submit(work.load, *one)))
            if not ahead:
                break
            digest, sample, future = ahead.popleft()
            try:
                pictures.append(future.result())
                digests.append(digest)
            except (OSError, DataError) as error:
                broken[digest] = _reason(error, sample.name)
                advance(1)
            if len(pictures) == work.batch_size:
                yield forward()
        if pictures:
            yield forward()
    finally:
        for *_, future in ahead:
            future.cancel()


def _reason(error: OSError | DataError, name: str) -> str:
    """What is wrong with a picture, without its name."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return error.found.removeprefix(f"{name}: ")


def _report_twins(
    where: dict[str, list[int]], samples: Sequence[Sample], class_names: list[str]
) -> None:
    """Says which contents are there more than once: under two labels, or within a class."""
    torn: list[str] = []
    extra = 0
    for positions in where.values():
        first: dict[int, int] = {}
        for i in positions:
            # Unlabelled pictures are of no class.
            if samples[i].label >= 0:
                extra += samples[i].label in first
                first.setdefault(samples[i].label, i)
        if len(first) > 1:
            names = [f"{_plain(samples[i].name)} ({class_names[k]})" for k, i in first.items()]
            torn.append(" = ".join(names[:2]))
    if torn:
        shown = "; ".join(torn[:_SHOWN_TWINS]) + ("; ..." if len(torn) > _SHOWN_TWINS else "")
        what = "picture is" if len(torn) == 1 else "pictures are"
        log.info(f"Warning: {len(torn)} {what} there under two labels or more: {shown}.")
    if extra:
        what = "picture is an exact duplicate" if extra == 1 else "pictures are exact duplicates"
        log.info(f"{extra} {what} of another one of the same class.")


def _plain(name: str) -> str:
    """``name`` on one line: as it is, or in quotes where it holds line breaks and the like."""
    return name if name.isprintable() else repr(name)


def _report(skipped: list[BadPicture], total: int, strict: bool, allow_none: bool) -> None:
    if not total:
        raise DataError("There are no pictures to embed.", hint="Check the path and the split.")
    lines = [f"{_plain(one.name)}: {one.reason}" for one in skipped]
    none = len(skipped) == total
    if skipped and (strict or (none and not allow_none)):
        which = "None of the pictures" if none else f"{len(skipped)} pictures"
        verb = "can" if none else "cannot"
        raise DataError(
            f"{which} {verb} be read ({len(skipped)} of {total}):\n  " + "\n  ".join(lines),
            hint="Replace or remove them" + ("." if none else ", or leave --strict away."),
        )
    for line in lines:
        log.info(f"Skipped {line}")
    if skipped:
        log.info(f"{len(skipped)} of {total} pictures skipped.")
