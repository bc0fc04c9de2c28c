"""CoOp's split files: their order, their image folders, their errors."""

import json

import pytest

from clip_adapter.datasets.coop import load_coop
from clip_adapter.errors import DataError

ROWS = {
    "train": [["b/1.jpg", 1, "bee_eater"], ["a/2.jpg", 0, "ape"], ["b/3.jpg", 1, "bee_eater"]],
    "val": [["a/4.jpg", 0, "ape"]],
    "test": [["b/5.jpg", 1, "bee_eater"]],
}
FILES = [row[0] for rows in ROWS.values() for row in rows]


@pytest.fixture
def split_file(tmp_path):
    def make(content=ROWS, name="split_zhou_UCF101.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return make


@pytest.mark.parametrize("folder", ["", "2750/", "101_ObjectCategories/", "UCF-101-midframes/"])
def test_the_image_folder_is_found(put, split_file, folder):
    put(*(folder + file for file in FILES), "aaa/other.txt")
    dataset = load_coop(split_file())
    assert [s.name for s in dataset.splits["train"]] == [folder + row[0] for row in ROWS["train"]]
    assert [s.label for s in dataset.splits["train"]] == [1, 0, 1]
    assert dataset.class_names == ["ape", "bee eater"]
    assert dataset.templates == ["a photo of a person doing {}."]
    assert all(s.read() for samples in dataset.splits.values() for s in samples)


def test_root_names_the_image_folder(put, split_file):
    root = put(*(f"far/away/jpg/{file}" for file in FILES))
    dataset = load_coop(split_file(), root=root / "far" / "away")
    assert dataset.splits["val"][0].name == "jpg/a/4.jpg"
    assert load_coop(split_file(), root=root / "far" / "away" / "jpg").splits["val"][0].read()


def test_a_few_missing_pictures_do_not_hide_the_folder(put, split_file):
    put(*(f"images/{file}" for file in FILES[1:]))
    dataset = load_coop(split_file())
    assert len(dataset.splits["train"]) == 3
    with pytest.raises(OSError, match=r"1\.jpg"):
        dataset.splits["train"][0].read()


def test_no_pictures_says_where_was_looked(split_file):
    with pytest.raises(DataError, match=r"(?s)are not in .*'b/1\.jpg'.*--root"):
        load_coop(split_file())


def test_a_root_that_is_not_there(split_file, tmp_path):
    with pytest.raises(DataError, match="cannot be listed"):
        load_coop(split_file(), root=tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "valid dictionary"),
        ('{"a": 1}', "it holds 'a'"),
        ('{"train": [["a.jpg", 0]]}', "has in train"),
        ('{"train": [["a.jpg", "0", "x"]]}', "has in train"),
        ('{"train": [["a.jpg", -1, "x"]]}', "has in train"),
        ('{"train": {"a": 1}}', "has in train"),
        ('{"train": [["a.jpg", 0, "x"]], "test": [["b.jpg", 0, "y"]]}', "label 0 'x' and 'y'"),
        ('{"train": [["a.jpg", 0, "x"], ["a.jpg", 2, "z"]]}', "up to 2 and none is 1"),
        ('{"train": [["a.jpg", 999999999999, "x"]]}', "none is 0"),
    ],
)
def test_another_form_is_an_error(split_file, content, message):
    with pytest.raises(DataError, match=message):
        load_coop(split_file(content))


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_coop(tmp_path / "split_zhou_EuroSAT.json")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("stem", "classes", "template"),
    [
        ("Caltech101", 100, "a photo of a {}."),
        ("DescribableTextures", 47, "{} texture."),
        ("EuroSAT", 10, "a centered satellite photo of {}."),
        ("OxfordFlowers", 102, "a photo of a {}, a type of flower."),
        ("OxfordPets", 37, "a photo of a {}, a type of pet."),
        ("StanfordCars", 196, "a photo of a {}."),
        ("UCF101", 101, "a photo of a person doing {}."),
    ],
)
def test_the_seven_real_files(shared, put, tmp_path, stem, classes, template):
    path = shared / "splits" / f"split_zhou_{stem}.json"
    rows = json.loads(path.read_bytes())
    # One picture is enough to find the folder, where it is among those looked for.
    put(f"images/{rows['train'][0][0]}")
    dataset = load_coop(path, root=tmp_path)
    assert len(dataset.class_names) == classes
    assert dataset.templates == [template]
    for split, samples in dataset.splits.items():
        assert [s.name for s in samples] == ["images/" + row[0] for row in rows[split]]
        assert [s.label for s in samples] == [row[1] for row in rows[split]]
