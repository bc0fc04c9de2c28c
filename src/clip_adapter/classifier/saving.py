"""Classifiers on disk and on the hub: safetensors and JSON, never pickle.

classifier.json          class names, resolved configuration, versions, fingerprint
adapter.safetensors      what changes the image feature, and caches (absent where there is none)
tower.safetensors        what was trained inside the visual tower (absent where nothing was)
class_weights.safetensors  W, bias, and the zero-shot text weights
seen.json                digests of the training pictures
README.md                a model card made from the run
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clip_adapter.classifier.head_format import build, check, describe
from clip_adapter.classifier.model_card import model_card
from clip_adapter.errors import ClassifierError, ClipAdapterError, UnknownTowerAdapterError
from clip_adapter.heads import Head, Mixture
from clip_adapter.nn.saved import whole
from clip_adapter.towers import build_tower_adapter, describe_tower_adapter

if TYPE_CHECKING:
    from clip_adapter.classifier import Classifier

FORMAT = 1
CONFIG, ADAPTER, TOWER, WEIGHTS, SEEN = (
    "classifier.json",
    "adapter.safetensors",
    "tower.safetensors",
    "class_weights.safetensors",
    "seen.json",
)
TENSORS = (ADAPTER, TOWER, WEIGHTS)
FILES = (CONFIG, *TENSORS, SEEN, "README.md")
NORMS = ("raw", "unit")
# Kinds of what the program reads in the record of a classifier; the rest is for people.
INFO: dict[str, type] = {
    "backbone": str,
    "backbone_fingerprint": str,
    "dtype": str,
    "method": str,
    "preprocess": str,
    "selection": list,
    "trained_parameters": int,
}
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


def save_classifier(classifier: Classifier, folder: Path) -> Path:
    """Writes ``folder`` whole or not at all; an older classifier there is replaced.

    Raises:
        ClassifierError: the folder holds other things, or cannot be written; or the classifier
            is one that could not be loaded again.
    """
    check_target(folder)
    text = classifier.text_weights
    try:
        _check(classifier.head, classifier.class_names, text, classifier.info)
    except ValueError as error:
        raise ClassifierError(
            f"This classifier cannot be saved: {error}.", hint="Make it of parts that fit."
        ) from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # A sibling, so that the last step is a rename within one file system.
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(classifier, part)
            _replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ClassifierError(
            f"Cannot write {folder}: {reason}.", hint="Free some space, or choose another folder."
        ) from error
    return folder


def check_target(folder: Path) -> None:
    """Whether a classifier may be saved as ``folder``: to be asked before a long training.

    Raises:
        ClassifierError: it holds other things.
    """
    others = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if folder.is_file() or (others and CONFIG not in others):
        raise ClassifierError(
            f"{folder} exists and is not a saved classifier.",
            hint="Choose a new folder, or empty this one.",
        )


def _replace(part: Path, folder: Path) -> None:
    part.chmod(0o755)
    if not folder.is_dir():
        os.rename(part, folder)
        return
    old = part.with_name(f"{part.name}.old")
    os.rename(folder, old)
    os.rename(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _write(classifier: Classifier, folder: Path) -> None:
    shape, maps, tensors = describe(classifier.head)
    change = None
    if classifier.tower_adapter is not None:
        change, inside = describe_tower_adapter(classifier.tower_adapter)
        if inside:
            save_file(inside, folder / TOWER)
    if maps:
        save_file(maps, folder / ADAPTER)
    text = classifier.text_weights
    own = tensors.get("weights")
    shared = text is not None and own is not None and torch.equal(text, own)
    if text is not None and not shared:
        tensors["text"] = text.float().contiguous()
    save_file(tensors, folder / WEIGHTS)
    config = {
        "format": FORMAT,
        "class_names": classifier.class_names,
        "feature_norm": classifier.feature_norm,
        **shape,
        "change": change,
        "text": "weights" if shared else "text" if text is not None else None,
        "sha256": {name: _digest(folder / name) for name in TENSORS},
        "info": _plain(classifier.info),
    }
    told = json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / CONFIG).write_text(told, "utf-8")
    (folder / SEEN).write_text(json.dumps(sorted(classifier.train_digests)), "utf-8")
    (folder / "README.md").write_text(model_card(classifier), "utf-8")


def _plain(value: Any) -> Any:
    """``value`` with null for NaN and infinity, which JSON does not have: no number is known."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check(head: Head | Mixture, class_names: Any, text: Tensor | None, info: Any) -> None:
    """Whether the parts of a classifier are what they are meant to be, and fit each other.

    Raises:
        ValueError: one does not; says which.
    """
    if not isinstance(class_names, list) or not all(isinstance(n, str) for n in class_names):
        raise ValueError("the class names are no list of words")
    if len(class_names) < 2:
        raise ValueError(f"{len(class_names)} class names, where two are the least")
    check(head, len(class_names))
    if text is not None:
        if text.ndim != 2 or len(text) != len(class_names) or not text.shape[1]:
            raise ValueError(
                f"text weights of shape {tuple(text.shape)}, {len(class_names)} class names"
            )
        if not text.is_floating_point() or not bool(text.isfinite().all()):
            raise ValueError("the text weights are not all finite numbers")
    if not isinstance(info, dict):
        raise ValueError("'info' is no record")
    for name, kind in INFO.items():
        if info.get(name) is not None and not isinstance(info[name], kind):
            raise ValueError(f"{name!r} of 'info' is no {kind.__name__}")


