"""Whether a checkpoint file was trained with QuickGELU: its tensors alone do not show it.

OpenAI's weights, and those of some others, were; most of open_clip's own were not. Run with the
wrong one they still give features, only worse ones. What is beside or in the file is read; where
that says nothing, the user has to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_adapter.backbones.weights import CONFIG_FILE, Origin
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.paths import WEIGHT_SUFFIXES
from clip_adapter.reporting import log

WORDS = {"gelu": False, "quickgelu": True}
"""What may stand between the architecture and the file, as in ``ViT-B-32@gelu/./file``."""
# Entries of the metadata of a safetensors file, or of its configuration's towers.
_KEYS = ("quick_gelu", "hidden_act", "activation", "act")
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
    import open_clip

    base, own = origin.arch.removesuffix("-quickgelu"), bool(_config(origin.arch).get("quick_gelu"))
    quick, both = f"{base}-quickgelu", f"{base}-quickgelu" in open_clip.list_models()
    asked = True if own and origin.arch == quick else origin.quick_gelu
    if own and origin.quick_gelu is False:
        raise UsageError(
            f"{origin.name}: {origin.arch} has QuickGELU.",
            hint=f"For GELU write {base}@gelu/{origin.target}." if both else "Leave @gelu away.",
        )
    stated, where = next(_statements(origin.file, origin.arch), (None, ""))
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


def _config(arch: str) -> dict[str, Any]:
    import open_clip

    return open_clip.get_model_config(arch) or {}


def _statements(file: str, arch: str) -> Iterator[tuple[bool, str]]:
    """Whether a file has QuickGELU, by what is known of it, and who says so; the surest first."""
    path = Path(file)
    if path.suffix == ".safetensors":
        activation = _named(_metadata(path))
        if activation is not None:
            yield activation, "its metadata say"
    elif (quick := _published(path)) is not None:
        yield quick, "its checksum, that of published weights, says"
    if (beside := _beside(path, arch)) is not None:
        yield beside, f"the {CONFIG_FILE} beside it says"


def _metadata(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except Exception:  # damaged: whoever loads it says so
        return {}


def _named(entries: dict[str, Any]) -> bool | None:
    """What ``entries`` say of the activation; None is nothing."""
    for key in _KEYS:
        word = str(entries.get(key, "")).lower().replace("_", "")
        if word in ("true", "1", "quickgelu"):
            return True
        if word in ("false", "0", "gelu"):
            return False
    return None


def _beside(path: Path, arch: str) -> bool | None:
    """What the configuration in the folder of a file says, if it is that of this file."""
    try:
        checkpoints = [p for p in path.parent.iterdir() if p.suffix in WEIGHT_SUFFIXES]
        if not path.name.startswith("open_clip_") and len(checkpoints) > 1:
            return None  # it may be that of another file
        config = json.loads((path.parent / CONFIG_FILE).read_text("utf-8"))
        config = config.get("model_cfg", config)
        ours = _config(arch)
        same = config["embed_dim"] == ours["embed_dim"] and all(
            config["vision_cfg"].get(key) == ours["vision_cfg"].get(key)
            for key in ("layers", "width", "patch_size", "image_size")
        )
        return bool(config.get("quick_gelu")) if same else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _published(path: Path) -> bool | None:
    """The activation of weights that open_clip knows by the checksum in their address."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    for arch, tag in open_clip.list_pretrained():
        entry = get_pretrained_cfg(arch, tag)
        *_, folder, name = ["", "", *entry.get("url", "").split("/")]
        known = folder if len(folder) == 64 else name.rpartition("-")[2].rpartition(".")[0]
        if len(known) >= 8 and digest.startswith(known):
            return bool(entry.get("quick_gelu"))
    return None
