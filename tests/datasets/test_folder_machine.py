"""Folders made at random, against the rule of docs/decisions/0009: nothing lost, nothing mixed."""

import functools
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clip_adapter.datasets import walk
from clip_adapter.datasets.folder import load_folder
from clip_adapter.errors import DataError, UsageError
from clip_adapter.wording import listed

SPLITS = {"train": "train", "Training": "train", "val": "val", "DEV": "val", "test": "test"}
UNCLEAR = ("eval", "test_set")
NEVER = (".git", "@eaDir", "_unsorted")
THINGS = ("cat", "dog", "test tube", "a_b")
PICTURES, OTHERS = ("1.png", "2.JPG", ".3.png"), ("x.psd", "notes.txt", "y")
ENTRY = re.compile(r"'([^']*)'")

folder_names = st.sampled_from([*THINGS * 4, *SPLITS, *UNCLEAR, *NEVER * 2])
tidy_splits = st.sampled_from(
    [(), ("train", "test"), ("Training", "DEV", "test"), ("train", "eval")]
)
places = st.integers(0, 10**6)


def below(path, folder):
    return path == folder or folder in path.parents


class Folders(RuleBasedStateMachine):
    """Acts on a folder, reads it after each step, and takes back what was refused."""

    def __init__(self):
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.root = Path(os.path.realpath(self.scratch.name), "root")
        self.root.mkdir()
        self.understood = self.root.with_name("understood")
        self.locked, self.scandir = set(), os.scandir
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "scandir", self.list)
        # All names, so that each can be looked for.
        self.patch.setattr(walk, "listed", functools.partial(listed, limit=10**6))

    def teardown(self):
        self.patch.undo()
        self.scratch.cleanup()

    def list(self, path):
        if not isinstance(path, int) and os.path.realpath(path) in self.locked:
            raise PermissionError(13, "Permission denied")
        return self.scandir(path)

    def tree(self):
        """All folders and all files that are there, links not followed, locked ones opened."""
        folders, files, todo = [self.root], [], [self.root]
        while todo:
            with self.scandir(todo.pop()) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    inside = entry.is_dir(follow_symlinks=False)
                    (folders if inside else files).append(Path(entry.path))
                    todo += [Path(entry.path)] * inside
        return folders, files

    def folder(self, number):
        folders = sorted(self.tree()[0])
        return folders[number % len(folders)]

    @initialize(splits=tidy_splits, depth=st.integers(0, 1))
    def begin(self, splits, depth):
        for split in splits or [""]:
            for thing in THINGS[:2]:
                self.add(Path(*["pack"] * depth, split, thing), "1.png")

    def add(self, place, name):
        folder = self.root / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")

    @rule(number=places, names=st.lists(folder_names, max_size=2), file=st.sampled_from(PICTURES))
    def add_picture(self, number, names, file):
        place = self.folder(number)
        if not any((place / names[0]).is_symlink() for _ in names[:1]):
            self.add(place.joinpath(*names), file)

    @rule(number=places, file=st.sampled_from(OTHERS))
    def add_other(self, number, file):
        self.add(self.folder(number), file)

    @rule(number=places, name=folder_names)
    def make_empty(self, number, name):
        if not os.path.lexists(self.folder(number) / name):
            (self.folder(number) / name).mkdir()

    @rule(number=places)
    def save_classifier(self, number):
        if (place := self.folder(number)) != self.root:
            self.add(place, "classifier.json")

    @rule(number=places, name=folder_names)
    def rename(self, number, name):
        place = self.folder(number)
        if place != self.root and not os.path.lexists(place.with_name(name)):
            place.rename(place.with_name(name))

    @rule(number=places, name=folder_names, to=places)
    def link(self, number, name, to):
        place = self.folder(number) / name
        if not os.path.lexists(place):
            place.symlink_to(self.folder(to))

    @rule(name=folder_names)
    def nest(self, name):
        outer = self.root.with_name("outer")
        outer.mkdir()
        self.root.rename(outer / name)
        outer.rename(self.root)

    @rule(number=places)
    def lock(self, number):
        if (place := self.folder(number)) != self.root:
            self.locked.add(str(place))

    @rule(number=places)
    def remove(self, number):
        links = [file for file in self.tree()[1] if file.is_symlink()]
        if links:
            links[number % len(links)].unlink()
        elif (place := self.folder(number)) != self.root:
            shutil.rmtree(place)

    @rule()
    def unlock(self):
        self.locked.clear()

    @invariant()
    def all_pictures_are_found_without_classes(self):
        walker = walk.Walk(self.root)
        paths = [os.path.realpath(path) for path in walker.pictures()]
        assert len(set(paths)) == len(paths)
        self.check_coverage(set(paths), walker.notes(), set())

    @invariant()
    def a_data_set_is_understood_or_refused(self):
        try:
            dataset = load_folder(self.root)
        except (UsageError, DataError) as error:
            self.check_refusal(error)
            self.take_back()
            return
        samples = [(split, one) for split, some in dataset.splits.items() for one in some]
        paths = [os.path.realpath(one.source) for _, one in samples]
        assert len(set(paths)) == len(paths)
        self.check_coverage(set(paths), dataset.notes, self.loose(dataset.notes))
        wrapper = [n for n in dataset.notes if n.startswith("The classes were found in ")]
        base = self.root / wrapper[0].split(" in ", 1)[1][:-2] if wrapper else self.root
        for split, one in samples:
            self.check_sample(base, split, dataset.class_names[one.label], one.source)
        self.replace(self.understood, self.root)

    def take_back(self):
        self.locked.clear()
        if self.understood.is_dir():
            self.replace(self.root, self.understood)

    def replace(self, place, by):
        locked, self.locked = self.locked, set()
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(by, place, symlinks=True)
        self.locked = locked

    def check_refusal(self, error):
        assert error.hint
        if isinstance(error, DataError):
            # It names the folder, or what was left out of it.
            assert str(self.root) in error.found
            return
        folders, files = self.tree()
        names = {path.name for path in (*folders, *files)}
        assert error.exit_code == 2
        assert names & {*SPLITS, *UNCLEAR} or (self.linked() and "by a link" in error.found)

    def check_sample(self, base, split, class_name, path):
        parts = path.relative_to(base).parts
        if split == "all":
            inside = [f for f in base.iterdir() if f.is_dir() and not self.left_out(f / "any")]
            top = {folder.name for folder in inside}
            assert not top & {*SPLITS, *UNCLEAR} - {"train"} or self.papers(base, top)
            # With class folders it is a split, whatever strayed into it.
            assert parts[0] != "train" or len(parts) == 2
        else:
            assert SPLITS[parts[0]] == split
            real = Path(os.path.realpath(path))
            own = real.relative_to(base).parts[0] if below(real, base) else ""
            assert SPLITS.get(own, split) == split or self.left_out(real)
            parts = parts[1:]
        assert class_name in (parts[0], parts[0].replace("_", " "))
        assert not {*parts[1:-1]} & {*SPLITS, *UNCLEAR} - {"train"}
        assert not {*parts} & {*NEVER}

    def papers(self, base, names):
        """Whether those of ``names`` that are called like splits hold no picture at all."""
        files = [f for f in self.tree()[1] if f.suffix.lower() in (".png", ".jpg", ".psd")]
        return not any(
            below(Path(os.path.realpath(file)), Path(os.path.realpath(base / name)))
            for name in names & {*SPLITS, *UNCLEAR} - {"train"}
            for file in files
            if not file.name.startswith(".") and not self.left_out(file)
        )

    def left_out(self, file):
        """Whether ``file`` lies in a folder that never counts under its own name."""
        inside = [folder for folder in file.parents if self.root in folder.parents]
        return any(f.name in NEVER or (f / "classifier.json").exists() for f in inside)

    def loose(self, notes):
        """Pictures that are told as lying beside the class folders."""
        pictures = set()
        for note in notes:
            if told := re.match(r"(\d+) pictures? directly in (.*) without a class folder", note):
                place = Path(told[2])
                own = [place / n for n in PICTURES[:2] if (place / n).is_file()]
                assert int(told[1]) == len(own)
                pictures |= {os.path.realpath(path) for path in own}
        return pictures

    def check_coverage(self, used, notes, loose):
        """Each file is used, lies in something that is named, or is counted by its ending."""
        named, no_class, counted = [], [], 0
        for note in notes:
            if told := re.match(r"(\d+) files? left out, not pictures", note):
                counted = int(told[1])
            elif note.startswith("Left out: "):
                for part in note.removeprefix("Left out: ").split("; "):
                    places = [self.root / name for name in ENTRY.findall(part.rpartition(" (")[0])]
                    if "no pictures in it" in part:
                        no_class += [Path(os.path.realpath(place)) for place in places]
                    elif "cannot be opened" in part:
                        named += [Path(os.path.realpath(place)) for place in places]
                    elif "another way" not in part:
                        named += [Path(os.path.realpath(p.parent), p.name) for p in places]
            elif note.startswith("Not train, val or test"):
                base = [n.split(" in ", 1)[1][:-2] for n in notes if n.startswith("The classes w")]
                beside = ENTRY.findall(note)
                named += [Path(os.path.realpath(self.root.joinpath(*base, b))) for b in beside]
        endings = 0
        for file in self.tree()[1]:
            if file.is_symlink() or any(below(file, place) for place in named):
                # Links to folders are other names of what is looked at under its own.
                assert str(file) not in used or file.is_symlink() or self.linked()
            elif file.suffix.lower() in (".png", ".jpg"):
                assert str(file) in used | loose, (file, notes)
                assert not any(below(file, place) for place in no_class)
            else:
                endings += 1
        # By a link, what lies in a folder that is left out by name may be read under another.
        assert endings == counted or (self.linked() and endings <= counted), notes

    def linked(self):
        return any(path.is_symlink() for path in self.tree()[1])


test_folders_at_random = pytest.mark.filterwarnings("error")(Folders.TestCase)
test_folders_at_random.settings = settings(max_examples=30, stateful_step_count=12)


@pytest.mark.slow
def test_many_folders_at_random():
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Folders, settings=settings(max_examples=2000, stateful_step_count=20))