def load_classifier(folder: Path) -> Classifier:
    """Reads what :func:`save_classifier` wrote; the folder may come from anyone.

    All that it says is compared with the tensors, and no code in it is run.

    Raises:
        ClassifierError: missing, damaged, or of a newer format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ClassifierError(
            f"{folder} is not a saved classifier: it has no {CONFIG}.",
            hint="Give the folder that 'clip-adapter fit --out FOLDER' wrote.",
        )
    try:
        config = json.loads(path.read_text("utf-8"))
        saved_as = whole(config["format"], "format")
        classifier = _read(folder, config) if saved_as <= FORMAT else None
    except UnknownTowerAdapterError:
        raise
    except DAMAGE as error:
        raise ClassifierError(
            f"The classifier in {folder} is damaged: {_reason(error)}.",
            hint="Copy it again, or fit it again.",
        ) from error
    if classifier is None:
        raise ClassifierError(
            f"{folder} has format {saved_as}.",
            allowed=f"at most {FORMAT}",
            hint="Update clip-adapter.",
        )
    return classifier


def _read(folder: Path, config: dict[str, Any]) -> Classifier:
    """The classifier that ``config`` tells of; raises some of DAMAGE where anything is wrong."""
    from clip_adapter.classifier import Classifier

    for name in {*TENSORS, *config["sha256"]}:
        if name not in TENSORS or _digest(folder / name) != config["sha256"][name]:
            raise ValueError(f"{name} is not the file that was saved")
    if config["feature_norm"] not in NORMS:
        raise ValueError(f"feature_norm {config['feature_norm']!r}")
    tensors = load_file(folder / WEIGHTS)
    maps = load_file(folder / ADAPTER) if (folder / ADAPTER).exists() else {}
    head = build(config, maps, tensors)
    text = None if config["text"] is None else tensors[config["text"]]
    _check(head, config["class_names"], text, config["info"])
    change = None
    if config["change"] is None and (folder / TOWER).exists():
        raise ValueError(f"{TOWER} is there, and {CONFIG} tells of no change of the tower")
    if config["change"] is not None:
        inside = load_file(folder / TOWER) if (folder / TOWER).exists() else {}
        change = build_tower_adapter(config["change"], inside)
    seen = json.loads((folder / SEEN).read_text("utf-8")) if (folder / SEEN).exists() else []
    if not isinstance(seen, list) or not all(isinstance(digest, str) for digest in seen):
        raise ValueError(f"{SEEN} is no list of words")
    return Classifier(
        head,
        config["class_names"],
        feature_norm=config["feature_norm"],
        text_weights=text,
        info=config["info"],
        train_digests=seen,
        tower_adapter=change,
    )


def _reason(error: BaseException) -> str:
    """What is wrong, in one line."""
    if isinstance(error, ClipAdapterError):
        text = error.found
    elif isinstance(error, KeyError):
        text = f"{error} is missing or unknown"
    else:
        text = str(error) or type(error).__name__
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= 300 else f"{line[:300]}..."


def from_pretrained(name: str, revision: str | None = None) -> Classifier:
    """A folder, or a hub repository ``user/name``.

    Raises:
        ClassifierError: neither a folder nor a repository that can be reached.
    """
    if Path(name).is_dir():
        return load_classifier(Path(name))
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=list(FILES))
    except Exception as error:  # the hub's client raises a dozen unrelated types
        raise ClassifierError(
            f"{name!r} is neither a folder here nor a repository that the hub gives: "
            f"{type(error).__name__}.",
            hint="Check the name and the network, or download it and give the folder.",
        ) from error
    return load_classifier(Path(folder))


def push_to_hub(classifier: Classifier, repo: str, *, private: bool = True) -> str:
    """Creates ``repo`` where it is missing, uploads, and returns its address.

    Raises:
        ClassifierError: not logged in, no network, or refused.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as scratch:
        folder = save_classifier(classifier, Path(scratch) / "classifier")
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
