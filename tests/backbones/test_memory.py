import pytest
import torch

from clip_adapter.backbones.memory import Halving, is_out_of_memory
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
