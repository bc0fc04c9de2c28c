"""Whether a checkpoint file was trained with QuickGELU: its tensors alone do not show it.

OpenAI's weights, and those of some others, were; most of open_clip's own were not. Run with the
wrong one they still give features, only worse ones. What is beside or in the file is read; where
that says nothing, the user has to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from clip_adapter.backbones.catalog import catalog
from clip_adapter.backbones.weights import CONFIG_FILE, Origin
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.paths import WEIGHT_SUFFIXES
from clip_adapter.reporting import log

WORDS = {"gelu": False, "quickgelu": True}
"""What may stand between the architecture and the file, as in ``ViT-B-32@gelu/./file``."""
# Entries of the metadata of a safetensors file, or of its configuration's towers.
_KEYS = ("quick_gelu", "hidden_act", "activation", "act")
_READ = WORDS | {"true": True, "1": True, "false": False, "0": False}  # what stands there
_NAMES = {False: "GELU", True: "QuickGELU"}
CONVERT = """A TorchScript archive (OpenAI's own .pt) or a pickled model is not read. OpenAI's \
weights have a name, such as --backbone ViT-B-32/openai; or make a safetensors file of the archive:
    python -c "import torch, safetensors.torch as st; d = torch.jit.load('FILE.pt', 'cpu')\
.state_dict(); st.save_file({k: v.contiguous() for k, v in d.items() if k not in \
('input_resolution', 'context_length', 'vocab_size')}, 'FILE.safetensors', \
{'quick_gelu': 'true'})\""""


def with_activation(origin: Origin, recorded: bool = False) -> Origin:
    """The ``origin`` of a checkpoint file, with its activation, by a name that says which.

    Args:
        origin: of any kind; all others know theirs.
        recorded: the name stands in a record. Where it says nothing, the architecture's own was
            used.

    Raises:
        UsageError: its architecture has another activation than its name asks for.
        BackboneError: nothing says which one its weights were trained with.
    """
    if origin.kind != "file":
        return origin
    configs, base = catalog().configs, origin.arch.removesuffix("-quickgelu")
    own, quick = bool(configs[origin.arch].get("quick_gelu")), f"{base}-quickgelu"
    both = quick in configs
    asked = True if own and origin.arch == quick else origin.quick_gelu
    if own and origin.quick_gelu is False:
        raise UsageError(
            f"{origin.name}: {origin.arch} has QuickGELU.",
            hint=f"For GELU write {base}@gelu/{origin.target}." if both else "Leave @gelu away.",
        )
    stated, where = _statement(Path(origin.file), configs[origin.arch])
    if asked is None and recorded and both:
        asked = own
    if None not in (asked, stated) and asked != stated:
        log.warning(
            f"{where} that the weights of {origin.target} were trained with "
            f"{_NAMES[not asked]}; {origin.name} runs them with {_NAMES[bool(asked)]}, and its "
            "features are worse for it."
        )
    chosen = stated if asked is None else asked
    if chosen is None and both:
        raise BackboneError(
            f"Nothing says whether {origin.target} was trained with QuickGELU or GELU, and "
            f"{base} exists with either.",
            allowed=f"{quick}/{origin.target} (QuickGELU: OpenAI, MetaCLIP, DFN and others) or "
            f"{base}@gelu/{origin.target} (GELU: most of open_clip's own)",
            hint="Write the one that its makers used; with the wrong one the features are worse. "
            f"Beside its {CONFIG_FILE} a file needs no such word.",
        )
    if not chosen or own:
        name = f"{base}@gelu/{origin.target}" if recorded and both and not own else origin.name
        return dataclasses.replace(origin, name=name, quick_gelu=chosen)
    if asked is None:
        log.info(f"Activation: QuickGELU ({where}).")
    arch = quick if both else origin.arch
    name = f"{arch}/{origin.target}" if both else f"{arch}@quickgelu/{origin.target}"
    return dataclasses.replace(origin, name=name, arch=arch, quick_gelu=True)


def _statement(path: Path, config: dict[str, Any]) -> tuple[bool | None, str]:
    """Whether a file has QuickGELU, None where nothing says it; and who does, the surest first."""
    if path.suffix == ".safetensors":
        said, where = _of_metadata(path), "its metadata say"
    else:
        said, where = _published(path), "its checksum, that of published weights, says"
    if said is not None:
        return said, where
    return _beside(path, config), f"the {CONFIG_FILE} beside it says"


def _of_metadata(path: Path) -> bool | None:
    """What the metadata of a safetensors file say of the activation; None is nothing."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            entries = file.metadata() or {}
    except Exception:  # damaged: whoever loads it says so
        return None
    words = (str(entries.get(key, "")).lower().replace("_", "") for key in _KEYS)
    return next((_READ[word] for word in words if word in _READ), None)


def _beside(path: Path, ours: dict[str, Any]) -> bool | None:
    """What the configuration in the folder of a file says, if it is that of this file."""
    try:
        checkpoints = [p for p in path.parent.iterdir() if p.suffix in WEIGHT_SUFFIXES]
        if not path.name.startswith("open_clip_") and len(checkpoints) > 1:
            return None  # it may be that of another file
        config = json.loads((path.parent / CONFIG_FILE).read_text("utf-8"))
        config = config.get("model_cfg", config)
        same = config["embed_dim"] == ours["embed_dim"] and all(
            config["vision_cfg"].get(key) == ours["vision_cfg"].get(key)
            for key in ("layers", "width", "patch_size", "image_size")
        )
        return bool(config.get("quick_gelu")) if same else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _published(path: Path) -> bool | None:
    """The activation of weights that open_clip knows by the checksum in their address."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    for entry in (entry for tags in catalog().weights.values() for entry in tags.values()):
        *_, folder, name = ["", "", *entry.get("url", "").split("/")]
        known = folder if len(folder) == 64 else name.rpartition("-")[2].rpartition(".")[0]
        if len(known) >= 8 and digest.startswith(known):
            return bool(entry.get("quick_gelu"))
    return None
