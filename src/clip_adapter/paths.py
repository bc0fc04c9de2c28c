"""Paths that a user gives: slips are answered with near names, before torch is imported."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from clip_adapter.errors import ClassifierError, DataError, near_names
from clip_adapter.wording import shown

CONFIG = "classifier.json"
"""The file that makes a folder a saved classifier."""
SHARDED, MANIFEST = "features.json", "manifest"
"""The file that makes a folder one of features, and the folder in it with a line for each part."""
HUB, FOLDER = "hf-hub:", "local-dir:"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
CACHE_VARIABLE = "CLIP_ADAPTER_CACHE"
WRITABLE = (".safetensors", ".parquet")
"""Endings of the files that features are written to."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
OF_A_VOLUME = frozenset({"lost+found"})
"""What lies in a new volume, which is as good as empty."""
UNPACK = "Unpack it and name the folder."
NOT_FETCHED = "an address, and addresses are not fetched"
DOWNLOAD = "Download the pictures first, and name their folder."
QUOTES = "A path with spaces needs quotes."
_SPACES = 5  # in a path whose quotes are missing
_LOOKED_AT = 5000  # names in a folder, so that a large one costs no time


def default_root() -> Path:
    """The folder of what is kept: ``$CLIP_ADAPTER_CACHE``, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("clip-adapter"))


def is_remote(address: str) -> bool:
    """Whether it is an address, and not a path of this machine."""
    return "://" in address


def needs_quotes(words: Sequence[str]) -> str:
    """``Did you mean "My photos"?``, where some of ``words`` are one path, and not each its own."""
    ends = ((i, j) for i in range(len(words)) for j in range(i + 2, i + 2 + _SPACES))
    runs = (words[i:j] for i, j in ends if j <= len(words))
    paths = (" ".join(run) for run in runs if not all(map(os.path.exists, run)))
    path = max(filter(os.path.exists, paths), key=len, default="")
    return f'Did you mean "{shown(path)}"? {QUOTES}' if path else ""


def near_paths(path: str | os.PathLike[str], holding: str = "") -> list[str]:
    """Up to three paths that are there and are spelt nearly as ``path``, which is not.

    Only those count that are folders with a file ``holding``, if it is given.
    """
    here, parts = Path(), Path(path).parts
    while parts and os.path.exists(here / parts[0]):
        here, parts = here / parts[0], parts[1:]
    if not parts:
        return []
    try:
        with os.scandir(here) as entries:
            # What is there and is not found by its own name is a link that leads nowhere.
            names = [e.name for e in islice(entries, _LOOKED_AT) if e.name != parts[0]]
    except OSError:
        return []
    of_folded = {name.casefold(): name for name in sorted(names)}
    matches = difflib.get_close_matches(parts[0].casefold(), of_folded, n=3, cutoff=0.6)
    near = [here / of_folded[match] for match in matches]
    whole = [one.joinpath(*parts[1:]) for one in near if os.path.exists(one.joinpath(*parts[1:]))]
    return [shown(one) for one in whole or near if os.path.exists(one / holding)]


def did_you_mean(
    path: str | os.PathLike[str], others: Iterable[str] = (), holding: str = ""
) -> str:
    """`` Did you mean 'photos'?``, or nothing where no name is near, or ``path`` is there.

    Of a link that leads nowhere it says that. One of ``others``, which are no paths, comes first.
    ``holding`` is as for :func:`near_paths`.
    """
    path = Path(os.path.expanduser(path))
    for link in (path, *path.parents):
        if os.path.islink(link) and not os.path.exists(link):
            return f" {shown(link)!r} is a link that leads nowhere."
    if guess := near_names(str(path), others):
        return guess
    near = near_paths(path, holding)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def check_exists(path: str | os.PathLike[str], what: str) -> None:
    """Check that a file or folder is there; ``what`` names it.

    Raises:
        DataError: it is not.
    """
    if not os.path.exists(os.path.expanduser(path)):
        raise DataError(
            f"{what} {shown(path)} does not exist.{did_you_mean(path)}", hint="Check the path."
        )


def is_classifier(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a saved classifier, by the file that makes it one."""
    return os.path.isfile(os.path.join(os.path.expanduser(path), CONFIG))


def no_classifier(name: str | os.PathLike[str]) -> ClassifierError:
    """The error of a ``name`` that is no folder of a saved classifier."""
    folder = Path(os.path.expanduser(name))
    hint = "Give the folder that 'clip-adapter fit --out' wrote."
    if os.path.isdir(folder):
        problem = f"{shown(folder)} is not a saved classifier: it has no {CONFIG}."
        if inside := sorted(shown(path.parent) for path in folder.glob(f"*/{CONFIG}")):
            problem += f" Did you mean {' or '.join(map(repr, inside[:3]))}?"
    elif os.path.exists(folder):
        problem = f"{shown(folder)} is not a saved classifier: it is a file."
        if is_classifier(folder.parent):
            hint = f"Give the folder that holds it: {shown(folder.parent)}."
        elif folder.suffix.lower() in ARCHIVES:
            hint = UNPACK
    elif is_remote(os.fspath(name)):
        problem, hint = f"{name} is {NOT_FETCHED}.", f"Download it first. {hint}"
    else:
        problem = f"There is no folder {shown(folder)}.{did_you_mean(folder, holding=CONFIG)}"
    return ClassifierError(problem, hint=hint)
