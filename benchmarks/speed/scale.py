"""What it costs to embed by the workers of Ray, beside one process of this machine.

Both embed the same folder of pictures into new folders, in turns, with the same backbone. The
cluster of two nodes, of half the cores each, is started before. Its workers start anew, with all
that they import, in every round, and this counts. Needs the extra ``ray``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import ray
from common import SIZES, Table, arguments, make_pictures
from ray.cluster_utils import Cluster

from clip_adapter.scale.run import embed_shards
from clip_adapter.threads import cores


def main() -> None:
    """Measure, and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--photos", type=Path, help="a folder of pictures in place of made ones")
    parser.add_argument("--backbone", default="demo")
    parser.add_argument("--shards", type=int, default=16)
    options = parser.parse_args()
    count = 400 if options.small else 20_000
    folder = options.photos or options.folder / f"scale{count}"
    if options.photos is None:
        make_pictures(folder, count, SIZES["64 px"])
    count = sum(path.is_file() for path in folder.rglob("*"))
    size = -(-count // options.shards)
    cluster = Cluster(
        head_node_args={"num_cpus": 0, "include_dashboard": False}, initialize_head=True
    )
    for _ in range(2):
        cluster.add_node(num_cpus=max(1, cores() // 2))
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    target = Path(tempfile.mkdtemp(prefix="clip-adapter-scale"))

    def embed(engine: str) -> None:
        shutil.rmtree(target, ignore_errors=True)
        done = embed_shards(
            folder, target, engine=engine, shard_size=size, backbone=options.backbone
        )
        if done.failed or done.made != done.shards:
            raise SystemExit(f"{engine}: {done}")

    table = Table()
    try:
        things = {name: lambda name=name: embed(name) for name in ("ray", "local")}
        title, least = f"{count} pictures, {options.backbone}", {"local": 0.67}
        table.measure(title, count, things, options.rounds, least=least)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(target, ignore_errors=True)
    table.write(options.out)


if __name__ == "__main__":
    main()
