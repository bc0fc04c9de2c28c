"""Who does the shards: this process, or workers that Ray starts on any number of machines."""

from __future__ import annotations

import importlib
from collections import Counter, deque
from collections.abc import Generator, Sequence
from typing import Any

from clip_adapter.errors import BackboneError, MissingExtraError
from clip_adapter.reporting import Tracker, log
from clip_adapter.scale.shards import Shard
from clip_adapter.scale.worker import Job, Outcome, Worker
from clip_adapter.scale.workers import Workers

# Workers that may die over one shard, or one after the other while they load.
_DEATHS = 3
_POLL = 0.5  # seconds after which a wait looks whether it is to end


def run_here(job: Job, shards: Sequence[Shard], tracker: Tracker) -> Generator[Outcome]:
    """Do the shards in this process; those that another one is at come last."""
    worker, done, pictures = Worker(job), 0, 0
    worker.start()

    def told(count: int) -> None:
        nonlocal pictures
        pictures += count
        tracker.at(done, note=f"{pictures} pictures")

    queue = [(shard, False) for shard in shards]
    for shard, wait in queue:
        outcome = worker.work(shard, told, wait=wait)
        if outcome.state == "held":
            queue.append((shard, True))  # once more, after all others
        else:
            done += 1
            told(0)
            yield outcome


def run_on_ray(
    job: Job, shards: Sequence[Shard], tracker: Tracker, workers: Workers
) -> Generator[Outcome]:
    """Do the shards by actors of Ray, each a shard at a time.

    A cluster that is running is used (``RAY_ADDRESS``, or the one of this machine), else one is
    started here. A shard whose worker or machine dies is given to another worker.

    Raises:
        MissingExtraError: Ray is not installed.
        BackboneError: workers die while they load.
        ClipAdapterError: a worker cannot start, or cannot write.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise MissingExtraError("ray", "ray", "--engine ray") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        count, resources = workers.sized(nodes)
        log.info(
            f"Ray: {min(count, len(shards))} workers with {resources['num_cpus']:g} cores and "
            f"{resources['num_gpus']:g} GPUs each, on {len(nodes)} nodes."
        )
        yield from _by_actors(ray, ray.remote(**resources)(Worker), job, shards, count, tracker)
    finally:
        if ours:
            ray.shutdown()


def _by_actors(
    ray: Any, kind: Any, job: Job, shards: Sequence[Shard], count: int, tracker: Tracker
) -> Generator[Outcome]:
    """Do the shards by up to ``count`` actors of ``kind``; none is left at the end."""
    # By what it will give: the actor, and its shard, or None while it loads.
    busy: dict[Any, tuple[Any, Shard | None]] = {}
    waiting, deaths, done = deque(shards), Counter[str](), 0

    def hire() -> None:
        actor = kind.remote(job)
        busy[actor.start.remote()] = actor, None

    try:
        for _ in range(min(count, len(shards))):
            hire()
        while waiting or any(shard for _, shard in busy.values()):
            ready, _ = ray.wait([*busy], timeout=_POLL)
            tracker.at(done)
            for answer in ready:
                actor, shard = busy.pop(answer)
                try:
                    outcome = ray.get(answer)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:  # it, or its machine, has died
                    ray.kill(actor)
                    name = shard.name if shard else ""  # none while it loads
                    deaths[name] += 1
                    log.warning(f"A worker died ({type(error).__name__}): {name or 'loading'}.")
                    if shard is None:
                        if deaths[name] == _DEATHS:
                            raise BackboneError(
                                f"{_DEATHS} workers died while they loaded.",
                                hint="Look into Ray's logs. Often memory is short: fewer workers "
                                "on a machine (--worker-cpus).",
                            ) from error
                    elif deaths[name] == _DEATHS:
                        done += 1
                        yield Outcome(name, "failed", fault=f"{_DEATHS} workers died over it")
                    else:
                        waiting.appendleft(shard)
                    if waiting:
                        hire()
                    continue
                if shard is None:
                    deaths[""] = 0
                else:
                    done += 1
                    tracker.at(done)
                    yield outcome
                if waiting:
                    shard = waiting.popleft()
                    busy[actor.work.remote(shard)] = actor, shard
                else:
                    ray.kill(actor)  # makes room for one that may be waiting for it
    finally:
        for actor, _ in busy.values():
            ray.kill(actor)
