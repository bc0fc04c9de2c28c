"""houlsby and parallel-adapter: counts, chosen blocks, backbones that they fit."""

import open_clip
import pytest
import torch
from learn import learn

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.methods import make_method
from clip_adapter.task import VIT_B_16
from clip_adapter.towers import tuned
from clip_adapter.towers.adapters import Houlsby, Parallel

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32}
METHODS = pytest.mark.parametrize(
    ("name", "adapter", "per_block"), [("houlsby", Houlsby, 2), ("parallel-adapter", Parallel, 1)]
)


@pytest.fixture(scope="module")
def demo():
    return load_backbone("demo", device="cpu")


@METHODS
def test_counts_are_those_of_the_modules_on_vit_b_16(name, adapter, per_block):
    assert make_method(name).parameters(VIT_B_16) == per_block * 12 * (2 * 768 * 64 + 64 + 768)
    options = {"hidden": 32, "blocks": "1,12"}
    with torch.device("meta"):
        visual = open_clip.create_model("ViT-B-16", pretrained=None, device="meta").visual
        module = adapter([1, 12], 768, 32)
        module.attach(visual)
    count = sum(p.numel() for p in module.parameters())
    assert make_method(name, options).parameters(VIT_B_16) == count


@METHODS
def test_it_learns_the_shots_in_the_chosen_blocks(name, adapter, per_block, demo, pixel_task):
    task = pixel_task(demo)
    options = {"blocks": "2, 4", "hidden": 8, "epochs": 20, "lr": 3e-3}
    classifier = learn(name, task, options)
    features = tuned(demo, classifier.tower_adapter).encode_images(task.pictures.batch(range(12)))
    assert torch.equal(classifier.logits(features).argmax(1), task.train.labels)
    assert isinstance(classifier.tower_adapter, adapter)
    assert classifier.info["hyperparameters"]["blocks"] == [2, 4]
    assert classifier.info["trained_parameters"] == per_block * 2 * (2 * 128 * 8 + 8 + 128)


@METHODS
def test_a_training_without_steps_to_speak_of_is_zero_shot(
    name, adapter, per_block, demo, pixel_task
):
    task = pixel_task(demo)
    classifier = learn(name, task, {"epochs": 1, "lr": 1e-12})
    features = tuned(demo, classifier.tower_adapter).encode_images(task.pictures.batch([0, 1, 2]))
    torch.testing.assert_close(features, task.train.plain_view[:3])


@METHODS
def test_backbones_and_blocks_that_do_not_fit(
    name, adapter, per_block, demo, pixel_task, make_folder
):
    resnet = load_backbone(f"local-dir:{make_folder(vision_cfg=RESNET)}", device="cpu")
    with pytest.raises(BackboneError, match="ViT-B-16/openai"):
        learn(name, pixel_task(resnet))
    with pytest.raises(UsageError, match="all, or numbers of 1, 2, 3, 4 "):
        learn(name, pixel_task(demo), {"blocks": "0"})
    for options in ({"hidden": 0}, {"lr": 0}, {"epochs": -1}, {"batch_size": 0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            make_method(name, options)
