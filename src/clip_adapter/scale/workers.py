"""What a user can choose of the work on shards. Imports nothing heavy: help texts read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from clip_adapter.errors import UsageError
from clip_adapter.options import Bounds, Help, check_bounds
from clip_adapter.reporting import log

Engine = Literal["local", "ray"]
SHARD_SIZE = 10_000
"""Pictures per shard, of what is cut into shards."""
# Fields of ``SourceOptions`` that mean something here; a classifier has the others in its record.
PREDICT_READS = ("decode", "device", "batch_size", "root")
EMBED_READS = ("backbone", "preprocess", *PREDICT_READS, "dtype", "runtime")


@dataclass(frozen=True)
class Workers:
    """The workers that Ray is asked for; None goes by what the cluster has.

    Attributes:
        workers: how many. More than there is room for wait for it, and make a cluster that scales
            by itself grow.
        worker_cpus: cores of each.
        worker_gpus: GPUs of each; 0.5 puts two on one.

    Raises:
        UsageError: a number out of range.
    """

    PANEL: ClassVar[str] = "With Ray"

    workers: Annotated[
        int | None,
        Bounds(least=1),
        Help("How many work at once.", default="one for each GPU, or each machine without"),
    ] = None
    worker_cpus: Annotated[
        float | None,
        Bounds(above=0),
        Help("Cores of each.", default="the machine's, shared by its workers"),
    ] = None
    worker_gpus: Annotated[
        float | None,
        Bounds(least=0),
        Help("GPUs of each; 0.5 puts two workers on one.", default="1 where there are GPUs"),
    ] = None

    def __post_init__(self) -> None:
        check_bounds(self)

    def sized(self, nodes: Sequence[dict[str, float]]) -> tuple[int, dict[str, float]]:
        """How many, and the resources of each, in a cluster of ``nodes`` with these resources."""
        with_gpu = [node for node in nodes if node.get("GPU")]
        gpus = float(bool(with_gpu)) if self.worker_gpus is None else self.worker_gpus
        nodes = [node for node in (with_gpu if gpus else nodes) if node.get("CPU")]
        if gpus and not with_gpu:
            raise UsageError(
                f"--worker-gpus {gpus:g}, and the cluster has none.",
                allowed="0, or a cluster with GPUs",
            )
        # GPUs, or whole machines, of each node.
        each = [int(node["GPU"] / gpus) if gpus else 1 for node in nodes]
        shares = [node["CPU"] / max(n, 1) for node, n in zip(nodes, each, strict=True)]
        cpus = self.worker_cpus or min((max(1, s // 1) for s in shares), default=1.0)
        fit = sum(
            min(node["CPU"] // cpus, node["GPU"] // gpus if gpus else node["CPU"]) for node in nodes
        )
        if fit < 1:
            log.warning("The cluster has no room for a worker yet: waiting for it to grow.")
        return self.workers or max(1, int(fit)), {"num_cpus": cpus, "num_gpus": gpus}
