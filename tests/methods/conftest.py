import pytest
import torch

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.text import text_weights
from clip_adapter.methods import FewShotTask
from clip_adapter.options import Compute

NAMES = ["red ring", "blue star", "green gear"]
TEMPLATES = ("a photo of a {}.",)


class PixelPictures:
    """What a training reads of ``Pictures``, from pixels in memory; a view shifts them."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def identity(self):
        return {"pixels": len(self.pixels)}

    def batch(self, rows, view=None):
        chosen = self.pixels[torch.as_tensor(rows)]
        return chosen if view is None else chosen.roll(1 + view % 3, dims=-1)


@pytest.fixture
def pixel_task():
    """pixel_task(backbone, per_class=4): a task of three classes, each a colour with noise."""

    def make(backbone, per_class=4, seed=1):
        size = backbone.preprocess.image_size
        generator = torch.Generator().manual_seed(0)
        colours = 2 * torch.randn(len(NAMES), 3, 1, 1, generator=generator)
        labels = torch.arange(per_class * len(NAMES)) % len(NAMES)
        noise = torch.randn(len(labels), 3, size, size, generator=generator)
        pixels = colours[labels] + 0.5 * noise
        digests = [f"{i}" for i in range(len(labels))]
        train = FeatureSet(backbone.encode_images(pixels), labels, NAMES, digests=digests)
        return FewShotTask(
            train,
            text_weights(backbone, NAMES, TEMPLATES),
            backbone.logit_scale,
            seed,
            backbone=backbone,
            pictures=PixelPictures(pixels),
            templates=TEMPLATES,
            compute=Compute(device="cpu"),
        )

    return make
