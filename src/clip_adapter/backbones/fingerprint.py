"""A name for what a model computes: the digest of its weights and of what they do not show."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """SHA-256 (hex) over the sorted state dict: names, dtypes, shapes and bytes.

    Two models can have the same weights and compute different things, so the activation, the
    numbers of attention heads and the pooling are covered too. The device is not.
    """
    digest = hashlib.sha256(json.dumps(_unseen(model), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def _unseen(model: nn.Module) -> dict[str, Any]:
    visual = getattr(model, "visual", None)
    text = getattr(model, "text", None)
    return {
        "quick_gelu": any(type(m).__name__ == "QuickGELU" for m in model.modules()),
        "heads": [m.num_heads for m in model.modules() if isinstance(_heads(m), int)],
        "pool": [
            str(getattr(visual, "pool_type", None)),
            str(getattr(model, "text_pool_type", getattr(text, "pool_type", None))),
        ],
    }


def _heads(module: nn.Module) -> Any:
    return getattr(module, "num_heads", None)
