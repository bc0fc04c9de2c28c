import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_adapter.errors import StoreError
from clip_adapter.features import store as store_module
from clip_adapter.features.store import FeatureStore, content_digest

KEY = {"kind": "image", "fingerprint": "f"}
DIM = 4


def row(number):
    """The only right features of picture ``number``."""
    return torch.arange(DIM, dtype=torch.float32) + 10 * number


def digest(number):
    return content_digest(str(number).encode())


def put(shelf, numbers):
    with shelf.lock():
        shelf.put([digest(n) for n in numbers], torch.stack([row(n) for n in numbers]))


numbers = st.lists(st.integers(0, 12), min_size=1, max_size=5, unique=True)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), numbers),
        st.tuples(st.just("get"), numbers),
        st.tuples(
            st.sampled_from(["flip", "cut", "remove", "json", "leave", "empty"]), st.integers(0, 9)
        ),
    ),
    max_size=12,
)


def damage(shelf, how, which):
    shards = sorted(shelf.path.glob("[0-9]*.safetensors"))
    if not shards:
        return
    shard = shards[which % len(shards)]
    data = shard.read_bytes()
    if how == "flip" and len(data) > 3:
        middle = len(data) - 3
        data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        replace(shard, data)
    elif how == "cut":
        replace(shard, data[: len(data) // 2])
    elif how == "empty":
        replace(shard, b"")
    elif how == "remove":
        shard.unlink()
    elif how == "json":
        shard.with_suffix(".json").write_text('{"digests": [')
    elif how == "leave":  # as a process killed before its JSON leaves it
        shard.with_name("000999.safetensors").write_bytes(data)
        shard.with_name("000998.safetensors.tmp").write_bytes(data[:5])


def replace(path, data):
    """Damage that an open memory map does not see."""
    path.unlink()
    path.write_bytes(data)


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_whatever_happens_a_row_is_right_or_missing(tmp_path_factory, steps):
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    for what, value in steps:
        shelf = store.shelf(KEY)  # as a new process sees it
        if what == "put":
            with shelf.lock():
                _, missing = shelf.get([digest(n) for n in value])
                new = [value[i] for i in missing]
                shelf.put([digest(n) for n in new], torch.stack([row(n) for n in [*new, 0]])[:-1])
                kept, missing = shelf.get([digest(n) for n in value])
                assert missing == []
                assert torch.equal(kept, torch.stack([row(n) for n in value]))
        elif what == "get":
            shelf.refresh()
            kept, missing = shelf.get([digest(n) for n in value])
            for i, n in enumerate(value):
                if i not in missing:
                    assert torch.equal(kept[i], row(n))
        else:
            damage(shelf, what, value)


@pytest.mark.parametrize("how", ["flip", "cut", "remove", "json", "empty"])
def test_a_damaged_shard_is_named_and_removed(tmp_path, lines, how):
    store = FeatureStore(tmp_path)
    put(store.shelf(KEY), [1, 2])
    put(store.shelf(KEY), [3])
    damage(store.shelf(KEY), how, 0)
    shelf = store.shelf(KEY)
    shelf.refresh()
    assert lines.messages == []
    with shelf.lock():
        kept, missing = shelf.get([digest(n) for n in (1, 2, 3)])
    assert missing == [0, 1]
    assert torch.equal(kept[2], row(3))
    assert len(lines.messages) == 1
    assert "000001.json" in lines.messages[0]
    assert [p.name for p in sorted(shelf.path.glob("0*"))] == ["000002.json", "000002.safetensors"]


def test_keys_do_not_share_rows(tmp_path):
    store = FeatureStore(tmp_path)
    put(store.shelf(KEY), [1])
    other = store.shelf({**KEY, "fingerprint": "g"})
    other.refresh()
    assert other.get([digest(1)]) == (None, [0])


def test_info_and_the_layout(tmp_path):
    store = FeatureStore(tmp_path)
    assert store.info() == []
    shelf = store.shelf(KEY)
    put(shelf, [1, 2])
    (kept,) = store.info()
    assert kept["rows"] == 2
    assert kept["bytes"] > 0
    assert kept["key"]["fingerprint"] == "f"
    record = json.loads((shelf.path / "000001.json").read_text())
    assert record["digests"] == [digest(1), digest(2)]


def test_a_large_table_lies_in_a_file(tmp_path, monkeypatch):
    shelf = FeatureStore(tmp_path).shelf(KEY)
    put(shelf, [1, 2, 3])
    in_memory, _ = shelf.get([digest(i) for i in (3, 9, 1)])
    monkeypatch.setattr(store_module, "_LARGE", 1)
    maps = []
    mapped = np.memmap
    monkeypatch.setattr(np, "memmap", lambda *a, **k: maps.append(k["shape"]) or mapped(*a, **k))
    in_file, missing = shelf.get([digest(i) for i in (3, 9, 1)])
    assert torch.equal(in_file, in_memory)
    assert missing == [1]
    assert maps == [tuple(in_memory.shape)]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot ask for room")
def test_a_table_without_room_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    shelf = FeatureStore(tmp_path).shelf(KEY)
    put(shelf, [1])
    monkeypatch.setattr(store_module, "_LARGE", 1)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="No space left") as caught:
        shelf.get([digest(1)])
    assert "TMPDIR" in caught.value.hint


def test_rows_that_were_put_are_read_from_their_file(tmp_path):
    shelf = FeatureStore(tmp_path).shelf(KEY)
    rows = row(1)[None].clone()
    with shelf.lock():
        shelf.put([digest(1)], rows)
    rows += 1
    assert torch.equal(shelf.get([digest(1)])[0], row(1)[None])


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIP_ADAPTER_CACHE", str(tmp_path / "here"))
    assert FeatureStore().root == tmp_path / "here" / "features"


RACE = """
import os, sys, torch
from clip_adapter.features.store import FeatureStore, content_digest
torch.set_num_threads(1)
names = [content_digest(str(i).encode()) for i in range(40)]
go, start = os.pipe()
children = []
for _ in range(2):
    answer, tell = os.pipe()
    if os.fork() == 0:
        os.close(start)
        os.read(go, 1)  # ends when the parent closes its side
        shelf, made = FeatureStore(sys.argv[1]).shelf({"kind": "race"}), 0
        for first in range(0, 40, 4):
            with shelf.lock():
                _, missing = shelf.get(names[first : first + 4])
                new = [first + i for i in missing]
                shelf.put([names[i] for i in new], torch.tensor(new).float().reshape(-1, 1))
                made += len(new)
        found, missing = shelf.get(names)
        right = missing == [] and found[:, 0].tolist() == list(range(40))
        os.write(tell, str(made if right else -100).encode())
        os._exit(0)
    children.append(answer)
    os.close(tell)
os.close(start)
print(sum(int(os.read(answer, 10)) for answer in children))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_share_the_work(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr


def test_a_second_writer_waits_and_says_so(tmp_path, lines):
    first, second = FeatureStore(tmp_path).shelf(KEY), FeatureStore(tmp_path).shelf(KEY)
    rows, waiting = [], threading.Event()
    lines.handler.addFilter(lambda record: waiting.set() or True)

    def other():
        with second.lock():
            rows.append(second.get([digest(1)])[1])

    thread = threading.Thread(target=other)
    with first.lock():
        thread.start()
        assert waiting.wait(30)
        first.put([digest(1)], row(1)[None])
    thread.join(30)
    assert rows == [[]]
    assert "waiting" in lines.messages[0]


def test_a_shard_that_may_not_be_read_is_left_alone(tmp_path, monkeypatch, lines):
    put(FeatureStore(tmp_path).shelf(KEY), [1])
    shard = next(tmp_path.rglob("000001.safetensors"))
    opened = Path.open

    def refuse(path, *more, **words):
        if path == shard:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *more, **words)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        shelf = FeatureStore(tmp_path).shelf(KEY)
        put(shelf, [1, 2])
        assert shelf.get([digest(1), digest(2)])[1] == []
    assert any("may not be read (permission)" in line for line in lines.messages)
    assert shard.is_file()
    shelf = FeatureStore(tmp_path).shelf(KEY)
    shelf.refresh()
    assert torch.equal(shelf.get([digest(2), digest(1)])[0], torch.stack([row(2), row(1)]))
