"""What methods learn on a card is what they learn on the CPU."""

import dataclasses
import sys

import pytest
import torch
from fake_accelerator import CARD, present
from quick import quick

import clip_adapter
from clip_adapter.classifier import Classifier
from clip_adapter.methods import get_method, make_method, method_names
from clip_adapter.options import Compute
from clip_adapter.training import loop

# All others are given features, which come to the CPU where they are made.
RUN_A_TOWER = [
    n for n in method_names() if get_method(n).reads == "images" or get_method(n).runs_text_tower
]
# Towers of other kinds: what trains in them, and below their projection.
ELSEWHERE = [
    ("fine-tune", "resnet"),
    ("clip-adapter-inside", "resnet"),
    ("prolip", "resnet"),
    ("fine-tune", "siglip"),
    ("clip-adapter-inside", "siglip"),
]
# Of the largest logit. Orders of summation differ, and trainings multiply what differs.
TOLERANCE = 1e-2


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A folder with a feature store for each device: of one, those of the CPU would be taken."""
    return tmp_path_factory.mktemp("stores")


def compare(name, device, data, backbone, stores, tmp_path):
    """Fits ``name`` on the CPU and on ``device``: alike there, and when it is loaded on the CPU."""
    options = quick(name, dropout=0.0)  # which is drawn on the device that it runs on
    paths = sorted((data / "test").rglob("*.png"))[::2]
    logits = []
    for place in ("cpu", device):
        store = stores / place.replace(":", "-")
        classifier = clip_adapter.fit(
            data, method=name, options=options, backbone=backbone, device=place, cache=store
        )
        used = classifier.backbone(place).device
        assert classifier.info.get("compute", {"device": used})["device"] == used
        assert (used == "cpu") == (place == "cpu")
        logits += [classifier.logits(paths), classifier.zero_shot_logits(paths)]
    loaded = Classifier.load(classifier.save(tmp_path / "classifier"))
    loaded.backbone("cpu")
    logits += [loaded.logits(paths), loaded.zero_shot_logits(paths)]
    for on_cpu, other in zip(logits[:2] * 2, logits[2:], strict=True):
        atol = TOLERANCE * on_cpu.abs().max().item()
        torch.testing.assert_close(other, on_cpu, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["zero-shot", *RUN_A_TOWER])
def test_on_the_pretend_accelerator(name, uneven, tiny_backbone, stores, tmp_path):
    with present():
        compare(name, "auto", uneven, tiny_backbone("transformer"), stores, tmp_path)


def test_auto_finds_the_pretend_accelerator(tiny_backbone):
    with present():
        assert clip_adapter.load_backbone(tiny_backbone("transformer")).device == str(CARD)


# Heads that train where the task says; wise-ft, linear-adapter and clap are in auto.
HEADS = {
    "clip-adapter": {"steps": 4, "branch": "both"},
    "clip-adapter-cache": {},
    "taskres": {"residual_scale": "auto"},
    "auto": {},
}


@pytest.fixture
def places(monkeypatch):
    """The devices of the trainings, all of which are short and are worth a card."""
    devices, train_on = [], loop.train_on

    def noted(task, module, rows, schedule, **rest):
        devices.append(str(next(module.parameters()).device))
        short = dataclasses.replace(schedule, steps=min(schedule.steps, 2))
        return train_on(task, module, rows, short, **rest)

    for key, module in list(sys.modules.items()):
        if key.startswith("clip_adapter") and vars(module).get("train_on") is train_on:
            monkeypatch.setattr(module, "train_on", noted)
    monkeypatch.setattr(loop, "WORTH_A_CARD", 0)
    return devices


@pytest.mark.parametrize("name", HEADS)
def test_heads_train_where_the_task_says(name, world, places):
    task, test = world
    method = make_method(name, HEADS[name])
    on_cpu = method.fit(task)
    with present():
        on_card = method.fit(dataclasses.replace(task, compute=Compute(device=str(CARD))))
    half = len(places) // 2
    assert places == ["cpu"] * half + [str(CARD)] * half
    assert half >= 2
    # What is kept is on the CPU, and is the same to rounding.
    want, got = on_cpu.logits(test), on_card.logits(test)
    assert got.device.type == on_card.held_out.logits.device.type == "cpu"
    torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE * want.abs().max().item())
    assert on_card.hyperparameters == on_cpu.hyperparameters


def test_a_small_training_stays_on_the_cpu(world):
    task = dataclasses.replace(world[0], compute=Compute(device=str(CARD)))
    assert loop.training_device(task, loop.WORTH_A_CARD - 1).type == "cpu"
    assert loop.training_device(task, loop.WORTH_A_CARD) == CARD
    assert loop.training_device(task, None) == CARD


@pytest.fixture
def exact(monkeypatch):
    """Products of float32 numbers in float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(
    ("name", "architecture"),
    [*((name, "transformer") for name in method_names()), *ELSEWHERE],
)
def test_on_cuda(name, architecture, uneven, tiny_backbone, exact, stores, tmp_path):
    compare(name, "cuda", uneven, tiny_backbone(architecture), stores, tmp_path)
