"""Small heads of every kind, with numbers that are the same each time."""

import torch

from clip_adapter.heads import Head, Mixture
from clip_adapter.nn import Cache, Projection, ResidualAdapter

C, D, SHOTS = 3, 8, 6
NAMES = ["a", "b", "c"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cache(channels=None):
    keys = draw(SHOTS, D if channels is None else len(channels), seed=1)
    values = torch.eye(C)[torch.arange(SHOTS) % C]
    return Cache(keys, values, 2.0, 3.0, None if channels is None else torch.tensor(channels))


def heads():
    """One of each kind."""
    generator = torch.Generator().manual_seed(2)
    adapter = ResidualAdapter.build(D, 2, generator=generator)
    predicted = ResidualAdapter.build(D, 2, ratio="hypernetwork", generator=generator)
    both = Head(draw(C, D), adapter), Head(draw(C, D), kind="linear", unit=True, cache=cache())
    return {
        "cosine": Head(draw(C, D), logit_scale=30.0),
        "adapter": Head(draw(C, D), adapter),
        "ratio": Head(draw(C, D), predicted),
        "linear": Head(draw(C, D), bias=draw(C), kind="linear"),
        "unit": Head(draw(C, D), bias=draw(C), kind="linear", unit=True),
        "cache": Head(draw(C, D), cache=cache()),
        "channels": Head(draw(C, D), cache=cache([1, 4, 5])),
        "projection": Head(draw(C, 4), Projection(draw(D, 4), draw(4))),
        "mixture": Mixture(both, [0.25, 1.5]),
    }
