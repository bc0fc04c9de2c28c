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
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clip_adapter.errors import ClassifierError
from clip_adapter.heads import build, describe
from clip_adapter.model_card import model_card
from clip_adapter.towers import build_change, describe_change

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


def save_classifier(classifier: Classifier, folder: Path) -> Path:
    """Writes ``folder`` whole or not at all; an older classifier there is replaced.

    Raises:
        ClassifierError: the folder holds other things, or cannot be written.
    """
    check_target(folder)
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
    if classifier.change is not None:
        change, inside = describe_change(classifier.change)
        if inside:
            save_file(inside, folder / TOWER)
    if maps:
        save_file(maps, folder / ADAPTER)
    text = classifier.zero_shot_weights
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
        "info": classifier.info,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False), "utf-8")
    (folder / SEEN).write_text(json.dumps(sorted(classifier.seen)), "utf-8")
    (folder / "README.md").write_text(model_card(classifier), "utf-8")


def load_classifier(folder: Path) -> Classifier:
    """Reads what :func:`save_classifier` wrote.

    Raises:
        ClassifierError: missing, damaged, or of a newer format.
    """
    from clip_adapter.classifier import Classifier

    path = folder / CONFIG
    if not path.is_file():
        raise ClassifierError(
            f"{folder} is not a saved classifier: it has no {CONFIG}.",
            hint="Give the folder that 'clip-adapter fit --out FOLDER' wrote.",
        )
    try:
        config = json.loads(path.read_text("utf-8"))
        if config["format"] > FORMAT:
            raise ClassifierError(
                f"{folder} has format {config['format']}.",
                allowed=f"at most {FORMAT}",
                hint="Update clip-adapter.",
            )
        for name, digest in config["sha256"].items():
            if name not in TENSORS or _digest(folder / name) != digest:
                raise ValueError(f"{name} is not the file that was saved")
        if config["feature_norm"] not in NORMS:
            raise ValueError(f"feature_norm {config['feature_norm']!r}")
        tensors = load_file(folder / WEIGHTS)
        maps = load_file(folder / ADAPTER) if (folder / ADAPTER).exists() else {}
        head = build(config, maps, tensors)
        rows = {len(w) for k, w in tensors.items() if k.endswith("weights")}
        if rows != {len(config["class_names"])}:
            raise ValueError(f"weights of {sorted(rows)} rows, {len(config['class_names'])} names")
        change = None
        if config.get("change") is not None:
            inside = load_file(folder / TOWER) if (folder / TOWER).exists() else {}
            change = build_change(config["change"], inside)
        text = None if config["text"] is None else tensors[config["text"]]
        seen = json.loads((folder / SEEN).read_text("utf-8")) if (folder / SEEN).exists() else []
        return Classifier(
            head,
            config["class_names"],
            feature_norm=config["feature_norm"],
            zero_shot_weights=text,
            info=config["info"],
            seen=seen,
            change=change,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ClassifierError(
            f"The classifier in {folder} is damaged: {error}.",
            hint="Copy it again, or fit it again.",
        ) from error


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
