"""clip-adapter-inside: the paper's parameter counts, its places, and what it refuses."""

import open_clip
import pytest
import torch
from learn import learn
from torch.nn.functional import cross_entropy

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import UsageError
from clip_adapter.methods import make_method
from clip_adapter.task import RN50, VIT_B_16
from clip_adapter.towers import tuned
from clip_adapter.towers.adapters import ResidualInside
from clip_adapter.towers.sites import sites

NAME = "clip-adapter-inside"
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32}


@pytest.fixture(scope="module")
def demo():
    return load_backbone("demo", device="cpu")


def count(**options):
    return make_method(NAME, options).parameters


def loss(classifier, task):
    encoder = task.backbone
    if classifier.tower_adapter is not None:
        encoder = tuned(encoder, classifier.tower_adapter)
    features = encoder.encode_images(task.pictures.batch(range(len(task.pictures))))
    return cross_entropy(classifier.logits(features), task.train.labels)


@pytest.mark.parametrize("layer", range(0, 12, 2))
def test_one_inner_place_of_vit_b_16_has_the_papers_parameters(layer):
    assert count(layers=layer)(VIT_B_16) == 786_432


def test_the_end_and_all_of_vit_b_16_have_the_papers_parameters():
    assert count()(VIT_B_16) == count(layers=12)(VIT_B_16) == 524_288
    assert count(layers="all")(VIT_B_16) == 6 * 786_432 + 524_288 == 5_242_880
    assert count(layers="0,2,4,6,8,10,12")(VIT_B_16) == 5_242_880


def test_the_counts_of_rn50():
    assert count()(RN50) == 2 * 1024 * 512
    assert count(layers=1, hidden=64)(RN50) == 2 * 256 * 64
    assert count(layers="all")(RN50) == 2 * 512 * (64 + 256 + 512 + 1024 + 2048 + 1024)


@pytest.mark.parametrize(("arch", "sizes"), [("ViT-B-16", VIT_B_16), ("RN50", RN50)])
def test_the_counts_are_those_of_modules_that_fit_the_architecture(arch, sizes):
    with torch.device("meta"):
        visual = open_clip.create_model(arch, pretrained=None, device="meta").visual
        dims = [place.dim for place in sites(visual)]
        assert len(dims) == (sizes.blocks or len(sizes.stages)) + 1
        for layer, dim in enumerate(dims):
            adapter = ResidualInside.build({layer: dim}, 512)
            adapter.attach(visual)
            numbers = sum(p.numel() for p in adapter.parameters())
            assert numbers == count(layers=layer)(sizes)


@pytest.mark.parametrize("layers", ["end", "0", "2", "0,3,end", "all"])
def test_it_learns_the_shots(layers, demo, pixel_task):
    task = pixel_task(demo)
    options = {"layers": layers, "hidden": 32, "epochs": 8, "lr": 1e-2}
    classifier = learn(NAME, task, options)
    assert loss(classifier, task) < 0.8 * loss(learn("zero-shot", task), task)
    assert classifier.info["trained_parameters"] == sum(
        p.numel() for p in classifier.tower_adapter.parameters()
    )


def test_it_trains_in_the_stages_of_a_resnet(make_folder, pixel_task):
    task = pixel_task(load_backbone(f"local-dir:{make_folder(vision_cfg=RESNET)}", device="cpu"))
    before = {k: v.clone() for k, v in task.backbone.model.state_dict().items()}
    classifier = learn(NAME, task, {"layers": "all", "hidden": 8, "epochs": 2})
    assert classifier.info["hyperparameters"]["layers"] == [0, 1, 2, 3, 4, 5]
    assert classifier.info["trained_parameters"] == 2 * 8 * (16 + 64 + 128 + 256 + 512 + 16)
    after = task.backbone.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)  # BatchNorm's statistics too


def test_ratio_zero_is_zero_shot(demo, pixel_task):
    task = pixel_task(demo)
    classifier = learn(NAME, task, {"layers": "0,4", "visual_ratio": 0, "epochs": 1})
    encoder = tuned(demo, classifier.tower_adapter)
    features = encoder.encode_images(task.pictures.batch([0, 1, 2]))
    torch.testing.assert_close(features, task.train.plain_view[:3])


def test_layers_out_of_range_name_the_allowed_ones(demo, pixel_task):
    with pytest.raises(UsageError, match=r"all, end, or numbers of 0, 1, 2, 3, 4 "):
        learn(NAME, pixel_task(demo), {"layers": 5})
    with pytest.raises(UsageError, match="0, 1, 2, 3, 4, 5 "):
        count(layers="6")(RN50)


@pytest.mark.parametrize(
    "options", [{"hidden": 0}, {"visual_ratio": 1.1}, {"lr": -1}, {"epochs": 0}, {"batch_size": 0}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        make_method(NAME, options)
