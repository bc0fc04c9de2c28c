"""``Worker``: a shard in, one Parquet file out. What every way to run many of them has in common.

    OUT/features.json            what made the rows (answers.json: of predictions), and of how many
    OUT/SHARD.parquet            shards they are
    OUT/manifest/SHARD.json      one line: rows, pictures that cannot be read, key, checksum

A shard is done once its line is there and tells the truth: it is written last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clip_adapter.errors import DataError, StoreError, UsageError
from clip_adapter.features.dropped import BadPicture
from clip_adapter.features.files import header_of
from clip_adapter.features.formats import words_of
from clip_adapter.features.store import versioned
from clip_adapter.files import file_digest, of_form
from clip_adapter.options import SourceOptions
from clip_adapter.paths import MANIFEST, SHARDED
from clip_adapter.reporting import log
from clip_adapter.scale.makers import Embedder, Maker, Predictor
from clip_adapter.scale.shards import Item, Shard, open_shard, version_of
from clip_adapter.scale.storage import Storage
from clip_adapter.wording import shown

ANSWERS = "answers.json"
# Pictures that are embedded together, and bytes of them in memory: a worker holds no more.
_BLOCK, _BLOCK_BYTES = 4096, 256 << 20
Told = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """What is to be made of every shard.

    Attributes:
        out: the folder or address of the results.
        shards: how many there are in all.
        reading: the backbone, and how pictures are read.
        classifier: a saved one, whose answers are written; None writes features.
        top: how many answers per picture.
        source: names the input; "" is any.
    """

    out: str
    shards: int
    reading: SourceOptions
    classifier: str | None = None
    top: int = 1
    source: str = ""


@dataclass(frozen=True)
class Line:
    """A line of the manifest.

    Attributes:
        shard: its name.
        rows: of its file: the pictures that could be read.
        failures: the others by name, and why.
        key: of what made the rows.
        version: of the input, see :func:`~clip_adapter.scale.shards.version_of`.
        checksum: of its file.
    """

    shard: str
    rows: int
    failures: list[BadPicture]
    key: str
    version: str
    checksum: str


@dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    Attributes:
        shard: its name.
        state: "made" now, "kept" from before, "held" by another process, "failed".
        line: of the manifest, where there is one.
        fault: why it failed.
    """

    shard: str
    state: Literal["made", "kept", "held", "failed"]
    line: Line | None = None
    fault: str = ""


