"""Who hears of progress, and what stops long work."""

import sys
import threading
import types

import pytest
import torch
from safetensors.torch import save_file

import clip_adapter
from clip_adapter.errors import CancelledError, UsageError
from clip_adapter.reporting import Stage, listening, track


@pytest.fixture
def features(tmp_path):
    """A file of features of three classes, with text."""
    draw = torch.Generator().manual_seed(0)
    text = torch.eye(3, 8)
    rows = text.repeat_interleave(4, 0) + 0.3 * torch.randn(12, 8, generator=draw)
    labels = torch.arange(3).repeat_interleave(4)
    path = tmp_path / "small.safetensors"
    save_file({"train.features": rows, "train.labels": labels, "text": text}, str(path))
    return f"{path}#train"


def test_a_listener_hears_every_stage(features):
    stages = []
    clip_adapter.fit(features, method="taskres", progress=stages.append)
    assert all(isinstance(stage, Stage) for stage in stages)
    assert {stage.title for stage in stages} == {"Training"}
    assert stages[-1].done == stages[-1].total > 1


def test_a_set_event_ends_the_work_and_nothing_else_hears_of_it(features):
    cancel, stages = threading.Event(), []

    def stop(stage):
        stages.append(stage)
        cancel.set()

    with pytest.raises(CancelledError, match="Training was cancelled after 2 of") as caught:
        clip_adapter.fit(features, method="taskres", progress=stop, cancel=cancel)
    assert "begins the training anew" in caught.value.hint
    assert len(stages) == 1
    assert clip_adapter.fit(features, method="taskres").predict(torch.eye(3, 8)) == ["0", "1", "2"]


def test_an_inner_listener_takes_the_place_of_the_outer_one_until_it_ends():
    outer, inner = [], []
    with listening(outer.append):
        with listening(inner.append):
            list(track("ab", "Inner"))
        list(track("abc", "Outer"))
        with listening(progress=False):
            list(track("abcd", "Nobody"))
    assert [(stage.title, stage.done, stage.total) for stage in inner] == [
        ("Inner", 1, 2),
        ("Inner", 2, 2),
    ]
    assert {stage.title for stage in outer} == {"Outer"}


@pytest.mark.parametrize("wrong", [{"progress": "x"}, {"progress": 1}, {"cancel": True}])
def test_what_cannot_listen_is_told(features, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        clip_adapter.fit(features, method="zero-shot", **wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"method": None}, "Unknown method None"),
        ({"method": "linear-probe", "options": "C=1"}, "options = 'C=1'"),
        ({"method": "linear-probe", "options": ["C"]}, r"options = \['C'\]"),
    ],
)
def test_a_method_or_options_of_another_kind_are_told(features, wrong, words):
    with pytest.raises(UsageError, match=words):
        clip_adapter.fit(features, **wrong)


@pytest.mark.parametrize("notebook", [True, False])
def test_notebooks_have_bars(notebook, monkeypatch, capsys):
    monkeypatch.setattr("clip_adapter.reporting.SHOW_AFTER", 0)
    for name in ("ipykernel", "IPython"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert list(track("abc", "Embedding", "pictures")) == ["a", "b", "c"]
    shown = capsys.readouterr().err
    assert ("Embedding" in shown) == notebook
    assert ("1/3" in shown) == notebook


def test_without_a_screen_there_is_a_line_now_and_then(monkeypatch, caplog):
    caplog.set_level("INFO", "clip_adapter")
    monkeypatch.setattr("clip_adapter.reporting.SAY_EVERY", -1)
    list(track("ab", "Training", "classifiers"))
    with listening(progress=False):
        list(track("ab", "Nobody"))
    assert caplog.messages == [f"Training: {i} of 2 classifiers." for i in (1, 2)]
    monkeypatch.setattr("clip_adapter.reporting.SAY_EVERY", 60)
    list(track("ab", "Quick"))
    assert len(caplog.messages) == 2
