import numpy as np
import pytest
from PIL import Image

from clip_adapter.datasets.dataset import Sample


@pytest.fixture(scope="session")
def tiny_folder(make_folder):
    return make_folder()


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    from clip_adapter.backbones import load_backbone

    return load_backbone(str(tiny_folder), device="cpu")


@pytest.fixture
def pictures(tmp_path):
    """Makes n random pictures in a folder, and gives their samples."""

    def make(n, start=0, folder="pictures"):
        (tmp_path / folder).mkdir(exist_ok=True)
        samples = []
        for i in range(start, start + n):
            path = tmp_path / folder / f"{i:03d}.png"
            pixels = np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            samples.append(Sample(path.name, i % 3, path))
        return samples

    return make
