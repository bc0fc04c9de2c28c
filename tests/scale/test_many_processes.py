"""EuroSAT's 27,000 pictures by several processes and by Ray's nodes, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import pyarrow.parquet as pq
import pytest
import torch

from clip_adapter.features.files import load_features
from clip_adapter.scale.run import embed_shards

pytestmark = [pytest.mark.slow, pytest.mark.shared]
PICTURES, SHARDS = 27_000, 8
OPTIONS = {"backbone": "demo", "shard_size": -(-PICTURES // SHARDS)}


@pytest.fixture(scope="module")
def eurosat(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eurosat")
    with tarfile.open(shared / "images" / "eurosat.tar") as tar:
        tar.extractall(folder, filter="data")
    return folder / "eurosat" / "2750"


@pytest.fixture(scope="module")
def local(eurosat, tmp_path_factory):
    """Features (N, D) by name, of this process alone."""
    out = tmp_path_factory.mktemp("local") / "out"
    done = embed_shards(eurosat, out, **OPTIONS)
    assert (done.made, done.rows, done.unreadable) == (SHARDS, PICTURES, 0)
    return by_name(out)


def by_name(out):
    features = load_features(out).feature_set
    assert len(set(features.names)) == len(features.names), "a picture is there twice"
    order = sorted(range(len(features)), key=features.names.__getitem__)
    return [features.names[i] for i in order], features.plain_view[order]


def parts(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}


def whole(out, local):
    """Nothing is lost or doubled, and all is as in one process, in half precision."""
    names, features = by_name(out)
    assert names == local[0]
    torch.testing.assert_close(features.half(), local[1].half(), rtol=2e-3, atol=2e-3)
    lines = [json.loads(path.read_text()) for path in (out / "manifest").iterdir()]
    rows = {line["shard"]: line["rows"] for line in lines}
    assert sum(rows.values()) == PICTURES
    for name, count in rows.items():
        assert pq.read_metadata(out / f"{name}.parquet").num_rows == count
    assert len(parts(out)) == SHARDS


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(0.02)


def test_eight_shards_in_four_processes_two_of_them_killed(eurosat, tmp_path, local):
    out = tmp_path / "out"

    def start(i):
        words = ["scale", "embed", str(eurosat), "--out", str(out), "--shard", f"{i}/4"]
        words += ["--backbone", "demo", "--shard-size", str(OPTIONS["shard_size"])]
        return subprocess.Popen(
            [sys.executable, "-m", "clip_adapter", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    processes = [start(i) for i in range(4)]
    # One while it writes its first shard, one once it has made one.
    wait_for(lambda: (out / ".work" / "000001.parquet").exists())
    processes[1].send_signal(signal.SIGKILL)
    wait_for(lambda: (out / "manifest" / "000002.json").exists())
    processes[2].send_signal(signal.SIGKILL)
    codes = [(process.communicate()[1], process.returncode)[1] for process in processes]
    assert codes == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
    assert len(parts(out)) < SHARDS
    before = parts(out)
    again = [start(i) for i in range(4)]
    for process in again:
        error = process.communicate()[1]
        assert process.returncode == 0, error.decode()
    whole(out, local)
    assert before.items() <= parts(out).items(), "what was done is left alone"
    after = parts(out)
    assert embed_shards(eurosat, out, **OPTIONS).kept == SHARDS
    assert parts(out) == after


@pytest.fixture
def cluster(root, monkeypatch):
    """Two nodes of Ray on this machine, of one core each, and a head that does no work."""
    ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
    from ray.cluster_utils import Cluster

    # What Ray starts imports this package from here.
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    made, head = Cluster(), {"num_cpus": 0, "include_dashboard": False}
    for options in (head, {"num_cpus": 1}, {"num_cpus": 1}):
        try:
            made.add_node(**options)
        except Exception:  # on a busy machine it takes longer than Ray waits
            made.add_node(**options)
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


def a_worker():
    """The process id of an actor that is alive."""
    from ray._private import state

    alive = [one for one in state.actors().values() if one["State"] == "ALIVE"]
    return next(one["Pid"] for one in alive)


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_two_nodes_of_ray_one_worker_and_then_one_node_killed(cluster, eurosat, tmp_path, local):
    out, killed = tmp_path / "out", []

    def listener(stage):
        made = len([*(out / "manifest").glob("*.json")]) if out.exists() else 0
        if made >= 1 and not killed:
            os.kill(a_worker(), signal.SIGKILL)
            killed.append("worker")
        elif made >= 3 and len(killed) == 1:
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
            killed.append("node")

    done = embed_shards(eurosat, out, engine="ray", progress=listener, **OPTIONS)
    assert killed == ["worker", "node"]
    assert (done.failed, done.rows) == ({}, PICTURES)
    assert done.made + done.kept == SHARDS
    whole(out, local)
    before = parts(out)
    again = embed_shards(eurosat, out, engine="ray", **OPTIONS)
    assert (again.made, again.kept) == (0, SHARDS)
    assert parts(out) == before
