"""The pretend accelerator is one, and the tests of towers pass where there is one."""

import subprocess
import sys

import pytest
import torch
from fake_accelerator import CARD, Present
from torch import nn

MODULES = ("test_adapters.py", "test_lora.py", "test_text.py")


def test_numbers_come_and_go_by_copies_alone():
    x = torch.arange(6.0).reshape(2, 3)
    with Present():
        on_card = x.to(CARD)
        assert on_card.device == CARD != x.device
        assert torch.equal((on_card + 1).cpu(), x + 1)
        assert (on_card.sum() * torch.tensor(2.0)).item() == 30
        for mixed in (lambda: on_card + x, lambda: on_card @ x.T, lambda: on_card.add_(x)):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="CPU"):
            on_card.numpy()
        x.copy_(on_card + 1)
    assert x[0, 0] == 1
    assert torch.empty(1, device="meta").is_meta


def test_a_module_is_trained_there_as_on_the_cpu():
    results = []
    for device in (torch.device("cpu"), CARD):
        with Present():
            torch.manual_seed(0)
            module, x = nn.Linear(3, 2).to(device), torch.randn(4, 3).to(device)
            optimizer = torch.optim.AdamW(module.parameters(), 0.1)
            for _ in range(3):
                optimizer.zero_grad()
                module(x).square().sum().backward()
                optimizer.step()
            results.append(module.weight.detach().cpu())
    torch.testing.assert_close(*results)


@pytest.mark.slow
def test_the_tests_of_towers_name_their_device(root):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--fake-accelerator", "-p", "no:cacheprovider"]
        + [str(root / "tests/towers" / name) for name in MODULES],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
