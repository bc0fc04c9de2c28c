"""One order of labels for all readers, and names by place or by label."""

import json

import pytest

from clip_adapter.datasets.folder import load_folder
from clip_adapter.datasets.labels import in_order, same_numbers, whole_number
from clip_adapter.datasets.table import load_table
from clip_adapter.errors import DataError, UsageError

NUMBERS = [str(number) for number in range(12)]
NAMES = [f"name of {number}" for number in NUMBERS]


@pytest.mark.parametrize(
    ("label", "number"),
    [("9", 9), ("09", 9), ("9.0", 9), ("9.", 9), ("-1", -1), ("+2", 2)]
    + [(label, None) for label in ("9.5", "", "a1", "1e3", "\u0661", "1 ", "1_0", "9" * 18)],
)
def test_whole_numbers(label, number):
    assert whole_number(label) == number


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        (["10", "9", "0", "9"], ["0", "9", "10"]),
        (["02", "10", "1"], ["1", "02", "10"]),
        (["-1", "0", "-2"], ["-2", "-1", "0"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["b", "B", "a"], ["B", "a", "b"]),
    ],
)
def test_the_order(labels, ordered):
    assert in_order(labels) == ordered


def test_numbers_in_two_spellings():
    assert same_numbers(["1", "2", "01", "x", "2.0", "3"]) == ["01", "1", "2", "2.0"]
    with pytest.raises(DataError, match=r"'1', '1\.0' spell one number"):
        in_order(["1", "1.0"])


@pytest.fixture
def readers(put):
    """The same pictures, in folders 0 to 11 and in a table."""
    root = put(*(f"in/{number}/1.png" for number in NUMBERS))
    rows = [f"in/{number}/1.png,{number}" for number in sorted(NUMBERS)]
    (root / "t.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    return (load_folder, root / "in"), (load_table, root / "t.csv")


def by_picture(dataset):
    return {s.name.split("/")[-2]: dataset.class_names[s.label] for s in dataset.splits["all"]}


def test_a_bare_list_means_the_same_to_every_reader_and_is_told(readers, tmp_path, lines):
    (tmp_path / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    for load, path in readers:
        assert by_picture(load(path)) == {number: number for number in NUMBERS}
        for given in (NAMES, tmp_path / "names.txt"):
            dataset = load(path, class_names=given)
            assert by_picture(dataset) == dict(zip(NUMBERS, NAMES, strict=True))
            assert "'2' is 'name of 2', '3' is" in lines.messages[-1]
    assert any("labels are numbers" in note for note in load_folder(tmp_path / "in").notes)


@pytest.mark.parametrize("header", ["label,name", "folder,name", "class;name", "Label\tName"])
def test_a_mapping_means_the_same_in_any_order_and_needs_no_line(readers, tmp_path, lines, header):
    delimiter = header.strip("abcdefghijklmnopqrstuvwxyzNL")
    pairs = sorted(zip(NUMBERS, NAMES, strict=True))
    rows = "\r\n".join([header, *map(delimiter.join, pairs)])
    (tmp_path / "n.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    (tmp_path / "n.json").write_text(json.dumps(dict(pairs)), encoding="utf-8")
    for load, path in readers:
        for given in ("n.csv", "n.json"):
            dataset = load(path, class_names=tmp_path / given)
            assert by_picture(dataset) == dict(pairs)
            assert dataset.notes == []
    assert lines.messages == []


@pytest.mark.parametrize("prefix", ["class", "", "no. "])
def test_a_bare_list_that_people_would_count_otherwise_is_refused(put, prefix):
    labels = [f"{prefix}{number} x" for number in (1, 2, 10)]
    root = put(*(f"in/{label}/1.png" for label in labels)) / "in"
    with pytest.raises(UsageError, match=f"'{prefix}10 x' comes before '{prefix}2 x'") as caught:
        load_folder(root, class_names=["one", "two", "ten"])
    assert "label,name" in caught.value.allowed
    names = dict(zip(labels, ["one", "two", "ten"], strict=True))
    assert load_folder(root, class_names=names).class_names == ["one", "ten", "two"]


def test_folders_that_spell_one_number_in_two_ways(put):
    with pytest.raises(DataError, match="'01', '1' spell one number"):
        load_folder(put("train/1/1.png", "test/01/1.png", "train/2/1.png", "test/2/1.png"))


def test_an_exponent_spells_a_number_among_numbers_and_may_be_a_digit_elsewhere(put):
    assert same_numbers(["1", "1e0", "2E1", "20.0"]) == ["1", "1e0", "20.0", "2E1"]
    assert same_numbers(["0400", "4e02", "4e0a"]) == []
    assert in_order(["1e3", "2e3", "1.1", "1.10"]) == ["1.1", "1.10", "1e3", "2e3"]
    with pytest.raises(DataError, match="'1', '1e0' spell one number"):
        load_folder(put("in/1/1.png", "in/1e0/1.png") / "in")
    (table := put("a.png", "b.png") / "t.csv").write_text("path,label\na.png,1\nb.png,1e0\n")
    with pytest.raises(DataError, match="spelled in two ways '1', '1e0'"):
        load_table(table)
