"""Classifiers on disk and on the hub: safetensors and JSON, never pickle.

classifier.json          class names, resolved configuration, versions, fingerprint
adapter.safetensors      what changes the image feature, and caches (absent where there is none)
tower.safetensors        what was trained inside the visual tower (absent where nothing was)
class_weights.safetensors  W, bias, and the zero-shot text weights
seen.json                digests of the training pictures
README.md                a model card made from the run

Imports pydantic, so it is imported where a classifier is saved or loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from clip_adapter.classifier.head_format import build, describe
from clip_adapter.classifier.model_card import model_card
from clip_adapter.errors import ClassifierError, ClipAdapterError, UnknownTowerAdapterError
from clip_adapter.features.feature_set import FeatureNorm
from clip_adapter.heads import Head, Mixture
from clip_adapter.towers import TowerAdapter, build_tower_adapter, describe_tower_adapter

FORMAT = 1
CONFIG, SEEN, CARD = "classifier.json", "seen.json", "README.md"
ADAPTER, TOWER, WEIGHTS = TENSORS = (
    "adapter.safetensors",
    "tower.safetensors",
    "class_weights.safetensors",
)
FILES = (CONFIG, *TENSORS, SEEN, CARD)
# What reading a forged folder can raise; nobody but us is to meet any of it.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    ClipAdapterError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)

Files = dict[str, bytes]


class Version(BaseModel, strict=True):
    """What every format says of itself."""

    format: Annotated[int, Field(ge=1)]


class Record(Version, strict=True, extra="allow"):
    """``classifier.json``; what it says beyond these fields is of the head."""

    class_names: Annotated[list[str], Field(min_length=2)]
    feature_norm: FeatureNorm
    change: dict[str, Any] | None
    text: Literal["weights", "text"] | None
    sha256: dict[str, str | None]
    info: dict[str, Any]


class Info(BaseModel, strict=True):
    """What the program reads in the record of how a classifier was made; more is for people."""

    backbone: str | None = None
    backbone_fingerprint: str | None = None
    dtype: str | None = None
    method: str | None = None
    preprocess: str | None = None
    selection: list[Any] | None = None
    trained_parameters: int | None = None


def pack(
    head: Head | Mixture,
    class_names: Sequence[str],
    *,
    feature_norm: FeatureNorm,
    text_weights: Tensor | None,
    info: Mapping[str, Any],
    train_digests: Iterable[str],
    tower_adapter: TowerAdapter | None,
) -> Files:
    """The files of a classifier of these parts, by name.

    Raises:
        ClassifierError: an image map that no loader knows.
    """
    shape, maps, weights = describe(head)
    change, tower = describe_tower_adapter(tower_adapter) if tower_adapter else (None, {})
    text = None if text_weights is None else "text"
    if text_weights is not None and "weights" in weights:
        text = "weights" if torch.equal(text_weights, weights["weights"]) else "text"
    if text_weights is not None and text == "text":
        weights["text"] = text_weights.float().contiguous()
    tensors = {ADAPTER: maps, TOWER: tower, WEIGHTS: weights}
    files = {name: save(parts) for name, parts in tensors.items() if parts}
    config = {
        "format": FORMAT,
        "class_names": list(class_names),
        "feature_norm": feature_norm,
        **shape,
        "change": change,
        "text": text,
        "sha256": _digests(files),
        "info": info,
    }
    card = model_card(list(class_names), info, getattr(tower_adapter, "kind", None))
    # JSON has neither NaN nor infinity: null, no number is known.
    files[CONFIG] = to_json(config, indent=1, inf_nan_mode="null")
    files[SEEN] = to_json(sorted(train_digests))
    files[CARD] = card.encode()
    return files


def unpack(files: Files) -> dict[str, Any]:
    """The arguments of :class:`~clip_adapter.Classifier` that :func:`pack` was given.

    All that the files say is compared with the tensors, and no code in them is run.

    Raises:
        Exception: one of ``DAMAGE``, where anything is wrong.
    """
    record = Record.model_validate_json(files[CONFIG])
    Info.model_validate(record.info)
    if record.sha256 != _digests(files):
        raise ValueError("the tensors are not those that were saved")
    maps, tower, weights = (load(files[n]) if n in files else {} for n in TENSORS)
    classes = len(record.class_names)
    head = build(record.model_extra, maps, weights, classes)
    text = None if record.text is None else weights[record.text]
    if text is not None and not (
        text.ndim == 2
        and len(text) == classes
        and text.shape[1] > 0
        and text.is_floating_point()
        and bool(text.isfinite().all())
    ):
        raise ValueError(f"the text weights are no {classes} rows of finite numbers")
    digests = TypeAdapter(list[str]).validate_json(files.get(SEEN, b"[]"), strict=True)
    adapter = None if record.change is None else build_tower_adapter(record.change, tower)
    if adapter is None and TOWER in files:
        raise ValueError(f"{TOWER} is there, and {CONFIG} tells of no change of the tower")
    return {
        "head": head,
        "class_names": record.class_names,
        "feature_norm": record.feature_norm,
        "text_weights": text,
        "info": record.info,
        "train_digests": digests,
        "tower_adapter": adapter,
    }


def _digests(files: Files) -> dict[str, str | None]:
    """SHA-256 (hex) of each file of tensors; None where it is absent."""
    return {n: hashlib.sha256(files[n]).hexdigest() if n in files else None for n in TENSORS}


def write_folder(folder: Path, **parts: Any) -> Path:
    """Write ``folder`` whole or not at all; an older classifier there is replaced.

    Args:
        folder: to be made, or an older classifier's.
        **parts: as :func:`pack` takes them.

    Raises:
        ClassifierError: the folder holds other things, or cannot be written; or the classifier
            is one that could not be loaded again.
    """
    check_target(folder)
    files = pack(**parts)
    try:
        # An adapter of a package that does not register it here may be known where it is loaded.
        with contextlib.suppress(UnknownTowerAdapterError):
            unpack(files)
    except DAMAGE as error:
        raise ClassifierError(
            f"This classifier cannot be saved: {_reason(error)}.", hint="Make it of parts that fit."
        ) from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, so that the last step is a rename within one file system.
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch, "new")
            new.mkdir()
            for name, data in files.items():
                (new / name).write_bytes(data)
            if folder.is_dir():
                folder.rename(Path(scratch, "old"))
            new.rename(folder)
    except OSError as error:
        raise ClassifierError(
            f"Cannot write {folder}: {error.strerror or error}.",
            hint="Free some space, or choose another folder.",
        ) from error
    return folder


def check_target(folder: Path) -> None:
    """Check that a classifier may be saved as ``folder``: to be asked before a long training.

    Raises:
        ClassifierError: it holds other things.
    """
    others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if folder.is_file() or (others and CONFIG not in others):
        raise ClassifierError(
            f"{folder} exists and is not a saved classifier.",
            hint="Choose a new folder, or empty this one.",
        )


def read_folder(folder: Path) -> dict[str, Any]:
    """The arguments of the :class:`~clip_adapter.Classifier` that ``folder`` holds.

    The folder may come from anyone, see :func:`unpack`.

    Raises:
        ClassifierError: missing, damaged, or of a newer format.
    """
    if not (folder / CONFIG).is_file():
        raise ClassifierError(
            f"{folder} is not a saved classifier: it has no {CONFIG}.",
            hint="Give the folder that 'clip-adapter fit --out FOLDER' wrote.",
        )
    try:
        files = {n: (folder / n).read_bytes() for n in FILES if (folder / n).exists()}
        saved_as = Version.model_validate_json(files[CONFIG]).format
        if saved_as <= FORMAT:
            return unpack(files)
    except UnknownTowerAdapterError:
        raise
    except DAMAGE as error:
        raise ClassifierError(
            f"The classifier in {folder} is damaged: {_reason(error)}.",
            hint="Copy it again, or fit it again.",
        ) from error
    raise ClassifierError(
        f"{folder} has format {saved_as}.", allowed=f"at most {FORMAT}", hint="Update clip-adapter."
    )


def _reason(error: BaseException) -> str:
    """What is wrong, in one line."""
    text = str(error) or type(error).__name__
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    elif isinstance(error, ClipAdapterError):
        text = error.found
    elif isinstance(error, KeyError):
        text = f"{error} is missing or unknown"
    return textwrap.shorten(text, 300, placeholder="...").rstrip(".")


def download(name: str, revision: str | None = None) -> Path:
    """The folder of the hub repository ``user/name``, in the hub's cache.

    Raises:
        ClassifierError: no repository that can be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client raises a dozen unrelated types
        raise ClassifierError(
            f"{name!r} is neither a folder here nor a repository that the hub gives: "
            f"{type(error).__name__}.",
            hint="Check the name and the network, or download it and give the folder.",
        ) from error


def upload(folder: Path, repo: str, private: bool) -> str:
    """Create ``repo`` where it is missing, upload ``folder``, and return its address.

    Raises:
        ClassifierError: not logged in, no network, or refused.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Add classifier")
    except Exception as error:  # the hub's client raises a dozen unrelated types
        raise ClassifierError(
            f"Cannot upload to {repo!r}: {type(error).__name__}.",
            hint="Run 'hf auth login', check the name (user/name) and the network.",
        ) from error
    return str(url)
