"""What the name of a backbone means.

ARCH/TAG              pretrained weights that open_clip lists, as RN50/openai
ViT-B/32, RN50        the field's spelling of OpenAI's models
ARCH/random           the true architecture with random weights, the same for the same name
ARCH/./file, ARCH//f  the weights of a checkpoint file
hf-hub:ORG/REPO       a model of the Hugging Face hub
local-dir:DIR, DIR    a folder with open_clip_config.json and a checkpoint
demo                  the small CLIP inside this package
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clip_adapter.errors import BackboneError, UsageError, unknown_name

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo_weights"
CONFIG_FILE = "open_clip_config.json"
HUB, FOLDER = "hf-hub:", "local-dir:"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
OFFLINE_HINT = "'--backbone demo' needs no download."

Kind = Literal["tag", "random", "file", "hub", "folder"]


@dataclass(frozen=True)
class Source:
    """Where a backbone comes from: its canonical ``name``, and ``target``, the tag, file, hub
    repository or folder. ``arch`` is an open_clip architecture for tag, random and file.
    """

    kind: Kind
    name: str
    arch: str = ""
    target: str = ""


def parse_name(
    name: str, architectures: Collection[str], tags: Callable[[str], list[str]]
) -> Source:
    """The source that ``name`` means.

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
        return Source("hub", name, target=repo)
    if name.startswith(FOLDER):
        return _folder(name, Path(name.removeprefix(FOLDER)))
    if name and Path(name).is_dir() and name.partition("/")[0] not in architectures:
        return _folder(FOLDER + name, Path(name))
    return _architecture(_canonical(name), architectures, tags)


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


def _folder(name: str, folder: Path) -> Source:
    if not (folder / CONFIG_FILE).is_file():
        raise BackboneError(
            f"{folder} holds no {CONFIG_FILE}.",
            allowed=f"a folder with {CONFIG_FILE} and open_clip_model.safetensors",
            hint="For a bare checkpoint file, name its architecture: ViT-B-32/./file.safetensors",
        )
    return Source("folder", name, target=str(folder))


def _canonical(name: str) -> str:
    """``ViT-B/32`` -> ``ViT-B-32/openai``; ``ViT-L/14@336px`` -> ``ViT-L-14-336/openai``."""
    name = re.sub(r"^ViT-([BLH])/(14|16|32)(?=$|/|@)", r"ViT-\1-\2", name)
    name = re.sub(r"^(ViT-L-14)@336px", r"\1-336", name)
    openai = re.fullmatch(r"RN50(x4|x16|x64)?|RN101|ViT-(B-16|B-32|L-14|L-14-336)", name)
    return f"{name}/openai" if openai else name


def _is_path(name: str) -> bool:
    """Whether ``name`` is meant as a path of this machine."""
    return name.startswith((".", "/", "~", "\\")) or Path(name).suffix in WEIGHT_SUFFIXES


def _architecture(
    name: str, architectures: Collection[str], tags: Callable[[str], list[str]]
) -> Source:
    arch, _, target = name.partition("/")
    if arch not in architectures and _is_path(name):
        raise BackboneError(
            f"{name!r} is a file without its architecture."
            if Path(name).is_file()
            else f"The file {name!r} does not exist, and a file alone names no architecture.",
            allowed="ARCH/./FILE, such as ViT-B-32/./weights.pt (ARCH//FILE from the root)",
            hint=f"Put the architecture before the path of the weights. {OFFLINE_HINT}",
        )
    if arch not in architectures:
        near = unknown_name("backbone", arch, architectures).found
        raise UsageError(
            near,
            allowed="ARCH/TAG, ARCH/random, ARCH/./FILE, hf-hub:ORG/REPO, local-dir:DIR, demo",
            hint="'clip-adapter ls backbones' lists every ARCH/TAG.",
        )
    if target == "random":
        return Source("random", name, arch)
    known = tags(arch)
    if target.lower().replace("-", "_") in known:
        tag = target.lower().replace("-", "_")
        return Source("tag", f"{arch}/{tag}", arch, tag)
    if target and Path(target).is_file():
        return Source("file", name, arch, target)
    if "/" in target or Path(target).suffix in WEIGHT_SUFFIXES:
        raise BackboneError(
            f"No checkpoint file {target!r} for the backbone {arch}.",
            allowed=f"a file of its weights: {', '.join(WEIGHT_SUFFIXES)}",
            hint=f"Check the path. {OFFLINE_HINT}",
        )
    wrong = unknown_name(f"weights of {arch}", target, [*known, "random"])
    if not target:
        wrong = UsageError(f"{arch} is an architecture; its weights must be named as well.")
    raise UsageError(
        wrong.found,
        allowed=", ".join(f"{arch}/{tag}" for tag in [*known, "random", "./FILE"]),
        hint="'clip-adapter ls backbones' lists every ARCH/TAG.",
    )
