"""Files of the hub: from the cache, with a time limit, and their size said beforehand."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import BackboneError, ClassifierError
from clip_adapter.hub import classifier_folder, hub_file, size_of, within

SAFE, PICKLED = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"


def test_a_large_file_is_announced_and_fetched_once(hub, lines):
    hub.files = {SAFE: 605_143_316}
    path = hub_file("org/repo", [SAFE, PICKLED])
    assert path.name == SAFE
    (line,) = lines.messages
    assert f"Fetching {SAFE} of org/repo once, 605 MB, into " in line
    assert hub_file("org/repo", [SAFE, PICKLED]) == path
    assert hub.asked == [SAFE]  # the second time nobody was asked


def test_the_next_spelling_is_tried_and_a_small_file_is_not_announced(hub, lines):
    hub.files = {PICKLED: 1000}
    assert hub_file("org/repo", [SAFE, PICKLED]).name == PICKLED
    assert (hub.asked, lines.messages) == ([SAFE, PICKLED], [])
    with pytest.raises(FileNotFoundError, match="none of other"):
        hub_file("org/repo", ["other"])


def test_what_was_fetched_before_is_taken_without_an_answer(hub, lines):
    hub.files = {SAFE: 1000}
    path = hub_file("org/repo", [SAFE], newest=True)
    hub.error = ConnectionError("no route")
    assert hub_file("org/repo", [SAFE], newest=True) == path
    (line,) = lines.messages
    assert "as it was fetched before" in line
    assert "no route" in line
    with pytest.raises(ConnectionError):
        hub_file("org/other", [SAFE])


def test_a_server_that_never_answers_is_given_up_in_time(hub, monkeypatch):
    monkeypatch.setattr("clip_adapter.hub.ANSWER", 0.05)
    hub.wait = threading.Event()
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.05 seconds"):
        hub_file("org/repo", [SAFE, PICKLED])
    assert time.monotonic() - start < 1
    hub.wait.set()


def test_a_fault_in_time_is_raised_as_it_is():
    assert within(5, int, "7") == 7
    with pytest.raises(ValueError, match="seven"):
        within(5, int, "seven")


def test_a_repository_is_read_as_it_was_fetched(hub, make_folder):
    hub.source = folder = make_folder()
    hub.files = {path.name: path.stat().st_size for path in folder.iterdir()}
    fetched = load_backbone("hf-hub:org/repo", device="cpu")
    assert fetched.name == "hf-hub:org/repo"
    assert fetched.fingerprint == load_backbone(str(folder), device="cpu").fingerprint
    hub.error = ConnectionError("no route")
    again = load_backbone("hf-hub:org/repo", device="cpu")
    assert again.fingerprint == fetched.fingerprint
    assert again.encode_text(["a cat"]).shape == (1, fetched.embed_dim)
    shutil.rmtree(hub.cache)
    with pytest.raises(BackboneError, match="no route"):
        load_backbone("hf-hub:org/repo", device="cpu")


def test_a_saved_classifier_is_a_folder_or_a_repository(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "pets").mkdir(parents=True)
    with pytest.raises(ClassifierError, match=r"no classifier\.json"):
        classifier_folder("out/pets")
    (tmp_path / "out" / "pets" / "classifier.json").write_text("{}")
    assert classifier_folder("out/pets") == Path("out/pets")
    with pytest.raises(ClassifierError, match=r"Did you mean 'out/pets'\?") as error:
        classifier_folder("out/pet")
    assert "hf-hub:out/pet" in error.value.hint
    assert hub.asked == []
    hub.files = {"classifier.json": 10}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: f"/cache/{name}")
    for name in ("hf-hub:out/pet", "out/bread"):
        assert classifier_folder(name) == Path("/cache", name.removeprefix("hf-hub:"))
    hub.error = ConnectionError()
    with pytest.raises(ClassifierError, match="neither a folder here nor a repository"):
        classifier_folder("someone/pets")
    for name in ("pets", "a/b/c", "./out/bread", str(tmp_path / "x" / "y")):
        with pytest.raises(ClassifierError, match="There is no folder"):
            classifier_folder(name)


@pytest.mark.parametrize(
    ("count", "text"), [(1_234_567, "1.2 MB"), (605_143_316, "605 MB"), (1_710_540_580, "1.7 GB")]
)
def test_sizes_in_words(count, text):
    assert size_of(count) == text
