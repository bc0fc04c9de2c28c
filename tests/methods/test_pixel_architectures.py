"""Two steps of every method that trains inside the backbone, on OpenAI's architectures."""

import dataclasses

import pytest
import torch
from learn import learn

from clip_adapter.backbones import load_backbone
from clip_adapter.errors import ClipAdapterError
from clip_adapter.methods import get_method, method_names
from clip_adapter.towers import tuned

METHODS = [n for n in method_names() if get_method(n).reads == "images"]


@pytest.fixture(scope="module", params=["RN50", "RN101", "ViT-B-32", "ViT-B-16"])
def backbone(request):
    return load_backbone(f"{request.param}/random", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_steps(name, backbone, pixel_task):
    task = pixel_task(backbone, per_class=1)
    cls = get_method(name)
    options = {"batch_size": 3, "epochs": 2, "lr": 1e-3}
    assert options.keys() <= {f.name for f in dataclasses.fields(cls)}
    statistics = {k: v.clone() for k, v in backbone.model.visual.named_buffers()}
    try:
        classifier = learn(name, task, options)
    except ClipAdapterError as error:  # what needs transformer blocks says so of a ResNet
        if backbone.name.startswith("RN") and "transformer" in str(error):
            return
        raise
    encoder = (
        backbone if classifier.tower_adapter is None else tuned(backbone, classifier.tower_adapter)
    )
    logits = classifier.logits(encoder.encode_images(task.pictures.batch([0, 1, 2])))
    assert logits.shape == (3, 3)
    assert torch.isfinite(logits).all()
    for key, value in encoder.model.visual.named_buffers():
        if key in statistics:
            assert torch.equal(value, statistics[key]), key
