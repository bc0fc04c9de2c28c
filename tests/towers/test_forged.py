"""Saved changes of a tower that were forged, or were made for another tower."""

import time

import pytest
import torch
from tower_adapters import one_of_each

from clip_adapter.classifier import Classifier
from clip_adapter.errors import BackboneError
from clip_adapter.heads import Head
from clip_adapter.nn import ResidualAdapter
from clip_adapter.towers import build_tower_adapter, describe_tower_adapter, tuned
from clip_adapter.towers.adapters import Houlsby, Parallel, ResidualInside
from clip_adapter.towers.lora import Lora
from clip_adapter.towers.weights import TrunkAdapter, WeightAdapter

NAN, INF = float("nan"), float("inf")
WRONG_SIZES = (0, -1, 16.0, "16", NAN, None, True, 10**9, 10**400)


@pytest.mark.parametrize("kind", list(one_of_each()))
def test_built_again_is_its_own_copy_that_can_be_trained(kind):
    adapter = one_of_each()[kind]
    config, tensors = describe_tower_adapter(adapter)
    state = torch.get_rng_state()
    again = build_tower_adapter(config, tensors)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.config() == adapter.config()
    for (name, a), b in zip(again.named_parameters(), adapter.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.requires_grad
        assert a.device.type == "cpu"
        assert a.data_ptr() != tensors[name].data_ptr()


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        ("lora", "alpha", (NAN, INF, -1.0, "1", None)),
        ("lora", "dropout", (NAN, -0.1, 1.5, "0")),
        ("lora", "rank", WRONG_SIZES),
        ("lora", "width", WRONG_SIZES),
        ("lora", "blocks", (*WRONG_SIZES, [1, 2], 3, 5)),
        ("houlsby", "width", WRONG_SIZES),
        ("houlsby", "hidden", WRONG_SIZES),
        ("parallel", "blocks", ([], [0], [-1], [2, 2], ["2"], [10**9], 2, None, [2] * 10**6)),
        ("parallel", "hidden", WRONG_SIZES),
        ("residual-inside", "adapters", ({}, [], 5, {"0": {}}, {"-1": {}}, {"a": {}})),
        ("weights", "names", ([], [1], "p", ["proj", "proj"], None)),
        ("weights", "shapes", ([], [[-1, 64]], [[128]], [5], [[10**9] * 9], [[128, 64.0]])),
    ],
)
def test_sizes_and_numbers_that_cannot_be(kind, name, values):
    config, tensors = describe_tower_adapter(one_of_each()[kind])
    for value in values:
        with pytest.raises((ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)):
            build_tower_adapter({**config, name: value}, tensors)


@pytest.mark.parametrize(
    ("kind", "forged"),
    [
        ("lora", {"blocks": 10**9}),
        ("lora", {"width": 10**6, "rank": 10**6}),
        ("lora", {"width": 8_000, "rank": 8_000}),
        ("houlsby", {"width": 10**6, "hidden": 10**6}),
        ("houlsby", {"width": 10_000, "hidden": 10_000}),
        ("parallel", {"blocks": list(range(1, 900)), "width": 2_000, "hidden": 2_000}),
        ("weights", {"shapes": [[10**6, 10**6]]}),
        ("weights", {"shapes": [[16_000, 16_000]]}),
        (
            "residual-inside",
            {"adapters": {"0": ResidualAdapter.build(2, 2).config() | {"dim": 9_000_000}}},
        ),
    ],
)
def test_a_few_bytes_do_not_take_gigabytes(kind, forged, small_tensors):
    config, tensors = describe_tower_adapter(one_of_each()[kind])
    start = time.perf_counter()
    with small_tensors, pytest.raises((RuntimeError, ValueError)):
        build_tower_adapter({**config, **forged}, tensors)
    assert time.perf_counter() - start < 20  # a billion blocks take hours


def test_wrong_tensors():
    for adapter in one_of_each().values():
        config, tensors = describe_tower_adapter(adapter)
        with pytest.raises(RuntimeError):
            build_tower_adapter(config, {**tensors, "more": torch.zeros(1)})
        for name, tensor in tensors.items():
            with pytest.raises(RuntimeError):
                build_tower_adapter(config, {k: v for k, v in tensors.items() if k != name})
            with pytest.raises(ValueError, match="holds"):
                build_tower_adapter(config, {**tensors, name: tensor.int()})


class Unforeseen(TrunkAdapter):
    """Fits no tower, in a way of its own."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def attach(self, visual):
        if self.fault is None:
            visual.proj = torch.nn.Parameter(torch.zeros(3, 3))
        else:
            raise self.fault


@pytest.mark.parametrize(
    "adapter",
    [
        Lora(40, 128),
        Lora(4, 64),
        Houlsby([40], 128, 2),
        Parallel([1, 40], 128, 2),
        Parallel([1], 96, 2),
        ResidualInside.build({40: 128}, 2),
        ResidualInside.build({0: 64}, 2),
        WeightAdapter(["transformer.resblocks.40.ln_1.bias"], [torch.zeros(128)]),
        WeightAdapter(["proj"], [torch.zeros(128, 63)]),
        WeightAdapter(["", "."], [torch.zeros(1)] * 2),
        *map(Unforeseen, (None, IndexError("40"), AttributeError("ls_1"), KeyError("x"))),
    ],
    ids=lambda adapter: adapter.kind,
)
def test_a_change_made_for_another_tower_says_so_when_it_is_used(adapter, demo, pictures):
    classifier = Classifier(Head(torch.randn(2, 64)), ["a", "b"], tower_adapter=adapter)
    classifier._backbone = demo
    with pytest.raises(BackboneError, match=r"fit|no parameter") as caught:
        classifier.encoder()
    assert caught.value.allowed or caught.value.hint


def test_running_out_of_memory_is_not_said_to_be_another_tower(demo):
    with pytest.raises(RuntimeError, match="out of memory"):
        tuned(demo, Unforeseen(RuntimeError("CUDA out of memory")))
