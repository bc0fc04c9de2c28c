"""A small task with a prior that helps: text weights near the classes' true directions."""

import shutil

import pytest
import torch

from clip_adapter.data.demo_task import demo_task
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods import FewShotTask
from clip_adapter.nn import normalize

C, D, K = 6, 32, 8


def features(centres, per_class, seed, noise=1.2):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(centres)).repeat_interleave(per_class)
    x = centres[labels] + noise * torch.randn(len(labels), D, generator=generator) / D**0.5
    return FeatureSet(
        10 * x,
        labels,
        [f"class {i}" for i in range(len(centres))],
        digests=[f"{seed}-{i}" for i in range(len(labels))],
    )


@pytest.fixture(scope="session")
def world():
    """(task, test features)."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(C, D, generator=generator))
    text = normalize(centres + 0.8 * torch.randn(C, D, generator=generator) / D**0.5)
    task = FewShotTask(features(centres, K, 1), text, 30.0, seed=1)
    return task, features(centres, 40, 2)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of the demo task's pictures: 6 classes, 6 to train and 6 to test of each."""
    root = tmp_path_factory.mktemp("demo")
    whole, small = demo_task(root / "whole"), root / "small"
    for split in ("train", "test"):
        for name in sorted(p.name for p in (whole / split).iterdir())[::3][:C]:
            (small / split / name).mkdir(parents=True)
            for path in sorted((whole / split / name).iterdir())[:6]:
                shutil.copy(path, small / split / name)
    return small
