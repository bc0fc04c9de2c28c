"""The text tower that is trained says what the frozen one says, and its gradients are right."""

import copy

import pytest
import torch

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.features.text import text_weights
from clip_adapter.towers import text as module
from clip_adapter.towers.text import TextTower

NAMES = ["cat", "a rather longer name of a thing", "dog"]
TEMPLATES = ["a photo of a {}.", "{} texture."]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "custom"])
def tiny(request, make_folder):
    return load_backbone(f"local-dir:{make_folder(custom_text=request.param)}", device="cpu")


@pytest.mark.parametrize("templates", [TEMPLATES[:1], TEMPLATES])
def test_equals_the_frozen_tower(tiny, templates):
    tower = TextTower(tiny, NAMES, templates)
    with torch.no_grad():
        weights = tower()
    torch.testing.assert_close(weights, text_weights(tiny, NAMES, templates), rtol=0, atol=1e-6)


def test_padding_is_cut_and_changes_nothing(demo):
    tower = TextTower(demo, NAMES, TEMPLATES)
    assert tower.tokens.shape[1] == 14 < demo.tokenize(NAMES).shape[1]
    whole = TextTower(demo, NAMES, TEMPLATES)
    texts = [t.replace("{}", n) for n in NAMES for t in TEMPLATES]
    whole.tokens = demo.tokenize(texts)
    torch.testing.assert_close(tower(), whole(), rtol=0, atol=1e-6)


def test_the_gradients_are_those_of_the_whole_prompt(demo):
    short, whole = (TextTower(demo, NAMES, TEMPLATES[:1]) for _ in range(2))
    whole.tokens = demo.tokenize([TEMPLATES[0].replace("{}", n) for n in NAMES])
    gradients = []
    for tower in (short, whole):
        tower.requires_grad_(True)
        (tower() * torch.linspace(-1, 1, 128)).sum().backward()
        gradients.append({n: p.grad for n, p in tower.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_passes_and_their_repetition_change_nothing(demo, monkeypatch):
    one = TextTower(demo, NAMES, TEMPLATES)
    many = TextTower(demo, NAMES, TEMPLATES)
    results = []
    for tower, chunk in ((one, 128), (many, 4)):
        monkeypatch.setattr(module, "CHUNK", chunk)
        parameter = tower.blocks()[0].attn.in_proj_weight.requires_grad_(True)
        weights = tower()
        (weights * torch.linspace(-1, 1, 128)).sum().backward()
        results.append((weights.detach(), parameter.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_the_parameters_are_those_of_the_text_tower(tiny):
    tower = TextTower(tiny, NAMES, TEMPLATES)
    others = sum(p.numel() for p in tiny.model.visual.parameters()) + 1
    assert sum(p.numel() for p in tower.parameters()) == tiny.parameters - others
    assert not any(p.requires_grad for p in tower.parameters())
    assert len(tower.blocks()) == 2


def test_the_backbone_is_left_as_it_is(tiny):
    before = copy.deepcopy(tiny.model.state_dict())
    tower = TextTower(tiny, NAMES, TEMPLATES)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(1)
    after = tiny.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_towers_that_see_their_padding_keep_it(make_folder):
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    folder = make_folder(custom_text=True, text_cfg={**text, "no_causal_mask": True})
    backbone = load_backbone(f"local-dir:{folder}", device="cpu")
    tower = TextTower(backbone, NAMES, TEMPLATES)
    assert tower.tokens.shape[1] == 16
    expected = text_weights(backbone, NAMES, TEMPLATES)
    torch.testing.assert_close(tower(), expected, rtol=0, atol=1e-6)


def test_refusals(tiny):
    with pytest.raises(UsageError, match="template"):
        TextTower(tiny, NAMES, [])

    class Other:
        name = "other"

    with pytest.raises(BackboneError, match="open_clip"):
        TextTower(Other(), NAMES, TEMPLATES)
