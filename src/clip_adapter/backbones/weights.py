"""Weights of a model: where they are, how they come here, what they may ask for, their digest.

open_clip hands some entries of ``open_clip_config.json`` on to ``transformers`` and ``timm``, and
``transformers`` runs Python files of a repository where it is asked to (``trust_remote_code``), or
asks the person at the terminal. Here the answer is always no: no code of a repository is ever run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clip_adapter.backbones.catalog import catalog
from clip_adapter.errors import BackboneError, how_to_install
from clip_adapter.hub import hub_file, located
from clip_adapter.paths import FOLDER, HUB
from clip_adapter.wording import first_line, shortened

if TYPE_CHECKING:
    from torch import nn

DEMO_FOLDER = Path(__file__).parent / "demo_weights"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"  # what a repository is asked for first
_PICKLED_FILE = "open_clip_pytorch_model.bin"
_HUB_PAGE = "https://huggingface.co"
OFFLINE_HINT = "'--backbone demo' needs no download."
# How texts are cleaned; everything that open_clip's own model configurations set is among them.
TOKENIZER_OPTIONS = ("clean", "language", "reduction_mask", "strip_sep_token")

Kind = Literal["tag", "random", "file", "hub", "folder"]


@dataclass(frozen=True)
class Origin:
    """Where a backbone comes from.

    Attributes:
        kind: of its name.
        name: the canonical one.
        arch: an open_clip architecture, for tag, random and file.
        target: the tag, file, hub repository or folder.
        quick_gelu: whether QuickGELU is asked for; None is as the weights or ``arch`` say.
        file: the checkpoint on this machine, once it is here; "" for folders and random weights.
    """

    kind: Kind
    name: str
    arch: str = ""
    target: str = ""
    quick_gelu: bool | None = None
    file: str = ""

    @property
    def identifier(self) -> str:
        """What open_clip calls its model configuration."""
        beside = Path(self.file).parent if self.kind == "hub" and self.file else None
        if beside and (beside / CONFIG_FILE).is_file():
            return f"{FOLDER}{beside}"  # as it was fetched: the hub's may be a newer one now
        return self.arch or f"{HUB if self.kind == 'hub' else FOLDER}{self.target}"

    @property
    def published(self) -> dict[str, Any]:
        """What open_clip knows of the pretrained weights of a tag; {} for all else."""
        return catalog().weights[self.arch][self.target] if self.kind == "tag" else {}


def fingerprint(model: nn.Module) -> str:
    """SHA-256 (hex) over the sorted state dict: names, dtypes, shapes and bytes.

    Two models can have the same weights and compute different things, so the activation, the
    numbers of attention heads and the pooling are covered too. The device is not.
    """
    import torch

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


def reason_of(error: Exception) -> str:
    """One line that says what went wrong, without the address of every retry."""
    if isinstance(error, pickle.UnpicklingError):  # torch advises to open it all the same
        return "it is damaged, or a pickle of more than tensors, which may run any code."
    line = first_line(error)
    if isinstance(error, KeyError):
        line = f"{line} is unknown."
    if mismatch := re.search(r".*size mismatch.*", str(error)):
        line += f" {mismatch[0].strip()}"
    return shortened(line, 300)


def check_reach(origin: Origin) -> None:
    """Check that the weights of ``origin`` are here, or that the hub says that it has them.

    Raises:
        BackboneError: neither; the message says how to bring them here.
    """
    repo, names = _on_hub(origin)
    if repo:
        with _by_hand(origin, repo, names):
            located(repo, names)


def fetch(origin: Origin) -> Origin:
    """``origin`` with its checkpoint on this machine, from the hub or from its cache.

    Raises:
        BackboneError: it cannot be fetched; the message says how to bring it here.
    """
    repo, names = _on_hub(origin)
    with _by_hand(origin, repo, names):
        if origin.kind == "hub":
            hub_file(repo, [CONFIG_FILE], newest=True)
        if repo:
            path = hub_file(repo, names, newest=origin.kind == "hub")
        else:
            from open_clip.pretrained import download_pretrained

            path = download_pretrained(origin.published)
    return dataclasses.replace(origin, file=str(path))


def _on_hub(origin: Origin) -> tuple[str, list[str]]:
    """The repository that has the weights, and what they may be called; "" where none has."""
    if origin.kind == "hub":
        return origin.target, _spellings("")
    repo, _, file = origin.published.get("hf_hub", "").rpartition("/")
    return repo, _spellings(file)


@contextlib.contextmanager
def _by_hand(origin: Origin, repo: str, names: list[str]) -> Iterator[None]:
    """Say how to bring the weights of ``origin`` here where the block fails to."""
    try:
        yield
    except Exception as error:  # hub, network and file system raise errors of many kinds
        from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

        files, use = f"{CONFIG_FILE} {WEIGHTS_FILE}", "local-dir:DIR"
        if origin.kind == "tag":
            # The architecture under which a bare file computes what the tag computes.
            configs, quick = catalog().configs, f"{origin.arch}-quickgelu"
            needed = origin.published.get("quick_gelu") and not configs[origin.arch].get(
                "quick_gelu"
            )
            exact = origin.arch
            if quick in configs:
                exact = quick if needed else f"{origin.arch}@gelu"
            files = names[0]
            use = f"{exact}//full/path/of/DIR/{files}"
        pages = " and ".join(f"{_HUB_PAGE}/{repo}/resolve/main/{name}" for name in files.split())
        raise BackboneError(
            f"The weights of {origin.name} could not be fetched from the Hugging Face hub "
            f"(repository {repo}): {reason_of(error)}",
            hint=f"On a machine with internet run\n"
            f"    hf download {repo} {files} --local-dir DIR\n"
            f"  or save {pages} in a folder DIR there;\n"
            f"  copy DIR here and use\n"
            f"    --backbone {use}\n"
            f"  or copy its hub cache folder models--{repo.replace('/', '--')} into "
            f"{HF_HUB_CACHE}{', or unset HF_HUB_OFFLINE' * HF_HUB_OFFLINE}. {OFFLINE_HINT}",
        ) from error


def is_here(origin: Origin) -> bool:
    """Whether pretrained weights that have a tag, and their tokenizer, were fetched before."""
    from huggingface_hub import try_to_load_from_cache

    repo, files = _on_hub(origin)
    kept = [file for file in files if isinstance(try_to_load_from_cache(repo, file), str)]
    text = catalog().configs[origin.arch].get("text_cfg", {}).get("hf_tokenizer_name")
    tokens = text and try_to_load_from_cache(text, "tokenizer_config.json")
    return bool(kept) and (not text or isinstance(tokens, str))


def _spellings(file: str) -> list[str]:
    """Names under which a repository may have a checkpoint, safetensors first."""
    if file in ("", _PICKLED_FILE):
        return [WEIGHTS_FILE, _PICKLED_FILE]
    path = Path(file)
    safe = [str(path.with_suffix(".safetensors"))] if path.suffix in (".bin", ".pth") else []
    return [*safe, file]


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
            hint=f"{how_to_install('siglip')}; let it reach the hub once, or take another "
            "backbone.",
        ) from error
