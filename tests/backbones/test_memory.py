from types import SimpleNamespace

import pytest
import torch

from clip_adapter.backbones import load_backbone
from clip_adapter.backbones.memory import Halving, batch_for, is_out_of_memory
from clip_adapter.errors import BackboneError


def limited(most, error):
    sizes = []

    def function(part):
        sizes.append(len(part))
        if len(part) > most:
            raise error
        return part * 2

    return function, sizes


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_halves_says_so_and_goes_on(error, caplog):
    caplog.set_level("INFO", "clip_adapter")
    function, sizes = limited(3, error)
    halving = Halving(16)
    batch = torch.arange(10.0)
    assert torch.equal(halving.run(function, batch), batch * 2)
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert halving.size == 2
    assert len(caplog.messages) == 2
    assert torch.equal(halving.run(function, batch[:3]), batch[:3] * 2)  # the size is kept


def test_a_single_row_that_does_not_fit_is_an_error():
    function, _ = limited(0, MemoryError())
    with pytest.raises(BackboneError, match="single picture"):
        Halving(4).run(function, torch.zeros(4))


def test_other_errors_pass():
    function, sizes = limited(0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        Halving(4).run(function, torch.zeros(4))
    assert sizes == [4]
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_little_work_keeps_to_one_thread(folder, two_threads, monkeypatch, kind):
    backbone, threads = load_backbone(str(folder), device="cpu"), []
    encode = getattr(backbone.model, f"encode_{kind}")

    def spy(batch):
        threads.append(torch.get_num_threads())
        return encode(batch)

    monkeypatch.setattr(backbone.model, f"encode_{kind}", spy)
    one = torch.zeros(1, 3, 32, 32) if kind == "image" else ["a cat"]
    features = backbone.encode_images(one) if kind == "image" else backbone.encode_text(one)
    assert set(threads) == {1}
    assert torch.get_num_threads() == 2
    monkeypatch.setattr("clip_adapter.threads.SMALL", 1)
    again = backbone.encode_images(one) if kind == "image" else backbone.encode_text(one)
    assert threads[-1] == 2
    torch.testing.assert_close(again, features)


def test_large_towers_and_code_of_others_are_not_counted(folder, two_threads, monkeypatch):
    import torch.utils.flop_counter

    monkeypatch.setattr(torch.utils.flop_counter, "FlopCounterMode", None)
    monkeypatch.setattr("clip_adapter.backbones.memory._COUNTED", 1000)
    load_backbone(str(folder), device="cpu").encode_images(torch.zeros(2, 3, 32, 32))
    own = SimpleNamespace(
        encode_images=lambda x: x[:, 0, 0], preprocess=lambda p: torch.ones(3, 4, 4)
    )
    assert load_backbone(own).encode_images(torch.ones(2, 3, 4, 4)).shape == (2, 4)


@pytest.mark.parametrize(("gigabytes", "batch"), [(8, 256), (24, 256), (80, 512)])
def test_large_cards_get_large_batches(monkeypatch, gigabytes, batch):
    card = SimpleNamespace(total_memory=gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert (batch_for("cuda:0"), batch_for("cpu"), batch_for("mps")) == (batch, 64, 64)


def test_no_result_of_a_processor_is_larger_than_what_is_kept_for_it(folder, monkeypatch):
    images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = load_backbone(str(folder), device="cpu").encode_images(images)
    monkeypatch.setattr("clip_adapter.backbones.memory._LARGEST_RESULT", 100_000)
    backbone, sizes = load_backbone(str(folder), device="cpu"), list[tuple[int, int]]()

    def seen(module, inputs, result):
        if isinstance(result, torch.Tensor):
            sizes.append((len(inputs[0]), result.nbytes))

    for module in backbone.model.visual.modules():
        module.register_forward_hook(seen)
    torch.testing.assert_close(backbone.encode_images(images), whole)
    assert 50_000 < max(size for _, size in sizes) <= 100_000
    assert 1 < max(rows for rows, _ in sizes) < len(images)


def test_one_picture_is_encoded_where_there_is_room_for_none(folder, monkeypatch):
    monkeypatch.setattr("clip_adapter.backbones.memory._LARGEST_RESULT", 1)
    backbone = load_backbone(str(folder), device="cpu")
    assert len(backbone.encode_images(torch.zeros(3, 3, 32, 32))) == 3


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_compiled_tower_encodes(folder):
    backbone, images = load_backbone(str(folder), device="cpu"), torch.ones(2, 3, 32, 32)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 8))
    tower = torch.jit.script(plain)
    features = backbone.with_visual(tower, "compiled").encode_images(images)
    torch.testing.assert_close(features, plain(images).detach())
