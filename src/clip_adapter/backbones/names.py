"""A backbone by its name, without importing torch.

ARCH/TAG              pretrained weights that open_clip lists, as RN50/openai
ViT-B/32, RN50        the field's spelling of OpenAI's models
ARCH/random           the true architecture with random weights, the same for the same name
ARCH/./file, ARCH//f  the weights of a checkpoint file; ARCH@gelu and ARCH@quickgelu say how they
                      were trained, where the file does not
hf-hub:ORG/REPO       a model of the Hugging Face hub
local-dir:DIR, DIR    a folder with open_clip_config.json and a checkpoint
demo                  the small CLIP inside this package
auto                  what :mod:`.choice` takes for pictures; no backbone is called so
NAME                  what another package calls its own, see :mod:`.own`
"""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from clip_adapter.backbones.activation import WORDS
from clip_adapter.backbones.catalog import catalog
from clip_adapter.backbones.weights import (
    CONFIG_FILE,
    DEMO_FOLDER,
    OFFLINE_HINT,
    Origin,
    check_reach,
)
from clip_adapter.errors import BackboneError, UsageError, unknown_name
from clip_adapter.paths import FOLDER, HUB, WEIGHT_SUFFIXES, did_you_mean
from clip_adapter.wording import shown

GROUP = "clip_adapter.backbones"
"""The entry points by which other packages make backbones known, name to factory."""

DEMO, AUTO = "demo", "auto"
# The colours, textures and shapes that it was trained on, and so all words that it knows.
DEMO_WORDS = {
    *("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "white", "black"),
    *("plain", "striped", "dotted", "checkered", "wavy", "speckled"),
    *("circle", "square", "triangle", "star", "heart", "cross"),
    *("ring", "crescent", "hexagon", "diamond", "flower", "gear"),
}


def is_reserved(name: str) -> bool:
    """Whether ``name`` is one of this library's own or of their form, with a slash or a colon."""
    return name in (DEMO, AUTO) or bool({*"/:"} & {*_canonical(name)})


def own_names() -> dict[str, str]:
    """Names in the entry point group, each with the package that it is of.

    Names of this library's own form stay this library's.
    """
    return {
        entry.name: entry.dist.name if entry.dist else "a package"
        for entry in entry_points(group=GROUP)
        if not is_reserved(entry.name)
    }


def is_own(name: str) -> bool:
    """Whether a package gave its own backbone ``name``; to search takes 10 ms."""
    return not is_reserved(name) and name in own_names()


def _next(name: str) -> str:
    """What to do about an unknown ``name``; a package may have given it, in vain."""
    if entry_points(group=GROUP, name=name):
        return (
            f"A package makes {name!r} known, but a name with a slash or a colon is never one of "
            "a package: its entry point must be renamed."
        )
    return "'clip-adapter ls backbones --all' lists every ARCH/TAG."


def check_backbone(name: str, *, fetched: bool) -> None:
    """Check that there is such a backbone; if ``fetched``, that its weights can be had.

    Raises:
        UsageError, BackboneError: as :func:`~clip_adapter.backbones.load_backbone`.
    """
    if not is_own(name) and not (fetched and name == AUTO):
        origin = origin_of(name)
        if fetched:
            check_reach(origin)


def list_backbones() -> list[dict[str, Any]]:
    """Every backbone that can be named: ``name``, ``arch``, ``tag`` and ``notes``."""
    known = catalog()
    rows = [{"name": DEMO, "arch": DEMO, "tag": "", "notes": "in this package, offline"}]
    rows += [
        {"name": name, "arch": name, "tag": "", "notes": f"of {owner}"}
        for name, owner in own_names().items()
    ]
    for arch, tag in [(one, tag) for one, tags in known.weights.items() for tag in tags]:
        config = known.configs.get(arch, {})
        size = config.get("vision_cfg", {}).get("image_size", 224)
        notes = f"D {config.get('embed_dim')}, {size} px"
        if config.get("text_cfg", {}).get("hf_tokenizer_name"):
            notes += ", text needs the extra 'siglip'"
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


def origin_of(name: str) -> Origin:
    """The origin that ``name``, one of this module's table, means.

    Raises:
        UsageError: an unknown architecture or tag; the nearest ones are named.
        BackboneError: a file or folder that is not there.
    """
    if name == DEMO:
        return _folder(DEMO, DEMO_FOLDER)
    known = catalog()
    if name == AUTO:
        raise UsageError(
            "--backbone auto: 'auto' is chosen for pictures, and none are given.",
            hint="Name one ('clip-adapter ls backbones'); for features, the one that made them.",
        )
    if name.startswith(HUB):
        repo = name.removeprefix(HUB)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise UsageError(f"{name!r} names no hub repository.", allowed="hf-hub:ORG/REPO")
        return Origin("hub", name, target=repo)
    if name.startswith(FOLDER):
        return _folder(name, Path(name.removeprefix(FOLDER)))
    if name and Path(name).is_dir() and name.partition("/")[0] not in known.configs:
        return _folder(FOLDER + name, Path(name))
    name = _canonical(name)
    arch, _, target = name.partition("/")
    arch, at, word = arch.partition("@")
    if arch not in known.configs:
        raise _unknown_architecture(name, arch + at + word, known.configs)
    if at and word not in WORDS:
        raise unknown_name("activation", word, WORDS, hint=f"Write {arch}@gelu/./FILE.")
    is_path = "/" in target or Path(target).suffix in WEIGHT_SUFFIXES
    if at and not (is_path or Path(target).is_file()):
        raise UsageError(
            f"{name}: @{word} is for checkpoint files.",
            allowed=f"{arch}@{word}/./FILE, with a file that is there",
            hint="Check the path. Weights that have a name know their activation.",
        )
    if target == "random":
        return Origin("random", name, arch)
    tags, tag = known.weights.get(arch, {}), target.lower().replace("-", "_")
    if tag in tags and not at:
        return Origin("tag", f"{arch}/{tag}", arch, tag)
    if target and Path(target).is_file():
        return Origin("file", name, arch, target, quick_gelu=WORDS.get(word), file=target)
    if is_path:
        raise BackboneError(
            f"No checkpoint file {target!r} for the backbone {arch}.{did_you_mean(target)}",
            allowed=f"a file of its weights: {', '.join(WEIGHT_SUFFIXES)}",
            hint="Check the path. '--backbone demo' needs no download.",
        )
    unknown = unknown_name(f"weights of {arch}", target, [*tags, "random"]).found
    raise UsageError(
        unknown if target else f"{arch} is an architecture; its weights must be named as well.",
        allowed=", ".join(f"{arch}/{tag}" for tag in [*tags, "random", "./FILE"]),
        hint=_next(name),
    )


def _folder(name: str, folder: Path) -> Origin:
    if not folder.is_dir():
        raise BackboneError(
            f"There is no folder {shown(folder)}.{did_you_mean(folder)}",
            allowed=f"{FOLDER}DIR, a folder with {CONFIG_FILE} and a checkpoint",
            hint="Check the path.",
        )
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
    named = [DEMO, *sorted(own_names())]
    forms = "ARCH/TAG, ARCH/random, ARCH/./FILE, hf-hub:ORG/REPO, local-dir:DIR"
    return UsageError(
        unknown_name("backbone", arch, [*known, *named]).found,
        allowed=", ".join([forms, *named]),
        hint=_next(name),
    )
