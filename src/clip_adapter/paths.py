"""Paths that a user gives: slips are answered with near names, before torch is imported."""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path

from clip_adapter.errors import BackboneError, ClassifierError, DataError
from clip_adapter.wording import shown

CONFIG = "classifier.json"
"""The file that makes a folder a saved classifier."""
SHARDED, MANIFEST = "features.json", "manifest"
"""The file that makes a folder one of features, and the folder in it with a line for each part."""
HUB, FOLDER = "hf-hub:", "local-dir:"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_LOOKED_AT = 5000  # names in a folder, so that a large one costs no time


def near_paths(path: str | os.PathLike[str]) -> list[str]:
    """Up to three paths that are there and are spelt nearly as ``path``, which is not."""
    here, parts = Path(), Path(path).parts
    while parts and (here / parts[0]).exists():
        here, parts = here / parts[0], parts[1:]
    if not parts:
        return []
    try:
        with os.scandir(here) as entries:
            names = [entry.name for entry in islice(entries, _LOOKED_AT)]
    except OSError:
        return []
    of_folded = {name.casefold(): name for name in sorted(names)}
    matches = difflib.get_close_matches(parts[0].casefold(), of_folded, n=3, cutoff=0.6)
    near = [here / of_folded[match] for match in matches]
    whole = [one.joinpath(*parts[1:]) for one in near if one.joinpath(*parts[1:]).exists()]
    return [shown(one) for one in whole or near]


def did_you_mean(path: str | os.PathLike[str]) -> str:
    """`` Did you mean 'photos'?``, or nothing where no name is near, or ``path`` is there."""
    near = near_paths(os.path.expanduser(path))
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def check_exists(path: str | os.PathLike[str], what: str) -> None:
    """Check that a file or folder is there; ``what`` names it.

    Raises:
        DataError: it is not.
    """
    if not Path(os.path.expanduser(path)).exists():
        raise DataError(
            f"{what} {shown(path)} does not exist.{did_you_mean(path)}", hint="Check the path."
        )


def check_backbone_path(name: object) -> None:
    """Check that the file or folder in the name of a backbone is there, if it holds one.

    Raises:
        BackboneError: it is not.
    """
    if not isinstance(name, str) or name.startswith(HUB) or Path(name).exists():
        return
    arch, slash, target = name.partition("/")
    folder = Path(name.removeprefix(FOLDER))
    if name.startswith(FOLDER) and not folder.is_dir():
        raise BackboneError(
            f"There is no folder {shown(folder)}.{did_you_mean(folder)}",
            allowed=f"{FOLDER}DIR, a folder with open_clip_config.json and a checkpoint",
            hint="Check the path.",
        )
    is_path = target.startswith(("./", "../", "/")) or Path(target).suffix in WEIGHT_SUFFIXES
    if slash and arch.strip(".~") and not Path(target).is_file() and is_path:
        raise no_checkpoint(arch, target)


def no_checkpoint(arch: str, target: str) -> BackboneError:
    """The error of a checkpoint file that is not there."""
    return BackboneError(
        f"No checkpoint file {target!r} for the backbone {arch}.{did_you_mean(target)}",
        allowed=f"a file of its weights: {', '.join(WEIGHT_SUFFIXES)}",
        hint="Check the path. '--backbone demo' needs no download.",
    )


def no_classifier(folder: Path) -> ClassifierError:
    """The error of a ``folder`` that is no saved classifier."""
    problem = f"There is no folder {shown(folder)}.{did_you_mean(folder)}"
    if folder.exists():
        what = f"it has no {CONFIG}" if folder.is_dir() else "it is a file"
        problem = f"{shown(folder)} is not a saved classifier: {what}."
    return ClassifierError(problem, hint="Give the folder that 'clip-adapter fit --out' wrote.")
