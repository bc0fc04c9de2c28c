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
        crew = _Crew(ray, ray.remote(**resources)(Worker), job)
        try:
            yield from crew.run(shards, count, tracker)
        finally:
            crew.dismiss()
    finally:
        if ours:
            ray.shutdown()


class _Crew:
    """Actors, and what each of them is at."""

    def __init__(self, ray: Any, kind: Any, job: Job) -> None:
        self._ray, self._kind, self._job = ray, kind, job
        # By what it will give: the actor, and its shard, or None while it loads.
        self._busy: dict[Any, tuple[Any, Shard | None]] = {}

    def run(self, shards: Sequence[Shard], count: int, tracker: Tracker) -> Generator[Outcome]:
        waiting, deaths, done = deque(shards), Counter[str](), 0
        for _ in range(min(count, len(shards))):
            self._hire()
        while waiting or any(shard for _, shard in self._busy.values()):
            ready, _ = self._ray.wait([*self._busy], timeout=_POLL)
            tracker.at(done)
            for answer in ready:
                actor, shard = self._busy.pop(answer)
                try:
                    outcome = self._ray.get(answer)
                except self._ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except self._ray.exceptions.RayError as error:  # it, or its machine, has died
                    self._ray.kill(actor)
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
                        self._hire()
                    continue
                if shard is None:
                    deaths[""] = 0
                else:
                    done += 1
                    tracker.at(done)
                    yield outcome
                if waiting:
                    shard = waiting.popleft()
                    self._busy[actor.work.remote(shard)] = actor, shard
                else:
                    self._ray.kill(actor)  # makes room for one that may be waiting for it

    def _hire(self) -> None:
        actor = self._kind.remote(self._job)
        self._busy[actor.start.remote()] = actor, None

    def dismiss(self) -> None:
        """Let all go."""
        for actor, _ in self._busy.values():
            self._ray.kill(actor)
