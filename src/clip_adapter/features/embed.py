"""``embed``: pictures through a frozen backbone, each content once, resumed after a kill.

Every file is read once, on threads that take a few pictures at a time: they hash the bytes, look
whether the features are known, and decode what is not. The contents that are missing are embedded
in order, in batches of one size. What the store holds after a kill is a run of whole batches from
the start, so the batches of the next run are composed as those of an undisturbed one, and the
features are the same to the bit.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal

import torch
from torch import Tensor

from clip_adapter.backbones.base import Backbone, runtime_entry
from clip_adapter.backbones.memory import batch_for
from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import fault_of
from clip_adapter.errors import BackboneError, DataError
from clip_adapter.features.dropped import BadPicture, report_copies, report_skipped
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.pixels import Decode, View, Views, decoders
from clip_adapter.features.store import FeatureStore, Rows, content_digest, open_shelf
from clip_adapter.reporting import Notes, Progress, Tracker, listening, tracking
from clip_adapter.threads import cores, suited_threads

# A shard is written after this many rows or seconds, whichever comes first: what a kill can cost.
_SHARD_ROWS = 2048
_SHARD_SECONDS = 5.0
_AHEAD = 3  # batches that are decoded while the model works
_CHUNKS = 16  # that a batch is read in
# Pictures that a thread reads at once, where each of a CPU's gets so many shares of them.
_READ, _SHARES = 16, 8
_TOGETHER = 256  # pictures that a GPU decodes at once
# Threads that read at once for a GPU: more of them wait for the interpreter's lock.
_READERS = 6
_IN_FLIGHT = 2  # batches that a GPU has not given back yet


def embed(
    backbone: Backbone,
    samples: Sequence[Sample],
    class_names: list[str],
    *,
    store: FeatureStore | None = None,
    preprocess: str = "clip",
    views: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
    decode: Decode = "exact",
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
        batch_size: pictures per batch; None is 64, on a CUDA device 256 or 512. A last, smaller
            batch is filled up with zeros to a power of two, or on a CPU to whole parts of what the
            backbone takes at once where those are smaller. Out of memory, a backbone halves its
            batches by itself.
        decode: how exactly pictures are decoded and cut to size, see
            :class:`~clip_adapter.features.pixels.Views`.
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
    batch_size = batch_size or batch_for(backbone.device)
    numbers: list[View] = [*range(views), None] if views > 1 else [None]
    with listening(progress, cancel):
        pixels = Views(backbone.preprocess, preprocess, seed, decode, backbone.device)
        lines = {
            view: _Line(
                backbone,
                pixels,
                open_shelf(store, backbone, image_key(backbone, pixels, view)),
                batch_size,
            )
            for view in numbers
        }
        work = _Work(samples, pixels, lines, batch_size)
        contents = work.run()
    copies: dict[str, list[int]] = {}
    faults: dict[str, str] = {}
    for i, content in enumerate(contents):
        if content.digest:  # the first place of a content was decoded, and says what is wrong
            content.fault = faults.setdefault(content.digest, content.fault)
        if not content.fault:
            copies.setdefault(content.digest, []).append(i)
    skipped = [BadPicture(samples[i].name, c.fault) for i, c in enumerate(contents) if c.fault]
    with Notes():
        report_copies(copies.values(), samples, class_names)
        if unreadable != "return":
            report_skipped(skipped, len(samples), unreadable == "stop")
    kept = [i for i, content in enumerate(contents) if not content.fault]
    digests = [contents[i].digest for i in kept]
    none = torch.zeros(0, backbone.embed_dim)
    features = {
        number: none if (table := line.shelf.get(digests)[0]) is None else table
        for number, line in lines.items()
    }
    embedded = FeatureSet(
        # One view may be larger than memory, and is not copied.
        torch.stack([features[v] for v in numbers[:-1]]) if views > 1 else features[None],
        torch.tensor([samples[i].label for i in kept], dtype=torch.long),
        class_names,
        [samples[i].name for i in kept],
        digests,
        plain=features[None] if views > 1 else None,
    )
    return embedded, skipped


def image_key(backbone: Backbone, pixels: Views, view: View = None) -> dict[str, Any]:
    """All that decides a feature, besides the picture's content, as JSON types."""
    return {
        "kind": "image",
        "fingerprint": backbone.fingerprint,
        "dtype": backbone.dtype,
        **runtime_entry(backbone),
        **pixels.describe(view),
    }


@dataclass(slots=True)
class _Content:
    """What a picture holds: its ``digest``, or the ``fault`` for which it cannot be read.

    ``cuts`` are the views that are missing, until they are encoded; ``file`` is what a GPU shall
    make the plain one of.
    """

    name: str
    digest: str = ""
    fault: str = ""
    file: Tensor | None = None
    cuts: dict[View, Tensor] = field(default_factory=dict)


