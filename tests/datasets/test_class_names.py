"""Class names: read from labels, or given by file, and never guessed when a key is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.datasets.class_names import name_classes, readable
from clip_adapter.errors import ClipAdapterError, DataError, UsageError


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("annual_crop", "annual crop"),
        ("__a__b ", "a b"),
        ("snow-leopard", "snow-leopard"),
        ("AnnualCrop", "AnnualCrop"),
        ("cafe\u0301", "caf\u00e9"),
        ("_", "_"),
        ("two\nlines", "two lines"),
        ("猫_犬", "猫 犬"),
    ],
)
def test_names_are_read_from_labels(label, name):
    assert readable(label) == name
    assert name_classes([label]) == [name]


def test_labels_that_would_be_called_alike_stay_apart():
    assert name_classes(["a_b", "a b", "c_d"]) == ["a_b", "a b", "c d"]


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=20))
def test_reading_names_is_idempotent_and_keeps_every_class(labels):
    names = name_classes(labels)
    assert len(names) == len(labels)
    assert all(names)
    for label in labels:
        assert readable(readable(label)) == readable(label)


FILES = {
    "n.csv": 'folder,name\nb,"bee, or wasp"\na,ape\n',
    "n.tsv": "folder\tname\nb\tbee, or wasp\na\tape\n",
    "n.json": '{"b": "bee, or wasp", "a": "ape"}',
    "list.json": '["ape", "bee, or wasp"]',
    "n.txt": "ape\nbee, or wasp\n\n",
    "bom.txt": "\ufeffape\r\nbee, or wasp\r\n",
}


@pytest.mark.parametrize("file", FILES)
def test_every_form_of_file(tmp_path, file):
    path = tmp_path / file
    path.write_bytes(FILES[file].encode())
    assert name_classes(["a", "b"], path) == ["ape", "bee, or wasp"]
    assert name_classes(["a", "b"], str(path)) == ["ape", "bee, or wasp"]


@pytest.mark.parametrize(
    ("file", "text", "error", "message"),
    [
        ("n.csv", "folder,name\na,ape\nb,bee\nbb,x\n", UsageError, "Unknown class 'bb'.*'b'"),
        ("n.csv", "folder,name\na,ape\n", UsageError, "leave out 'b'"),
        ("n.csv", "folder,name\na,ape\na,apple\nb,bee\n", UsageError, "name 'a' more than once"),
        ("n.csv", "folder,name\na,ape\nb,\n", UsageError, "'b' without a name"),
        ("n.csv", "folder,name\na,ape\nb,ape\n", UsageError, "alike: 'ape'"),
        ("n.csv", "a,ape\nb,bee\n", DataError, "header"),
        ("n.csv", "folder,name\na,ape,monkey\nb,bee\n", DataError, "the row"),
        ("n.csv", "", DataError, "header"),
        ("n.json", '{"a": "ape", "a": "x", "b": "bee"}', UsageError, "'a' more than once"),
        ("n.json", '{"a": 1, "b": "bee"}', DataError, "valid"),
        ("n.json", '"ape"', DataError, "valid"),
        ("n.json", "{", DataError, "no JSON"),
        ("n.txt", "ape\n", UsageError, "are 1, and there are 2 classes"),
        ("n.txt", "ape\n\nbee\n", UsageError, "are 3"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path, file, text, error, message):
    path = tmp_path / file
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        name_classes(["a", "b"], path)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        name_classes(["a"], tmp_path / "none.csv")


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=5))
def test_a_json_object_gives_its_names_or_an_error(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("names") / "n.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    try:
        names = name_classes(list(table), path)
    except ClipAdapterError:
        return
    assert [name.strip() for name in names] == names
    assert len(set(names)) == len(table)


@given(st.binary(max_size=80), st.sampled_from(["n.csv", "n.json", "n.txt"]))
def test_any_bytes_give_names_or_an_error(tmp_path_factory, data, file):
    path = tmp_path_factory.mktemp("names") / file
    path.write_bytes(data)
    try:
        names = name_classes(["a", "b"], path)
    except ClipAdapterError:
        return
    assert len(names) == 2
