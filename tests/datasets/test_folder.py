"""Folders of pictures, tidy and untidy: every file is a sample or is told of."""

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.folder import load_folder
from clip_adapter.errors import DataError, UsageError


def names(dataset, split="all"):
    return [sample.name for sample in dataset.splits[split]]


def test_class_folders_without_splits(put):
    dataset = load_folder(put("dog/b.png", "cat/2.jpg", "cat/10.jpg", "Zebra/x.webp"))
    assert dataset.class_names == ["Zebra", "cat", "dog"]
    assert names(dataset) == ["Zebra/x.webp", "cat/10.jpg", "cat/2.jpg", "dog/b.png"]
    assert [sample.label for sample in dataset.splits["all"]] == [0, 1, 1, 2]
    assert not dataset.has_splits
    assert dataset.notes == []
    assert decode(dataset.splits["all"][0].read(), "x").size == (4, 4)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "valid", "TEST")],
)
def test_split_folders_and_their_aliases(put, train, val, test):
    root = put(f"{train}/a/1.png", f"{train}/b/2.png", f"{val}/a/3.png", f"{test}/b/4.png")
    dataset = load_folder(root)
    assert dataset.class_names == ["a", "b"]
    assert list(dataset.splits) == ["train", "val", "test"]
    assert names(dataset, "train") == [f"{train}/a/1.png", f"{train}/b/2.png"]
    assert [s.label for s in dataset.splits["test"]] == [1]
    assert dataset.notes == ["Class 'a' has no pictures in test."]


def test_classes_of_all_splits_are_one_list(put):
    dataset = load_folder(put("train/b/1.png", "test/a/1.png", "test/c/1.png"))
    assert dataset.class_names == ["a", "b", "c"]
    assert dataset.splits["train"][0].label == 1
    assert "2 classes have no pictures in train: 'a', 'c'." in dataset.notes


def test_hidden_things_are_skipped_and_other_endings_counted(put):
    root = put(
        "a/1.png", "b/1.PNG", "a/.hidden.png", "a/._1.png", ".git/x.png", "__MACOSX/a/1.png",
        "a/Thumbs.db", "a/notes.txt", "b/more.txt", "b/README",
    )  # fmt: skip
    dataset = load_folder(root)
    assert dataset.class_names == ["a", "b"]
    assert names(dataset) == ["a/1.png", "b/1.PNG"]
    assert dataset.notes == [
        "4 files left out, not pictures by their ending (1 .db, 2 .txt, 1 without ending).",
        "Left out: '.git', 'a/._1.png', 'a/.hidden.png' (hidden); '__MACOSX' (of the system).",
    ]


def test_deeper_folders_belong_to_their_class(put):
    dataset = load_folder(put("a/x/y/1.png", "a/2.png", "b/1.png"))
    assert dataset.class_names == ["a", "b"]
    assert names(dataset) == ["a/2.png", "a/x/y/1.png", "b/1.png"]


def test_an_empty_class_stays_a_class_with_a_note(put):
    root = put("a/1.png", "b/1.png")
    (root / "nothing_here").mkdir()
    dataset = load_folder(root)
    assert dataset.class_names == ["a", "b", "nothing here"]
    assert dataset.notes == ["Class 'nothing here' has no pictures."]


def test_one_class_loads_with_a_note(put):
    dataset = load_folder(put("only/1.png"))
    assert dataset.class_names == ["only"]
    assert "only one class, 'only'" in dataset.notes[0]


def test_pictures_without_a_class_are_told(put):
    dataset = load_folder(put("a/1.png", "b/1.png", "loose.png", "loose2.jpg", "info.txt"))
    assert len(dataset.splits["all"]) == 2
    assert "2 pictures directly in" in dataset.notes[0]
    assert "Move them into the folder of their class" in dataset.notes[0]
    dataset = load_folder(put("s/train/a/1.png", "s/test/a/1.png", "s/train/loose.png") / "s")
    assert any("1 picture directly in" in note and "train" in note for note in dataset.notes)