class _Line:
    """Pictures of one view in order: cut to size, encoded batch by batch, kept shard by shard."""

    def __init__(self, backbone: Backbone, pixels: Views, shelf: Rows, batch_size: int) -> None:
        self._backbone, self._pixels, self._batch_size = backbone, pixels, batch_size
        self.shelf = shelf
        self._cuda = backbone.device.startswith("cuda")
        # On a CPU all batches lie in the same memory: to get new one takes as long as the pixels.
        self._inputs = torch.empty(0)
        self._taken: set[str] = set()
        self._waiting: list[tuple[str, Tensor]] = []
        # On a GPU they are not there yet: one batch is encoded while the next is prepared.
        self._encoded: deque[tuple[list[str], Tensor, torch.cuda.Event | None]] = deque()
        self._shard: list[tuple[list[str], Tensor]] = []
        self._start = time.monotonic()

    def lacks(self, digest: str) -> bool:
        """Whether it has not seen the content, and its shelf does not hold it."""
        return digest not in self._taken and digest not in self.shelf

    def take(self, digest: str, cut: Tensor) -> int:
        """Encode a picture with those before it once a batch is full; how many rows came out."""
        self._taken.add(digest)
        self._waiting.append((digest, cut))
        return self._encode() if len(self._waiting) == self._batch_size else 0

    def finish(self) -> int:
        """Encode and keep the rest; how many rows came out."""
        rows = self._encode() if self._waiting else 0
        while self._encoded:
            rows += self._collect()
        self._keep()
        return rows

    def _encode(self) -> int:
        digests, cuts = zip(*self._waiting, strict=True)
        self._waiting = []
        with suited_threads(0):  # others would go on to spin, in the way of decoding
            images = self._images(cuts)
        features = self._backbone.encode_images(images)[: len(digests)]
        event = None
        if self._cuda:
            features = features.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._backbone.device))
        else:
            features = features.clone()  # they may lie in the memory of the batch
        self._encoded.append((list(digests), features, event))
        return self._collect() if not self._cuda or len(self._encoded) > _IN_FLIGHT else 0

    def _images(self, cuts: Sequence[Tensor]) -> Tensor:
        """A batch for the backbone, where it computes."""
        size = min(self._batch_size, 1 << (len(cuts) - 1).bit_length())
        part = getattr(self._backbone, "pictures_at_once", size)
        if not self._cuda and part < size:
            size = min(size, -(-len(cuts) // part) * part)
        if not self._cuda and cuts[0].dtype == torch.uint8:
            if len(self._inputs) < size:
                self._inputs = torch.empty(size, 3, *cuts[0].shape[:2])
            images = self._inputs[:size]
            self._pixels.plain.fill(images[: len(cuts)], cuts)
            images[len(cuts) :] = 0
            return images
        if any(cut.is_cuda for cut in cuts):
            cuts = [cut.to(self._backbone.device, non_blocking=True) for cut in cuts]
        pixels = torch.stack([*cuts])
        if self._cuda and not pixels.is_cuda:
            pixels = pixels.pin_memory().to(self._backbone.device, non_blocking=True)
        images = self._pixels.plain.finish(pixels)
        if len(cuts) == size:
            return images
        return torch.cat([images, images.new_zeros(size - len(cuts), *images.shape[1:])])

    def _collect(self) -> int:
        digests, features, event = self._encoded.popleft()
        if event is not None:
            event.synchronize()
        self._shard.append((digests, features))
        rows = sum(len(some) for some, _ in self._shard)
        if rows >= _SHARD_ROWS or time.monotonic() - self._start > _SHARD_SECONDS:
            self._keep()
        return len(digests)

    def _keep(self) -> None:
        if self._shard:
            digests, parts = zip(*self._shard, strict=True)
            features = torch.cat(parts)
            if not features.isfinite().all():
                raise BackboneError(
                    f"The backbone {self._backbone.name} gives NaN or infinite features.",
                    hint="Mend its weights or its code; or take dtype float32, where it is not.",
                )
            self.shelf.put([*chain(*digests)], features)
        self._shard, self._start = [], time.monotonic()


@dataclass
class _Work:
    """Pictures through a backbone, once for each content and view."""

    samples: Sequence[Sample]
    pixels: Views
    lines: dict[View, _Line]
    batch_size: int
    # The first place of a content decodes it. A later place may come sooner, and does so as well.
    _places: dict[str, int] = field(default_factory=dict)
    _locked: bool = False
    _reading: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_READERS))

    def run(self) -> list[_Content]:
        """Put the features of all that can be decoded on the shelves; say what there is."""
        contents: list[_Content] = []
        total = len(self.samples) * len(self.lines)
        with ExitStack() as locks, tracking("Embedding", total, "pictures") as tracker:
            for chunk in self._chunks():
                rows = len(chunk) * len(self.lines)
                for content in chunk:
                    rows -= self._take(content, locks, tracker)
                if rows:
                    tracker.advance(rows)
                contents += chunk
            for line in self.lines.values():
                if rows := line.finish():
                    tracker.advance(rows)
        return contents

    def _take(self, content: _Content, locks: ExitStack, tracker: Tracker) -> int:
        """Have the missing views of a picture encoded; how many there are."""
        cuts, content.cuts = content.cuts, {}
        missing = [view for view in cuts if self.lines[view].lacks(content.digest)]
        if missing and not self._locked:
            # All in one order, so that no two processes wait for each other.
            for line in self.lines.values():
                locks.enter_context(line.shelf.lock())
            self._locked = True
            missing = [view for view in missing if self.lines[view].lacks(content.digest)]
        for view in missing:
            if rows := self.lines[view].take(content.digest, cuts[view]):
                tracker.advance(rows)
        return len(missing)

    def _chunks(self) -> Iterator[list[_Content]]:
        """What the samples hold, in order, a few at a time; threads are at work ahead of it."""
        shares = len(self.samples) // (_SHARES * cores())
        # As many at once as leave each thread something of what is decoded ahead.
        ahead_of = _AHEAD * self.batch_size // (len(self.lines) * (cores() + 1))
        enough = min(_READ, shares, ahead_of)
        chunk = self.batch_size // _CHUNKS
        size = max(1, chunk if self.pixels.on_gpu else min(chunk, ahead_of), enough)
        together = size * max(1, _TOGETHER // size) if self.pixels.on_gpu else size
        most = -(-_AHEAD * self.batch_size // (together * len(self.lines)))
        most = max(most, _AHEAD if self.pixels.on_gpu else 1)
        starts = iter(range(0, len(self.samples), together))
        ahead: deque[Future[list[_Content]]] = deque()
        # Of two that join, one waits for the GPU.
        with decoders() as pool, ThreadPoolExecutor(2) as joiner:
            try:
                while True:
                    for start in islice(starts, most - len(ahead)):
                        parts = range(start, min(start + together, len(self.samples)), size)
                        looks = [pool.submit(self._look, part, size) for part in parts]
                        # Of a CPU's there is one, and nothing to do.
                        joins = self.pixels.on_gpu
                        ahead.append(joiner.submit(self._join, looks) if joins else looks[0])
                    if not ahead:
                        return
                    yield ahead.popleft().result()
            finally:
                for joined in ahead:
                    joined.cancel()
                pool.shutdown(wait=False, cancel_futures=True)

    def _look(self, start: int, size: int) -> list[_Content]:
        """Read ``size`` samples from ``start``, and decode what is missing of them."""
        contents: list[_Content] = []
        files: list[bytes] = []
        with self._reading if self.pixels.on_gpu else nullcontext():
            for sample in self.samples[start : start + size]:
                contents.append(content := _Content(sample.name))
                files.append(b"")
                try:
                    files[-1] = sample.read()
                    content.digest = content_digest(files[-1])
                except (OSError, DataError) as error:
                    content.fault = fault_of(error, sample.name)
        for place, (content, data) in enumerate(zip(contents, files, strict=True), start):
            if content.fault or self._places.setdefault(content.digest, place) < place:
                continue
            missing = [v for v, line in self.lines.items() if content.digest not in line.shelf]
            if None in missing and (file := self.pixels.for_gpu(data)) is not None:
                missing.remove(None)
                content.file = file
            if missing:
                self._cut(content, data, missing)
        return contents

    def _cut(self, content: _Content, data: bytes, views: Sequence[View]) -> None:
        """Make some views of a picture from its bytes, or say why that cannot be done."""
        try:
            content.cuts |= self.pixels.cut(data, content.name, content.digest, views)
        except DataError as error:
            content.fault, content.cuts, content.file = fault_of(error, content.name), {}, None

    def _join(self, looks: Sequence[Future[list[_Content]]]) -> list[_Content]:
        """What was looked at, with what the GPU decodes."""
        contents = [*chain(*(look.result() for look in looks))]
        waiting = [(c, c.file) for c in contents if c.file is not None]
        cuts = self.pixels.cut_on_gpu([file for _, file in waiting]) if waiting else []
        for (content, file), cut in zip(waiting, cuts, strict=True):
            content.file = None
            if cut is None:
                self._cut(content, file.numpy().tobytes(), [None])
            else:
                content.cuts[None] = cut
        return contents
