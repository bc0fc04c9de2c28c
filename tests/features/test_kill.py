"""A process killed at any moment, and started again, ends in the same features to the bit."""

import json
import os
import subprocess
import sys

import pytest

# One process imports everything once and forks a child per run; it kills the children.
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
import filelock, safetensors.torch, torchvision.transforms.functional  # once, for all children
from clip_adapter.backbones import Preprocess
from clip_adapter.datasets.dataset import Sample
from clip_adapter.features.embed import embed
from clip_adapter.features.store import FeatureStore
module = sys.modules["clip_adapter.features.embed"]
module._SHARD_ROWS = 8  # a shard per two batches, so that kills fall between some of them
torch.set_num_threads(1)
pictures, folder, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
samples = [Sample(p.name, 0, p) for p in sorted(pictures.iterdir())]

class Backbone:
    name, fingerprint, device, dtype, embed_dim = "small", "f", "cpu", "float32", 16
    preprocess = Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    weight = torch.randn(3 * 32 * 32, 16, generator=torch.Generator().manual_seed(0))
    def encode_images(self, images):
        time.sleep(0.005)
        # the number of rows and their places leave a trace: another composition is another result
        place = torch.arange(len(images)).unsqueeze(1) + len(images)
        return images.flatten(1) @ self.weight + place + images.mean()

def child(cache):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store = FeatureStore(cache)
            found, bad = embed(Backbone(), samples, ["a"], store=store, batch_size=4)
            assert len(bad) == 2
            torch.save(found.features, cache.with_suffix(".pt"))
            code = 0
        finally:
            os._exit(code)
    return pid

def finish(cache):
    _, status = os.waitpid(child(cache), 0)
    assert status == 0, status
    return torch.load(cache.with_suffix(".pt"), weights_only=True)

def shards():
    return len(list((folder / "cache").rglob("0*.json")))

calm = finish(folder / "calm")
generator, killed, kept = random.Random(0), 0, [0]
for _ in range(kills):
    pid, wanted = child(folder / "cache"), shards() + generator.choice([0, 1, 2])
    while shards() < wanted and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    if shards() < wanted:
        continue  # it came to its end first
    time.sleep(generator.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    kept.append(shards())
same = torch.equal(finish(folder / "cache"), calm)
print(json.dumps({"same": same, "killed": killed, "shards": kept, "rows": len(calm[0])}))
"""


def run_with_kills(folder, tmp_path, kills):
    for name in ("017-broken.png", "090-broken.png"):  # they take no place in a batch
        (folder / name).write_bytes(name.encode())
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), str(tmp_path), str(kills)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["same"], summary
    assert summary["killed"] > 1
    assert len(set(summary["shards"])) > 1, "no killed process wrote a shard: nothing is shown"
    return summary


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_and_resumed(pictures, tmp_path):
    pictures(60)
    summary = run_with_kills(tmp_path / "pictures", tmp_path, 3)
    assert summary["rows"] == 60


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_many_times_and_resumed(pictures, tmp_path):
    pictures(600)
    run_with_kills(tmp_path / "pictures", tmp_path, 60)
