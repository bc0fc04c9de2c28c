"""One adapter of each kind, for the demo's tower of 4 blocks of width 128."""

import torch

from clip_adapter.towers.adapters import Houlsby, Parallel, ResidualInside
from clip_adapter.towers.lora import Lora
from clip_adapter.towers.weights import TrunkAdapter, WeightAdapter


def generator():
    return torch.Generator().manual_seed(3)


def one_of_each():
    source = generator()
    return {
        "lora": Lora(4, 128, rank=3, alpha=2.0, dropout=0.1, generator=source),
        "houlsby": Houlsby([1, 4], 128, 2, source),
        "parallel": Parallel([2], 128, 2, source),
        "residual-inside": ResidualInside.build({0: 128, 2: 128, 4: 128}, 8, "paper", 0.4, source),
        "weights": WeightAdapter(["proj"], [torch.zeros(128, 128)]),
        "trunk": TrunkAdapter(),
    }


def randomised(adapter):
    """``adapter``, its parameters no longer those of the start."""
    source = generator()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=source))
    return adapter
