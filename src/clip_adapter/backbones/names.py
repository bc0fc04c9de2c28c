"""A backbone by its name.

ARCH/TAG              pretrained weights that open_clip lists, as RN50/openai
ViT-B/32, RN50        the field's spelling of OpenAI's models
ARCH/random           the true architecture with random weights, the same for the same name
ARCH/./file, ARCH//f  the weights of a checkpoint file; ARCH@gelu and ARCH@quickgelu say how they
                      were trained, where the file does not
hf-hub:ORG/REPO       a model of the Hugging Face hub
local-dir:DIR, DIR    a folder with open_clip_config.json and a checkpoint
demo                  the small CLIP inside this package
NAME                  what another package calls its own, see :mod:`.own`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

from clip_adapter.backbones.activation import WORDS, with_activation
from clip_adapter.backbones.base import DTYPES, Backbone, Dtype, resolve_device
from clip_adapter.backbones.open_clip import OpenClipBackbone, create_model
from clip_adapter.backbones.own import OwnBackbone, own_backbone, own_names
from clip_adapter.backbones.weights import (
    CONFIG_FILE,
    DEMO_FOLDER,
    OFFLINE_HINT,
    Origin,
    fetch,
)
from clip_adapter.errors import BackboneError, UsageError, unknown_name
from clip_adapter.paths import FOLDER, HUB, WEIGHT_SUFFIXES, no_checkpoint

DEMO = "demo"
# The colours, textures and shapes that it was trained on, and so all words that it knows.
DEMO_WORDS = {
    *("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "white", "black"),
    *("plain", "striped", "dotted", "checkered", "wavy", "speckled"),
    *("circle", "square", "triangle", "star", "heart", "cross"),
    *("ring", "crescent", "hexagon", "diamond", "flower", "gear"),
}
LISTED = "'clip-adapter ls backbones' lists every ARCH/TAG."


def load_backbone(
    name: Any, *, device: str = "auto", dtype: str = "float32", recorded: bool = False
) -> Backbone:
    """Load a frozen CLIP.

    Args:
        name: ``ARCH/TAG`` (``RN50/openai``, ``ViT-B/32``), ``ARCH/random``, ``ARCH/./FILE``,
            ``hf-hub:ORG/REPO``, ``local-dir:DIR``, ``demo`` or the name that a package gave to its
            own; or an object, see :class:`~clip_adapter.backbones.own.OwnBackbone`, which stays on
            its device and in its number format.
        device: "auto" takes cuda, then mps, then cpu; or a device by name ("cuda:1").
        dtype: "float32", "float16" or "bfloat16", of weights and computation; "auto" is float16
            on a CUDA device, else float32. Returned tensors are float32 in any case.
        recorded: the name stands in a saved classifier: what it leaves open was as then.

    Raises:
        UsageError: an unknown name, device or dtype; an object that is no backbone, or is on
            another device or of another number format than asked for.
        BackboneError: weights that cannot be found, fetched or loaded.
    """
    if not isinstance(name, str):
        return _as_asked(name if isinstance(name, Backbone) else OwnBackbone(name), device, dtype)
    if name in own_names():
        return _as_asked(own_backbone(name, device), device, dtype)
    if dtype not in ("auto", *DTYPES):
        raise unknown_name("dtype", str(dtype), ["auto", *DTYPES])
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model
    origin = with_activation(parse_name(name, open_clip.list_models(), tags), recorded)
    device = resolve_device(device)
    if dtype == "auto":
        dtype = "float16" if device.startswith("cuda") else "float32"
    if origin.kind in ("tag", "hub"):
        origin = fetch(origin)
    return OpenClipBackbone(origin, create_model(origin), device, cast("Dtype", dtype))


def _as_asked(backbone: Backbone, device: str, dtype: str) -> Backbone:
    """``backbone``, which stays where and what it is, if nothing else is asked for.

    Raises:
        UsageError: another device or number format is.
    """
    if not f"{backbone.device}:".startswith(f"{device}:") and device != "auto":
        raise UsageError(
            f"device = {device}: {backbone.name} is on {backbone.device}.",
            hint="Leave it away: a backbone of your own stays where you put it.",
        )
    if dtype not in ("auto", "float32", backbone.dtype):
        raise UsageError(
            f"dtype = {dtype}: {backbone.name} computes in {backbone.dtype}.",
            hint="Leave it away: a backbone of your own has its own number format.",
        )
    return backbone


def list_backbones() -> list[dict[str, Any]]:
    """Every backbone that can be named: ``name``, ``arch``, ``tag`` and ``notes``."""
    import open_clip

    demo = {"name": DEMO, "arch": DEMO, "tag": "", "notes": "in this package, offline"}
    rows: list[dict[str, Any]] = [demo] if DEMO_FOLDER.is_dir() else []
    rows += [
        {"name": name, "arch": name, "tag": "", "notes": f"of {owner}"}
        for name, owner in own_names().items()
    ]
    for arch, tag in open_clip.list_pretrained():
        config = open_clip.get_model_config(arch) or {}
        size = config.get("vision_cfg", {}).get("image_size", 224)
        notes = f"D {config.get('embed_dim')}, {size} px"
        if config.get("text_cfg", {}).get("hf_tokenizer_name"):
            notes += ", text needs clip-adapter[siglip]"
        rows.append({"name": f"{arch}/{tag}", "arch": arch, "tag": tag, "notes": notes})
    return rows


def files_of(name: str) -> list[Path]:
    """The files of this machine that the backbone ``name`` is read from, where it is a path.

    None for what is known by its name alone: pretrained tags, hub repositories, ``demo``; and for
    a path that is not there.
    """
    if name in ("", DEMO) or name.startswith(HUB):
        return []
    folder = Path(name.removeprefix(FOLDER))
    if folder.is_dir():
        kept = (*WEIGHT_SUFFIXES, ".json", ".txt")
        return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in kept)
    target = Path(name.partition("/")[2])
    return [target] if target.is_file() else []


def parse_name(
    name: str, architectures: Collection[str], tags: Callable[[str], list[str]]
) -> Origin:
    """The origin that ``name`` means.

    Args:
        name: as in this module's table.
        architectures: the known ones.
        tags: the pretrained tags of an architecture.

    Raises:
        UsageError: an unknown architecture or tag; the nearest ones are named.
        BackboneError: a file or folder that is not there.
    """
    if name == DEMO:
        return _folder(DEMO, DEMO_FOLDER)
    if name.startswith(HUB):
        repo = name.removeprefix(HUB)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise UsageError(f"{name!r} names no hub repository.", allowed="hf-hub:ORG/REPO")
        return Origin("hub", name, target=repo)
    if name.startswith(FOLDER):
        return _folder(name, Path(name.removeprefix(FOLDER)))
    if name and Path(name).is_dir() and name.partition("/")[0] not in architectures:
        return _folder(FOLDER + name, Path(name))
    name = _canonical(name)
    arch, _, target = name.partition("/")
    arch, at, word = arch.partition("@")
    if arch not in architectures:
        raise _unknown_architecture(name, arch + at + word, architectures)
    if at and word not in WORDS:
        raise unknown_name("activation", word, WORDS, hint=f"Write {arch}@gelu/./FILE.")
    if at and not Path(target).is_file():
        raise UsageError(
            f"{name}: @{word} is for checkpoint files.",
            allowed=f"{arch}@{word}/./FILE, with a file that is there",
            hint="Check the path. Weights that have a name know their activation.",
        )
    if target == "random":
        return Origin("random", name, arch)
    known, tag = tags(arch), target.lower().replace("-", "_")
    if tag in known and not at:
        return Origin("tag", f"{arch}/{tag}", arch, tag)
    if target and Path(target).is_file():
        return Origin("file", name, arch, target, quick_gelu=WORDS.get(word), file=target)
    if "/" in target or Path(target).suffix in WEIGHT_SUFFIXES:
        raise no_checkpoint(arch, target)
    unknown = unknown_name(f"weights of {arch}", target, [*known, "random"]).found
    raise UsageError(
        unknown if target else f"{arch} is an architecture; its weights must be named as well.",
        allowed=", ".join(f"{arch}/{tag}" for tag in [*known, "random", "./FILE"]),
        hint=LISTED,
    )


def _folder(name: str, folder: Path) -> Origin:
    if not (folder / CONFIG_FILE).is_file():
        raise BackboneError(
            f"{folder} holds no {CONFIG_FILE}.",
            allowed=f"a folder with {CONFIG_FILE} and open_clip_model.safetensors",
            hint="For a bare checkpoint file, name its architecture: ViT-B-32/./file.safetensors",
        )
    return Origin("folder", name, target=str(folder))


def _canonical(name: str) -> str:
    """``ViT-B/32`` -> ``ViT-B-32/openai``; ``ViT-L/14@336px`` -> ``ViT-L-14-336/openai``."""
    name = re.sub(r"^ViT-([BLH])/(14|16|32)(?=$|/|@)", r"ViT-\1-\2", name)
    name = re.sub(r"^(ViT-L-14)@336px", r"\1-336", name)
    openai = re.fullmatch(r"RN50(x4|x16|x64)?|RN101|ViT-(B-16|B-32|L-14|L-14-336)", name)
    return f"{name}/openai" if openai else name


def _unknown_architecture(name: str, arch: str, known: Collection[str]) -> Exception:
    """What to say of a ``name`` whose part before the first slash is no architecture."""
    if name.startswith((".", "/", "~", "\\")) or Path(name).suffix in WEIGHT_SUFFIXES:
        return BackboneError(
            f"{name!r} is a file without its architecture."
            if Path(name).is_file()
            else f"The file {name!r} does not exist, and a file alone names no architecture.",
            allowed="ARCH/./FILE, such as ViT-B-32/./weights.pt (ARCH//FILE from the root)",
            hint=f"Put the architecture before the path of the weights. {OFFLINE_HINT}",
        )
    return UsageError(
        unknown_name("backbone", arch, known).found,
        allowed="ARCH/TAG, ARCH/random, ARCH/./FILE, hf-hub:ORG/REPO, local-dir:DIR, demo",
        hint=LISTED,
    )
