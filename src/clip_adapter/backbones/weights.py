"""Weights of a model: where they are, how they come here, what they may ask for, their digest.

open_clip hands some entries of ``open_clip_config.json`` on to ``transformers`` and ``timm``, and
``transformers`` runs Python files of a repository where it is asked to (``trust_remote_code``), or
asks the person at the terminal. Here the answer is always no: no code of a repository is ever run.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from clip_adapter.errors import BackboneError

DEMO_FOLDER = Path(__file__).parent / "demo_weights"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"  # what open_clip asks a repository for first
HUB, FOLDER = "hf-hub:", "local-dir:"
OFFLINE_HINT = "'--backbone demo' needs no download."
# How texts are cleaned; everything that open_clip's own model configurations set is among them.
TOKENIZER_OPTIONS = ("clean", "language", "reduction_mask", "strip_sep_token")

Kind = Literal["tag", "random", "file", "hub", "folder"]


@dataclass(frozen=True)
class Origin:
    """Where a backbone comes from: its canonical ``name``, and ``target``, the tag, file, hub
    repository or folder. ``arch`` is an open_clip architecture for tag, random and file.
    """

    kind: Kind
    name: str
    arch: str = ""
    target: str = ""

    @property
    def identifier(self) -> str:
        """What open_clip calls its model configuration."""
        return self.arch or f"{HUB if self.kind == 'hub' else FOLDER}{self.target}"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 (hex) over the sorted state dict: names, dtypes, shapes and bytes.

    Two models can have the same weights and compute different things, so the activation, the
    numbers of attention heads and the pooling are covered too. The device is not.
    """
    visual, text = getattr(model, "visual", None), getattr(model, "text", None)
    heads = [getattr(module, "num_heads", None) for module in model.modules()]
    text_pool = getattr(model, "text_pool_type", getattr(text, "pool_type", None))
    unseen = {
        "quick_gelu": any(type(m).__name__ == "QuickGELU" for m in model.modules()),
        "heads": [number for number in heads if isinstance(number, int)],
        "pool": [str(getattr(visual, "pool_type", None)), str(text_pool)],
    }
    digest = hashlib.sha256(json.dumps(unseen, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong, without the address of every retry."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    if "size mismatch" in str(error):
        line += f" {next(text for text in lines if 'size mismatch' in text)}"
    return line if len(line) <= 300 else line[:300] + "..."


def fetch(origin: Origin) -> str:
    """The path of the checkpoint of a tag or a hub repository, from the hub or from its cache.

    Raises:
        BackboneError: it cannot be fetched; the message says how to bring it here.
    """
    import open_clip
    from huggingface_hub.constants import HF_HUB_CACHE
    from open_clip.pretrained import (
        download_pretrained,
        download_pretrained_from_hf,
        get_pretrained_cfg,
    )

    entry = get_pretrained_cfg(origin.arch, origin.target) if origin.kind == "tag" else {}
    try:
        if origin.kind == "tag":
            return download_pretrained(entry)
        download_pretrained_from_hf(origin.target, filename=CONFIG_FILE)
        return download_pretrained_from_hf(origin.target)
    except Exception as error:  # requests, hub and file system raise errors of many kinds
        repo, files, use = origin.target, f"{CONFIG_FILE} {WEIGHTS_FILE}", "local-dir:DIR"
        if origin.kind == "tag":
            repo, _, file = entry.get("hf_hub", "").rpartition("/")
            # The architecture under which a bare file computes what the tag computes.
            config, quick = (
                open_clip.get_model_config(origin.arch) or {},
                f"{origin.arch}-quickgelu",
            )
            needed = entry.get("quick_gelu") and not config.get("quick_gelu")
            exact = quick if needed and quick in open_clip.list_models() else origin.arch
            files, use = file or WEIGHTS_FILE, f"{exact}//full/path/of/the/file"
        raise BackboneError(
            f"The weights of {origin.name} could not be fetched from the Hugging Face hub "
            f"(repository {repo}): {reason_of(error)}",
            hint=f"On a machine with internet run\n"
            f"    hf download {repo} {files} --local-dir DIR\n"
            f"  copy DIR here and use\n"
            f"    --backbone {use}\n"
            f"  or copy its hub cache folder models--{repo.replace('/', '--')} into "
            f"{HF_HUB_CACHE}. {OFFLINE_HINT}",
        ) from error


def model_config(identifier: str) -> dict[str, Any]:
    """What open_clip reads for ``identifier``; {} where there is nothing that it can read."""
    import open_clip

    try:
        config = open_clip.get_model_config(identifier)
    except (AttributeError, OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def tokenizer_options(config: dict[str, Any]) -> dict[str, Any]:
    """Options for the tokenizer of ``config``: transformers is told no before it asks."""
    from_transformers = (config.get("text_cfg") or {}).get("hf_tokenizer_name")
    return {"trust_remote_code": False} if from_transformers else {}


def check_config(name: str, config: dict[str, Any]) -> None:
    """Check that the model of ``config`` can be made without any code but what is installed here.

    Args:
        name: of the backbone.
        config: the model configuration of a repository or a folder.

    Raises:
        BackboneError: it asks for more.
    """
    text, vision = config.get("text_cfg") or {}, config.get("vision_cfg") or {}
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise _refused(
            f"The configuration of {name} describes no towers.",
            "text_cfg and vision_cfg with names and values",
        )
    options = text.get("tokenizer_kwargs") or {}
    if not isinstance(options, dict) or not all(
        key in TOKENIZER_OPTIONS and isinstance(value, str | bool | None)
        for key, value in options.items()
    ):
        raise _refused(
            f"The configuration of {name} gives its tokenizer the options {options!r:.200}; some "
            "could run code of the repository.",
            f"{', '.join(TOKENIZER_OPTIONS)}, each with a word, true or false",
        )
    timm, model = vision.get("timm_model_name"), text.get("hf_model_name")
    if timm and not re.fullmatch(r"[\w.-]+", str(timm)):
        raise _refused(
            f"The configuration of {name} takes its visual tower from {timm!r}.",
            "the bare name of an architecture of timm",
        )
    if model and not (isinstance(model, str) and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model)):
        raise _refused(
            f"The configuration of {name} takes its text tower from {model!r:.200}.",
            "ORG/REPO of the Hugging Face hub",
        )
    if model:
        check_transformers(name, model)


def _refused(problem: str, allowed: str) -> BackboneError:
    hint = "Take another repository of the model, or remove the entry after reading what it does."
    return BackboneError(problem, allowed=allowed, hint=hint)


def check_transformers(name: str, model: str) -> None:
    """Check that transformers itself has the text tower ``model`` of the backbone ``name``.

    Raises:
        BackboneError: it is code of a repository, or cannot be read.
    """
    try:
        from transformers import AutoConfig  # pyright: ignore[reportMissingImports]
    except ImportError:
        return  # open_clip cannot make it either, and says so
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        if "AutoModel" in (getattr(config, "auto_map", None) or {}):
            raise ValueError("its model is code of the repository")
    except Exception as error:  # transformers raises errors of many kinds
        raise BackboneError(
            f"The text tower {model} of {name} cannot be read without running code of its "
            f"repository, or not at all: {reason_of(error)}",
            allowed="models whose code is in the package transformers",
            hint="pip install 'clip-adapter[siglip]', let it reach the hub once, or take another "
            "backbone.",
        ) from error
