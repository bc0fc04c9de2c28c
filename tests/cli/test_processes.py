"""What must hold from one process to the next."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_adapter import Classifier

LOAD = """
import sys
import numpy as np
from clip_adapter import Classifier
classifier = Classifier.load(sys.argv[1])
np.save(sys.argv[2], classifier.predict_proba(sys.argv[3:]))
"""


def test_saved_and_loaded_is_the_same_to_the_bit(photos, fitted, saved, tmp_path):
    import torch

    paths = [str(p) for p in sorted((Path(photos) / "test").rglob("*.png"))]
    before = fitted.predict_proba(paths)
    subprocess.run(
        [sys.executable, "-c", LOAD, saved, str(tmp_path / "after.npy"), *paths],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert np.array_equal(before, np.load(tmp_path / "after.npy"))


# One process imports everything once and forks a child per run of the command.
DRIVER = """
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
import open_clip, safetensors.torch, torchvision, sklearn.linear_model, rich.console
import clip_adapter.fitting, clip_adapter.cli.main, clip_adapter.features.embed as embed
embed._SHARD_ROWS = 8  # a shard every two batches, so that kills fall between some of them
words, kills, killed = json.loads(sys.argv[1]), int(sys.argv[2]), 0

def start(cache, out):
    pid = os.fork()
    if pid == 0:
        os.environ["CLIP_ADAPTER_CACHE"] = cache
        sys.argv[1:] = [*words, "--out", out]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            clip_adapter.cli.main.main()
        except SystemExit as stop:
            os._exit(stop.code or 0)
        finally:
            os._exit(99)
    return pid

calm = time.monotonic()
assert os.waitpid(start("calm-cache", "calm" + sys.argv[3]), 0)[1] == 0
calm = time.monotonic() - calm
generator = random.Random(3)
for _ in range(kills):
    pid = start("cache", "made" + sys.argv[3])
    time.sleep(generator.uniform(0.1, 1.0) * calm)
    try:
        os.kill(pid, signal.SIGKILL)
    finally:
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
assert os.waitpid(start("cache", "made" + sys.argv[3]), 0)[1] == 0
print(json.dumps({"killed": killed}))
"""


@pytest.fixture
def many(tmp_path):
    for k in range(2):
        (tmp_path / "many" / f"class {k}").mkdir(parents=True)
        for i in range(40):
            pixels = np.random.default_rng(100 * k + i).integers(0, 256, (150, 150, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "many" / f"class {k}" / f"{i:03d}.png")
    return str(tmp_path / "many")


def killed_and_resumed(tmp_path, words, kills, suffix):
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(words), str(kills), suffix],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["killed"] > 0


class Stopped(BaseException):
    """Stands in for the end of the process."""


def test_fit_stopped_at_one_write_after_the_other(run, photos, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["clip_adapter.features.embed"], "_SHARD_ROWS", 8)
    words = ["fit", photos, "--backbone", tiny, "--batch-size", "4"]
    words += ["--method", "clip-adapter", "-o", "visual_ratio=0.5"]
    assert run(*words, "--out", "calm").exit_code == 0
    monkeypatch.setenv("CLIP_ADAPTER_CACHE", "cache")
    left, shards = iter(()), []

    def stopping(write):
        def stop(old, new):
            if next(left, None) is None:
                raise Stopped
            write(old, new)

        return stop

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, stopping(getattr(os, name)))
    for writes in itertools.count():
        left = iter(range(writes))
        try:
            done = run(*words, "--out", "made")
        except Stopped:
            if (tmp_path / "made" / "classifier.json").exists():
                Classifier.load(tmp_path / "made")  # the last writes only move its parts
            shards.append(len(list(tmp_path.glob("cache/**/0*.json"))))
        else:
            break
    assert done.exit_code == 0, done.stderr
    assert len(set(shards)) > 2  # it went on from several places
    the_same_was_made(tmp_path)


def the_same_was_made(folder):
    for name in ("adapter", "class_weights"):
        pair = [(folder / w / f"{name}.safetensors").read_bytes() for w in ("calm", "made")]
        assert pair[0] == pair[1]
    seen = [json.loads((folder / w / "seen.json").read_text()) for w in ("calm", "made")]
    assert seen[0] == seen[1]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kills", [2, 10])
def test_fit_killed_at_random_moments(many, tiny, tmp_path, kills):
    words = ["fit", many, "--backbone", tiny, "--batch-size", "4"]
    words += ["--method", "clip-adapter", "-o", "visual_ratio=0.5"]
    killed_and_resumed(tmp_path, words, kills, "")
    the_same_was_made(tmp_path)
    left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert len(left) <= kills


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_embed_killed_ten_times(many, tiny, tmp_path):
    words = ["embed", many, "--backbone", tiny, "--batch-size", "4"]
    killed_and_resumed(tmp_path, words, 10, ".safetensors")
    calm, resumed = ((tmp_path / f"{w}.safetensors").read_bytes() for w in ("calm", "made"))
    assert calm == resumed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="needs signals")
def test_interrupted_by_the_keyboard(many, tiny, tmp_path):
    words = [sys.executable, "-m", "clip_adapter", "fit", many, "--backbone", tiny]
    words += ["--method", "clip-adapter"]
    process = subprocess.Popen(
        [*words, "-o", "recipe=official", "-o", "epochs=100000"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "Device" in process.stderr.readline()
    time.sleep(random.Random(1).uniform(0.5, 2))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stderr.startswith("Interrupted")
    assert "Traceback" not in stderr
