import pytest
import torch

from clip_adapter.backbones import load_backbone

VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32}


@pytest.fixture(scope="session")
def demo():
    return load_backbone("demo", device="cpu")


@pytest.fixture(scope="session")
def tiny_vit(make_folder):
    """Three blocks of width 32, D = 16."""
    return load_backbone(f"local-dir:{make_folder(vision_cfg=VIT)}", device="cpu")


@pytest.fixture(scope="session")
def tiny_resnet(make_folder):
    """Stages of 16, 64, 128, 256 and 512 channels, D = 16."""
    return load_backbone(f"local-dir:{make_folder(vision_cfg=RESNET)}", device="cpu")


@pytest.fixture
def pictures():
    """Makes pixels (4, 3, S, S) for a backbone."""

    def make(backbone):
        size = backbone.preprocess.image_size
        return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))

    return make
