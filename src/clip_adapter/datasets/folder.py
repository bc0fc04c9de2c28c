"""``load_folder``: pictures in class folders, with or without splits above them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from clip_adapter.datasets.class_names import ClassNames, nfc
from clip_adapter.datasets.dataset import UNSPLIT, Dataset, Sample, make_dataset
from clip_adapter.datasets.labels import in_order
from clip_adapter.datasets.split_names import may_be_class, split_names
from clip_adapter.datasets.walk import DEAD, ENDING, OWN, Walk
from clip_adapter.errors import DataError, UsageError
from clip_adapter.wording import counted, listed, shown

LAYOUTS = "FOLDER/class/picture.jpg, or FOLDER/train|val|test/class/picture.jpg"
ONE_FOLDER_EACH = "Put the pictures of each class into a folder of its own, named after it"
# Names that say nothing of the data set; the folder above does.
_GENERIC = ("2750", "images", "jpg", "data", "101_ObjectCategories", "UCF-101-midframes")
# What lies beside pictures: lists, features, notes, programs. A folder of these alone is no class.
_PAPERS = frozenset(
    {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".safetensors", ".npz", ".npy"}
    | {".txt", ".md", ".html", ".xml", ".yaml", ".yml", ".toml", ".tex", ".log", ".py", ".ipynb"}
)


def load_folder(root: str | Path, class_names: ClassNames | None = None) -> Dataset:
    """Read ``root/class/...`` (split "all") or ``root/train|val|test/class/...``.

    Classes are the folder names, sorted (numbers by number); pictures in deeper folders belong to
    their class; pictures are sorted by path. ``training``, ``valid``, ``validation``, ``dev`` and
    ``testing`` are understood, in any case. A class folder without pictures stays a class. What is
    left out is in the notes. A folder that holds one folder only is looked into. The whole rule is
    in ``docs/decisions/0009-folders.md``.

    Args:
        root: the folder.
        class_names: names for the prompts, see :func:`~.class_names.name_classes`.

    Raises:
        DataError: no such folder, no class folders with pictures in it, or a class folder that
            cannot be read.
        UsageError: folders that may be splits and are not understood, or ``class_names`` does not
            fit the classes.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"The folder {shown(root)} {what}.", allowed=LAYOUTS)
    walk, notes = Walk(root), []
    base = _descend(walk, root)
    if base != root:
        notes.append(f"The classes were found in {shown(base.relative_to(root))}/.")
    splits, others = _split_folders(walk, base)
    if splits and others:
        notes.append(
            f"Not train, val or test, {counted(len(others), 'folder')} left out: "
            f"{listed((f.name for f in others), len(others))}."
        )
    parents = splits or {base: UNSPLIT}
    notes += (
        f"{counted(len(loose), 'picture')} directly in {shown(folder)} without a class folder: "
        "left out. Move them into the folder of their class to have them read."
        for folder in dict.fromkeys((base, *parents))
        if (loose := walk.read(folder).pictures)
    )
    classes = [
        (split, folder)
        for parent, split in parents.items()
        for folder in _candidates(walk, parent)
        if walk.enter(folder, (split, nfc(folder.name)))
    ]
    if splits:
        _refuse_splits(base, {folder.name for _, folder in classes})
    elif called := split_names([folder.name for _, folder in classes]):
        notes.append(
            f"{listed(called)} is taken for a class: pictures lie directly in it, and no folder "
            "beside it is called like a split."
        )
    files: list[tuple[int, str, Path]] = []
    deeper: list[Path] = []
    labels = in_order({nfc(folder.name) for _, folder in classes})
    for split, folder in classes:
        label = labels.index(nfc(folder.name))
        for here, content in walk.below(folder, (split, labels[label])):
            _refuse_splits(here, {inner.name for inner in content.folders})
            files += ((label, split, path) for path in content.pictures)
            deeper += content.pictures if here != folder else []
    if deeper:
        where = dict.fromkeys(shown(path.parent.relative_to(base)) for path in deeper)
        notes.append(
            f"{counted(len(deeper), 'picture')} in folders below the class folders count for the "
            f"class above ({listed(where)})."
        )
    notes += walk.notes()
    if not files:
        what = f"class folders {listed(labels)}, but no picture" if labels else "no class folder"
        raise DataError(
            f"The folder {shown(root)} has {what} in it.",
            allowed=LAYOUTS,
            hint=" ".join([*notes, _how(root)]),
        )
    files.sort(key=lambda file: (file[0], file[2].as_posix()))
    samples = {
        split: [
            Sample(shown(path.relative_to(root).as_posix()), label, path)
            for label, own, path in files
            if own == split
        ]
        for split in parents.values()
    }
    full = root.resolve()
    inside = full.parent.name if full.name in _GENERIC else ""
    name = full.name or "pictures"
    return make_dataset(name, labels, samples, class_names, notes, inside=inside)


