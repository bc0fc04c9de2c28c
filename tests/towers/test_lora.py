"""Low-rank changes in real towers: untouched at the start, in both towers, and what is refused."""

import pytest
import torch
from tower_adapters import generator, randomised

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import BackboneError
from clip_adapter.features.text import text_weights
from clip_adapter.towers import adapted_copy, tuned
from clip_adapter.towers import text as text_module
from clip_adapter.towers.lora import Lora, LoraAttention
from clip_adapter.towers.text import TextTower

NAMES, TEMPLATES = ["cat", "dog", "grey horse"], ["a photo of a {}."]


@pytest.mark.parametrize(("name", "blocks", "width"), [("demo", 4, 128), ("tiny_vit", 3, 32)])
def test_untouched_to_the_bit_at_the_start(name, blocks, width, request, pictures):
    backbone = request.getfixturevalue(name)
    images = pictures(backbone)
    adapter = Lora(blocks, width, generator=generator())
    assert sum(p.numel() for p in adapter.parameters()) == blocks * 6 * 2 * width
    untouched = backbone.encode_images(images)
    assert torch.equal(tuned(backbone, adapter).encode_images(images), untouched)
    moved = tuned(backbone, randomised(adapter)).encode_images(images)
    assert not torch.allclose(moved, untouched, rtol=1e-2)


def test_the_text_tower_is_untouched_to_the_bit_at_the_start(demo):
    plain, changed = (TextTower(demo, NAMES, TEMPLATES) for _ in range(2))
    Lora(3, 48, generator=generator()).eval().attach_to(changed.blocks())
    with torch.no_grad():
        assert torch.equal(plain(), changed())
    torch.testing.assert_close(
        plain().detach(), text_weights(demo, NAMES, TEMPLATES), rtol=0, atol=1e-6
    )


def test_merged_towers_are_unmerged_ones(demo, pictures):
    images = pictures(demo)
    adapter = randomised(Lora(4, 128, dropout=0.0))
    merged = adapted_copy(demo, adapter)
    unmerged = adapted_copy(demo, adapter)
    for block in unmerged.transformer.resblocks:
        attention = block.attn
        assert isinstance(attention, LoraAttention)
        block.attn.forward = lambda x, *_, a=attention, **__: (a.unmerged(x), None)
    with torch.no_grad():
        torch.testing.assert_close(merged(images), unmerged(images), rtol=1e-5, atol=1e-6)


def test_gradients_through_both_towers_and_repeated_passes(demo, pictures, monkeypatch):
    gradients = []
    for chunk in (128, 2):
        monkeypatch.setattr(text_module, "CHUNK", chunk)
        visual_part = randomised(Lora(4, 128, dropout=0.0))
        text_part = randomised(Lora(3, 48, dropout=0.0))
        text = TextTower(demo, NAMES, TEMPLATES)
        text_part.attach_to(text.blocks())
        features = adapted_copy(demo, visual_part)(pictures(demo))
        (features @ text().T).square().sum().backward()
        parts = [*visual_part.parameters(), *text_part.parameters()]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parts)
        gradients.append([p.grad for p in parts])
        # found once in the whole, however many modules hold them
        assert sum(p.requires_grad for p in text.parameters()) == 6
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_mixed_precision_takes_the_mask_of_the_text_tower(demo):
    text = TextTower(demo, NAMES, TEMPLATES)
    randomised(part := Lora(3, 48, dropout=0.25)).attach_to(text.blocks())
    with torch.autocast("cpu", torch.bfloat16):
        weights = text()
        weights[:, 0].sum().backward()
    assert weights.isfinite().all()
    assert all(p.grad.isfinite().all() for p in part.parameters())


def test_what_does_not_fit_is_refused(demo, tiny_resnet, make_folder):
    with pytest.raises(BackboneError, match="ViT-B-16"):
        adapted_copy(tiny_resnet, Lora(4, 128))
    with pytest.raises(BackboneError, match="4 blocks of width 128"):
        adapted_copy(demo, Lora(3, 128))
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    folder = make_folder(vision_cfg={**vision, "qk_norm": True})
    with pytest.raises(BackboneError, match="another kind"):
        adapted_copy(load_backbone(f"local-dir:{folder}", device="cpu"), Lora(1, 32))