def test_an_archive_folder_around_the_classes_is_looked_into(put):
    root = put("2750/River/1.jpg", "2750/Forest/1.jpg", "split.json")
    dataset = load_folder(root)
    assert dataset.class_names == ["Forest", "River"]
    assert names(dataset) == ["2750/Forest/1.jpg", "2750/River/1.jpg"]
    assert dataset.notes == [
        "The classes were found in 2750/.",
        "1 file left out, not pictures by their ending (1 .json).",
    ]
    dataset = load_folder(put("deep/photos/train/a/1.png", "deep/photos/test/a/1.png") / "deep")
    assert list(dataset.splits) == ["train", "test"]


def test_a_class_may_be_called_train(put):
    dataset = load_folder(put("train/1.png", "car/1.png"))
    assert dataset.class_names == ["car", "train"]
    assert names(dataset) == ["car/1.png", "train/1.png"]
    assert "'train' is taken for a class" in dataset.notes[0]
    # With folders in it, it is a split into which a picture strayed.
    with pytest.raises(UsageError, match="'train' is the split train; beside them 'car'"):
        load_folder(put("train/steam/2.png"))


def test_other_folders_beside_splits_are_told(put):
    dataset = load_folder(put("train/a/1.png", "test/a/1.png", "masks/a/1.png"))
    assert list(dataset.splits) == ["train", "test"]
    assert any("left out: 'masks'" in note for note in dataset.notes)


def test_splits_without_class_folders_are_an_error(put):
    with pytest.raises(DataError, match="no class folders") as caught:
        load_folder(put("train/1.png", "test/2.png"))
    assert "train|val|test/class" in str(caught.value)


@pytest.mark.parametrize("make", ["missing", "file", "empty", "flat", "no_pictures"])
def test_no_classes_says_what_is_allowed(put, tmp_path, make):
    root = {
        "missing": tmp_path / "none",
        "file": put("f.png") / "f.png",
        "empty": tmp_path,
        "flat": put("flat/1.png", "flat/2.png") / "flat",
        "no_pictures": put("docs/a/1.txt", "docs/b/2.txt") / "docs",
    }[make]
    if make == "empty":
        root = tmp_path / "empty"
        root.mkdir()
    with pytest.raises(DataError, match=r"FOLDER/class/picture\.jpg") as caught:
        load_folder(root)
    if make == "flat":
        assert "2 pictures directly in" in str(caught.value)
        assert f"named after it: {root}/cat/1.jpg, {root}/dog/7.jpg." in caught.value.hint
    if make == "no_pictures":
        assert "2 .txt" in str(caught.value)


def test_symbolic_links_are_followed_and_circles_end(put):
    root = put("set/a/1.png", "elsewhere/2.png", "set/c/1.png")
    (root / "set" / "b").symlink_to(root / "elsewhere")
    (root / "set" / "a" / "again").symlink_to(root / "set" / "a")
    (root / "set" / "a" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "set" / "a" / "self.png").symlink_to(root / "set" / "a" / "self.png")
    dataset = load_folder(root / "set")
    assert dataset.class_names == ["a", "b", "c"]
    assert names(dataset) == ["a/1.png", "a/gone.png", "a/self.png", "b/2.png", "c/1.png"]
    with pytest.raises(OSError, match=r"gone\.png"):
        dataset.splits["all"][1].read()


def test_a_pipe_that_looks_like_a_picture_is_never_opened(put):
    root = put("a/1.png", "b/1.png")
    os.mkfifo(root / "a" / "pipe.png")
    assert names(load_folder(root)) == ["a/1.png", "b/1.png"]


def test_names_with_spaces_quotes_and_other_letters(put):
    folders = ['it\'s "new"', "猫と犬", "größe", "a  b", "snow-leopard", "EuroSAT", "  x_y_"]
    dataset = load_folder(put(*(f"{folder}/bild ü '1'.png" for folder in folders)))
    assert set(dataset.class_names) == {
        "it's \"new\"", "猫と犬", "größe", "a b", "snow-leopard", "EuroSAT", "x y"
    }  # fmt: skip
    assert all(sample.read() for sample in dataset.splits["all"])


