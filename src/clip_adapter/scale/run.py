"""``embed_shards`` and ``predict_shards``: an input of any size into a folder of Parquet files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clip_adapter.datasets.open import DataSpec, parse_spec
from clip_adapter.errors import DataError, UsageError, unknown_name
from clip_adapter.files import check_folder
from clip_adapter.options import SourceOptions, changed, source_options
from clip_adapter.paths import OF_A_VOLUME, SHARDED, is_remote
from clip_adapter.reporting import Notes, Progress, listening, note, tracking
from clip_adapter.scale.engines import run_here, run_on_ray
from clip_adapter.scale.find import find_shards
from clip_adapter.scale.shards import Shard
from clip_adapter.scale.storage import Storage, absolute
from clip_adapter.scale.worker import ANSWERS, Job
from clip_adapter.scale.workers import EMBED_READS, PREDICT_READS, SHARD_SIZE, Engine, Workers
from clip_adapter.wording import counted, listed, shown


@dataclass
class Summary:
    """What a run did.

    Attributes:
        out: where the results are.
        shards: how many were to be done.
        made: now.
        kept: were there, and are whole.
        rows: pictures in their files.
        unreadable: pictures that are named in the manifest instead.
        failed: shards without a file, and why.
        seconds: that it took.
    """

    out: str
    shards: int
    made: int = 0
    kept: int = 0
    rows: int = 0
    unreadable: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def embed_shards(
    source: str | Path | DataSpec,
    out: str | Path,
    *,
    engine: Engine = "local",
    shard: tuple[int, int] | None = None,
    shard_size: int = SHARD_SIZE,
    labelled: bool = False,
    workers: Workers | None = None,
    progress: Progress = None,
    cancel: threading.Event | None = None,
    **reading: Any,
) -> Summary:
    """Features of every picture of an input, one Parquet file per shard.

    What is done already is left as it is, so the same call goes on where another one ended. Two of
    them may run at once. ``fit``, ``evaluate`` and ``predict`` read the folder as they read a file
    of features.

    Args:
        source: see ``clip_adapter.scale.shards.FORMS``.
        out: a folder, or an address such as ``s3://bucket/folder``.
        engine: "local" is this process, "ray" a cluster.
        shard: (i, n): only every n-th shard, from the i-th on, counted from 0.
        shard_size: pictures per shard, where ``source`` is cut: a folder of pictures, one list.
        labelled: ``source`` is what ``fit`` takes; its classes and splits are written too.
        workers: of Ray.
        progress: hears how far the work is, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at its next step.
        **reading: ``backbone``, ``preprocess``, ``decode``, ``device``, ``dtype``, ``runtime``,
            ``batch_size`` and ``root`` of :class:`~clip_adapter.options.SourceOptions`.

    Raises:
        UsageError: a wrong option, or ``out`` is no folder, or holds something else, such as what
            was made of another input.
        DataError: there is nothing to do, or ``out`` may not be written.
        StoreError: ``out`` cannot be written.
        CancelledError: ``cancel`` was set.
    """
    job = Job(str(out), 0, _options(reading, EMBED_READS))
    return _run(job, source, engine, shard, shard_size, labelled, workers, progress, cancel)


def predict_shards(
    classifier: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    top: int = 1,
    engine: Engine = "local",
    shard: tuple[int, int] | None = None,
    shard_size: int = SHARD_SIZE,
    workers: Workers | None = None,
    progress: Progress = None,
    cancel: threading.Event | None = None,
    **reading: Any,
) -> Summary:
    """The answers of a saved classifier on every picture of an input, one file per shard.

    Args:
        classifier: its folder, or its name on the hub.
        source: as in :func:`embed_shards`.
        out: as in :func:`embed_shards`.
        top: answers per picture: columns ``label``, ``probability``, ``label_2``, ...
        engine: as in :func:`embed_shards`.
        shard: as in :func:`embed_shards`.
        shard_size: as in :func:`embed_shards`.
        workers: of Ray.
        progress: as in :func:`embed_shards`.
        cancel: as in :func:`embed_shards`.
        **reading: ``decode``, ``device``, ``batch_size`` and ``root``; ``backbone``, where it is an
            object of one's own.

    Raises:
        ClassifierError: the classifier cannot be read or used.
        ClipAdapterError: as :func:`embed_shards`.
    """
    name = os.path.abspath(classifier) if os.path.exists(classifier) else str(classifier)
    job = Job(str(out), 0, _options(reading, ("backbone", *PREDICT_READS)), name, top)
    return _run(job, source, engine, shard, shard_size, False, workers, progress, cancel)


def _options(given: dict[str, Any], heeded: Sequence[str]) -> SourceOptions:
    options = source_options(given)
    if unheeded := set(changed(options)) - set(heeded):
        raise UsageError(
            f"{', '.join(sorted(unheeded))} would change nothing.", allowed=", ".join(heeded)
        )
    return options


def _run(
    job: Job,
    source: str | Path | DataSpec,
    engine: str,
    shard: tuple[int, int] | None,
    shard_size: int,
    labelled: bool,
    workers: Workers | None,
    progress: Progress,
    cancel: threading.Event | None,
) -> Summary:
    start = time.perf_counter()
    if engine not in ("local", "ray"):
        raise unknown_name("engine", engine, ("local", "ray"))
    job = replace(job, out=absolute(job.out))
    with listening(progress, cancel), Notes():
        shards = _planned(job, source, shard_size, labelled)
        name = _name_of(source, labelled, job.reading.root)
        job = replace(job, shards=len(shards), source=name)
        if shard is not None:
            shards = shards[shard[0] :: shard[1]]
        summary = Summary(job.out, len(shards))
        with tracking("Shards", len(shards), "shards") as tracker, ExitStack() as stack:
            outcomes = (
                run_here(job, shards, tracker)
                if engine == "local"
                else run_on_ray(job, shards, tracker, workers or Workers())
            )
            for outcome in stack.enter_context(closing(outcomes)) if shards else ():
                summary.made += outcome.state == "made"
                summary.kept += outcome.state == "kept"
                if outcome.line is None:
                    summary.failed[outcome.shard] = outcome.fault
                else:
                    summary.rows += outcome.line.rows
                    summary.unreadable += len(outcome.line.failures)
        if summary.unreadable:
            what = counted(summary.unreadable, "picture")
            note(f"{what} could not be read: the manifest names them.")
        if summary.failed:
            what = counted(len(summary.failed), "shard")
            note(f"{what} failed: {listed(summary.failed)}.")
    summary.seconds = time.perf_counter() - start
    return summary


def _planned(job: Job, source: str | Path | DataSpec, size: int, labelled: bool) -> list[Shard]:
    """All shards, if the folder of the results is new, or was written here and holds no others.

    Raises:
        UsageError: it lies in the input, is no folder, or holds what is not ours.
        DataError: it holds others, or may not be written.
    """
    inside = not is_remote(str(source)) and not is_remote(job.out)
    if inside and Path(job.out).is_relative_to(absolute(str(source))):
        raise UsageError(
            f"--out {shown(job.out)} lies in {shown(str(source))}, and would be read as well.",
            hint="Name a folder beside it.",
        )
    if not is_remote(job.out):
        check_folder(Path(job.out))
    names = Storage(job.out).names()
    if names - OF_A_VOLUME and not names & {SHARDED, ANSWERS}:
        raise UsageError(
            f"{shown(job.out)} is not empty, and not of 'clip-adapter scale': it holds "
            f"{listed(sorted(names), 3)}.",
            hint="Name a new folder with --out, or empty this one.",
        )
    shards = find_shards(source, size=size, labelled=labelled, root=job.reading.root)
    planned = {f"{shard.name}.parquet" for shard in shards}
    if others := {name for name in names if name.endswith(".parquet")} - planned:
        raise DataError(
            f"{job.out} holds files of {counted(len(others), 'other shard')}: "
            f"{listed(sorted(others), 3)}.",
            hint="Name another folder with --out; or, if their pictures are gone, remove them and "
            "their lines in manifest/.",
        )
    return shards


def _name_of(source: str | Path | DataSpec, labelled: bool, root: str | Path | None) -> str:
    """What tells an input from others, whatever its files are and wherever one is."""
    spec = parse_spec(source, root) if labelled else None
    by_name = spec is not None and spec.kind in ("benchmark", "hub")
    words = [str(source) if by_name else absolute(str(spec.path if spec else source)).rstrip("/")]
    words += ["--labelled"] if labelled else []
    words += [f"--root {absolute(str(root))}"] if root is not None else []
    return " ".join(words)