@dataclass
class Worker:
    """Does shards, one after the other. It is made without any work, so it may go elsewhere."""

    job: Job
    _key: str = field(default="", init=False)

    def start(self) -> None:
        """Load what it needs, and enter what it makes into the folder of the results.

        Raises:
            UsageError: the folder holds something else; or nothing tells the backbone's weights.
            ClipAdapterError: the backbone or the classifier cannot be loaded.
        """
        job = self.job
        self._maker: Maker = (
            Embedder(job.reading)
            if job.classifier is None
            else Predictor(job.reading, job.classifier, job.top)
        )
        key, self._key = versioned(self._maker.key())
        self._out = Storage(job.out)
        self._enter(key)

    def work(self, shard: Shard, told: Told | None = None, *, wait: bool = True) -> Outcome:
        """Make the file of a shard, if it is not there already.

        Args:
            shard: which.
            told: hears of the number of pictures after every few.
            wait: for another process that works on it; else it is "held".

        Raises:
            StoreError: the results cannot be written.
            CancelledError: the caller wants it to end.
        """
        with self._out.hold(shard.name, wait=wait) as ours:
            if not ours:
                return Outcome(shard.name, "held")
            try:
                version = version_of(shard)
                if (line := self._done(shard.name)) and line.version == version:
                    return Outcome(shard.name, "kept", line)
                with open_shard(shard) as items, self._out.writing(_file(shard.name)) as path:
                    rows, failures = self._write(path, items, told)
                    checksum = file_digest(path)
            except DataError as error:
                return Outcome(shard.name, "failed", fault=error.found)
            line = Line(shard.name, rows, failures, self._key, version, checksum)
            text = json.dumps(dataclasses.asdict(line), ensure_ascii=False) + "\n"
            self._out.write(_line(shard.name), text.encode("utf-8", "replace"))
            return Outcome(shard.name, "made", line)

    def _done(self, name: str) -> Line | None:
        """The line of a shard whose file is there, whole, and of this key."""
        if (data := self._out.read(_line(name))) is None:
            return None
        try:
            line: Line = of_form(json.loads(data), Line, "The manifest", "a line of it")
        except (ValueError, DataError):
            log.warning(f"Damaged in {self.job.out}: {_line(name)}. The shard is made again.")
            return None
        if line.key != self._key:
            return None
        if line.checksum != self._out.digest(_file(name)):
            log.warning(f"Damaged in {self.job.out}: {_file(name)}. It is made again.")
            return None
        return line

    def _enter(self, full: dict[str, Any]) -> None:
        kind = SHARDED if self.job.classifier is None else ANSWERS
        entry = {"format": 1, "key": self._key, "shards": self.job.shards, "made_by": full}
        entry["input"] = self.job.source
        text = json.dumps(entry, indent=1)
        with self._out.hold(kind, wait=True):
            for name in (SHARDED, ANSWERS):
                if (data := self._out.read(name)) is None:
                    continue
                there = _entry_of(data, f"{self.job.out}/{name}")
                if there.get("key") != self._key:
                    was, now = there.get("made_by", {}), json.loads(text)["made_by"]
                    other = [k for k in {**was, **now} if was.get(k) != now.get(k)]
                    raise UsageError(
                        f"{self.job.out} holds what was made otherwise: "
                        f"{', '.join(other) or 'another kind of results'} would be another.",
                        hint="Name another folder with --out, or the same options as before.",
                    )
                before, now = there.get("input"), self.job.source
                if before and now and before != now:
                    raise UsageError(
                        f"{self.job.out} holds what was made of {before}, and the input is {now}.",
                        hint="Name another folder with --out.",
                    )
                if data == text.encode():
                    return
            self._out.write(kind, text.encode())

    def _write(
        self, path: Path, items: Iterable[Item], told: Told | None
    ) -> tuple[int, list[BadPicture]]:
        """Embed ``items`` and write them to ``path``, a few thousand at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        maker, file = self._maker, None
        header = {**header_of(maker.about(), "raw"), "key": self._key}
        rows, failures = 0, list[BadPicture]()
        with contextlib.ExitStack() as stack:
            for block in _blocks(items):
                features, bad = maker.embed(block)
                failures += [
                    BadPicture(shown(block[int(one.name)].sample.name), one.reason) for one in bad
                ]
                kept = [block[int(name)] for name in features.names]
                columns = {
                    "split": words_of(item.split for item in kept),
                    "path": words_of(shown(item.sample.name) for item in kept),
                    "digest": words_of(features.digests),
                    **maker.columns(features, kept),
                }
                table = pa.table(columns, metadata=header)
                file = file or stack.enter_context(pq.ParquetWriter(path, table.schema))
                file.write_table(table)
                rows += len(kept)
                if told is not None:
                    told(len(block))
        return rows, failures


def _file(name: str) -> str:
    return f"{name}.parquet"


def _line(name: str) -> str:
    return f"{MANIFEST}/{name}.json"


def _entry_of(data: bytes, name: str) -> dict[str, Any]:
    allowed = "an entry as 'clip-adapter scale' writes it"
    try:
        return of_form(json.loads(data), dict[str, Any], name, allowed)
    except ValueError as error:
        raise StoreError(
            f"{name} is no JSON: {error}.", allowed=allowed, hint="Name another folder with --out."
        ) from error


def _blocks(items: Iterable[Item]) -> Iterator[Sequence[Item]]:
    """``items`` a few thousand at a time, fewer where they are large and in memory."""
    block: list[Item] = []
    size = 0
    for item in items:
        block.append(item)
        size += item.size
        if len(block) == _BLOCK or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block