def test_two_spellings_of_an_accent_are_one_class(put):
    dataset = load_folder(put("train/cafe\u0301/1.png", "test/caf\u00e9/1.png"))
    assert dataset.class_names == ["caf\u00e9"]
    assert {s.label for split in dataset.splits.values() for s in split} == {0}


def test_bytes_that_are_no_utf8_in_a_file_name(put, png_bytes):
    root = put("a/1.png", "b/1.png")
    strange = os.fsencode(root / "a") + b"/\xff\xfe.png"
    with open(strange, "wb") as file:
        file.write(png_bytes)
    dataset = load_folder(root)
    assert len(dataset.splits["all"]) == 3
    for sample in dataset.splits["all"]:
        sample.name.encode("utf-8")
        assert sample.read() == png_bytes


def test_class_names_are_given_by_folder(put):
    root = put("n01/1.png", "n02/1.png")
    assert load_folder(root, {"n02": "dog", "n01": "cat"}).class_names == ["cat", "dog"]
    with pytest.raises(UsageError, match="leave out 'n02'"):
        load_folder(root, {"n01": "cat"})


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("eurosat", "a centered satellite photo of {}."),
        ("Food-101", "a photo of {}, a type of food."),
        ("dtd/images", "{} texture."),
        ("eurosat/2750", "a centered satellite photo of {}."),
        ("food101/mine", "a photo of a {}."),
        ("holidays", "a photo of a {}."),
    ],
)
def test_the_folder_name_picks_the_template(put, path, template):
    root = put(f"{path}/a/1.png", f"{path}/b/1.png")
    assert load_folder(root / path).templates == [template]


parts = st.text("ab _-.é猫'\"", min_size=1, max_size=6).filter(
    lambda name: not name.startswith(".") and name.strip(" _")
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(parts, st.sets(parts, min_size=1, max_size=3), min_size=2, max_size=4))
def test_every_picture_of_every_class_is_found(tmp_path_factory, tree):
    import unicodedata

    root = tmp_path_factory.mktemp("tree")
    for folder, files in tree.items():
        (root / folder).mkdir()
        for file in files:
            (root / folder / f"{file}.png").write_bytes(b"x")
    dataset = load_folder(root)
    assert len(dataset.class_names) == len(set(dataset.class_names)) == len(tree)
    names = {sample.name for sample in dataset.splits["all"]}
    assert names == {f"{folder}/{file}.png" for folder, files in tree.items() for file in files}
    order = sorted(unicodedata.normalize("NFC", folder) for folder in tree)
    for sample in dataset.splits["all"]:
        assert order[sample.label] == unicodedata.normalize("NFC", sample.name.split("/")[0])


@pytest.mark.shared
@pytest.mark.slow
def test_eurosat_as_folder_and_as_split_file(shared, tmp_path):
    import tarfile

    from clip_adapter.datasets.open import load_dataset

    with tarfile.open(shared / "images" / "eurosat.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    for folder in ("eurosat", "eurosat/2750"):
        dataset = load_dataset(tmp_path / folder)
        assert len(dataset.splits["all"]) == 27_000
        assert len(dataset.class_names) == 10
        assert dataset.templates == ["a centered satellite photo of {}."]
    dataset = load_dataset(tmp_path / "eurosat" / "split_zhou_EuroSAT.json")
    sizes = {split: len(samples) for split, samples in dataset.splits.items()}
    assert sizes == {"train": 13_500, "val": 5_400, "test": 8_100}
    assert dataset.templates == ["a centered satellite photo of {}."]
    for samples in dataset.splits.values():
        assert decode(samples[-1].read(), samples[-1].name).size == (64, 64)


def test_a_class_whose_name_is_no_text_is_told(put, tmp_path):
    root = put("car/1.png", "train station/1.png")
    os.mkdir(os.fsencode(root) + b"/caf\xe9")
    shutil.copy(root / "car/1.png", os.fsencode(root) + b"/caf\xe9/1.png")
    with pytest.raises(DataError, match="not UTF-8") as caught:
        load_folder(root)
    assert "Rename its folder" in str(caught.value)