def _how(folder: Path) -> str:
    examples = (shown(folder / one) for one in ("cat/1.jpg", "dog/7.jpg"))
    return f"{ONE_FOLDER_EACH}: {', '.join(examples)}."


def _descend(walk: Walk, base: Path) -> Path:
    """``base``, or the folder in it where it only wraps one, as an unpacked archive does."""
    walk.enter(base)
    while True:
        inside, loose = _candidates(walk, base), walk.read(base).pictures
        if len(inside) != 1 or loose or split_names([inside[0].name]):
            return base
        if not walk.look(inside[0]).folders or not walk.enter(inside[0]):
            return base
        base = inside[0]


def _candidates(walk: Walk, parent: Path) -> list[Path]:
    """The folders in ``parent`` but those that hold papers or our own outputs alone.

    Raises:
        DataError: it cannot be listed, or has a link that leads nowhere and may be a class.
    """
    content = walk.look(parent)
    if lost := [link for link in content.without(DEAD) if not link.suffix]:
        raise DataError(
            f"{shown(lost[0])} is a link that leads nowhere.",
            hint="A class may be missing. Mend the link, or remove it.",
        )
    papers = [folder for folder in content.folders if _holds_papers(walk, folder)]
    for folder in papers:
        walk.left_out[folder] = "no pictures in it, so no class"
        list(walk.below(folder))  # its files are counted
    return [folder for folder in content.folders if folder not in papers]


def _holds_papers(walk: Walk, folder: Path) -> bool:
    """Whether there is something in ``folder``, and nothing that may have been a picture."""
    todo, visited, papers = [folder], set(), False
    while todo:
        here = todo.pop()
        if (real := os.path.realpath(here)) in visited:
            continue
        visited.add(real)
        try:
            content = walk.look(here)
        except DataError:
            return False
        others = content.without(ENDING)
        if content.pictures or any(path.suffix.lower() not in _PAPERS for path in others):
            return False
        papers = papers or bool(others or content.without(OWN))
        todo += content.folders
    return papers


def _split_folders(walk: Walk, base: Path) -> tuple[dict[Path, str], list[Path]]:
    """Folders in ``base`` that are splits, each with its split, and the others beside splits.

    Raises:
        DataError: splits without class folders.
        UsageError: some look like splits, and what all of them mean is not sure.
    """
    inside = _candidates(walk, base)
    names = [folder.name for folder in inside]
    splits = split_names(names)
    folders = {folder: splits[folder.name] for folder in inside if folder.name in splits}
    others = [folder for folder in inside if folder not in folders]
    structured = [folder for folder in folders if walk.look(folder).folders]
    if not folders or (may_be_class(splits, names) and _is_class(walk, next(iter(folders)))):
        return {}, []
    twice = len(set(splits.values())) < len(splits)
    sure = structured and (not others or len(splits) > 1)
    if "" in splits.values() or twice or (others and not sure):
        raise _unclear(base, splits, [folder.name for folder in others])
    if not structured:
        raise DataError(
            f"In {shown(base)}, {listed(names)} have no class folders.",
            allowed=LAYOUTS,
            hint=_how(base),
        )
    return {f: split for f, split in folders.items() if walk.enter(f, (split,))}, others


def _is_class(walk: Walk, folder: Path) -> bool:
    """Whether pictures lie directly in ``folder``, and it has no class folders."""
    content = walk.look(folder)
    return bool(content.pictures) and all(_holds_papers(walk, f) for f in content.folders)


def _refuse_splits(folder: Path, names: Iterable[str]) -> None:
    """Stop at splits among the class folders of ``folder``, or below one.

    Raises:
        UsageError: there are such.
    """
    names = sorted(names)
    splits = split_names(names)
    if splits and not may_be_class(splits, names):
        others = [name for name in names if name not in splits]
        raise _unclear(folder, splits, others, "Put splits above the classes (train/cat/1.jpg)")


def _unclear(
    folder: Path,
    splits: dict[str, str],
    others: Sequence[str],
    hint: str = "Rename or move these folders, name the folder of one split alone",
) -> UsageError:
    understood = "; ".join(
        f"{name!r} is {f'the split {split}' if split else 'no split that is known'}"
        for name, split in splits.items()
    )
    beside = f"; beside them {listed(others)}" if others else ""
    return UsageError(
        f"In {shown(folder)} there are folders called like splits, and which pictures are for "
        f"training is not sure: {understood}{beside}.",
        allowed=f"{LAYOUTS}, each split once and nothing else beside them",
        hint=f"{hint}, or give a table with path,label,split. A class that is called so: name its "
        "folder otherwise, and tell its name by --class-names.",
    )
