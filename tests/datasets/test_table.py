"""Tables: CSV in all its dialects and Parquet, and errors that name the rows."""

import csv
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_adapter.datasets.labels import in_order, same_numbers
from clip_adapter.datasets.open import load_dataset
from clip_adapter.datasets.table import load_table
from clip_adapter.errors import DataError, UsageError


@pytest.fixture
def table(put):
    def make(text, name="t.csv", encoding="utf-8"):
        root = put("1.png", "2.png", "3.png")
        (root / name).write_bytes(text.encode(encoding))
        return root / name

    return make


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_dialects(table, delimiter, newline, encoding):
    rows = [["path", "label"], ["2.png", "dög"], ["1.png", "cat"]]
    path = table(newline.join(map(delimiter.join, rows)) + newline, encoding=encoding)
    dataset = load_table(path)
    assert dataset.class_names == ["cat", "dög"]
    assert [(s.name, s.label) for s in dataset.splits["all"]] == [("2.png", 1), ("1.png", 0)]
    assert dataset.splits["all"][0].read()
    assert dataset.notes == []


def test_splits_extra_columns_and_quotes(table):
    text = "id,Label,SPLIT,Path\n"
    text += '7,"a, b",train,1.png\n8,c,validation,2.png\n\n9,"a, b",test,3.png\n'
    dataset = load_table(table(text))
    assert dataset.class_names == ["a, b", "c"]
    assert {k: [s.name for s in v] for k, v in dataset.splits.items()} == {
        "train": ["1.png"],
        "val": ["2.png"],
        "test": ["3.png"],
    }


def test_root_and_absolute_paths(put, tmp_path):
    root = put("pictures/1.png", "other/2.png")
    path = root / "lists" / "t.csv"
    path.parent.mkdir()
    path.write_text(f"path,label\n1.png,a\n{root / 'other' / '2.png'},b\n", encoding="utf-8")
    dataset = load_table(path, root=root / "pictures")
    assert all(sample.read() for sample in dataset.splits["all"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path', 'label'"),
        ("path\n1.png\n", "no column 'label'; its columns: 'path'"),
        ("Datei;Klasse\n1.png;a\n", "no column 'path', 'label'; its columns: 'Datei', 'Klasse'"),
        ("file,class\n1.png,a\n", "no column 'path', 'label'; its columns: 'file', 'class'"),
        ("path,label\n", "has no rows"),
        ("path,label\n1.png,a\n2.png,\n3.png\n", r"2 rows of .* without a label: row 3, 4"),
        ("path,label\n,a\n", "1 row of .* without a path: row 2"),
        ("path,label,split\n1.png,a,train\n2.png,a,holdout\n", "unknown split 'holdout': row 3"),
        ("path,label,split\n1.png,a,\n", "unknown split '': row 2"),
        ("path,label\nx.png,a\ny.png,b\n", "None of the 2 pictures"),
        ("path,label\n1\0.png,a\n", "."),
        ("path,label\n1.png,a\n2.png,circle, red\n", "1 row of .* more cells than .*: row 3"),
        ("label;path\ncircle; red;1.png\n", "more cells than columns: row 2"),
        ("path,label,\n1.png,a,\n2.png,circle, red\n", "more cells than columns: row 3"),
        ("path\tlabel\tsplit\r\n1.png\ta\ttrain\tx\r\n", "more cells than columns: row 2"),
        ("path,Label,label\n1.png,a,b\n", "more than one column 'label'"),
        ("split,path,label,split\ntrain,1.png,b,train\n", "more than one column 'split'"),
        ("path,label\n1.png,a\n2.png,nan\n", "1 row of .* written nan,: row 3"),
        ("path,label\n1.png,1.0\n2.png,<NA>\n", "written nan,: row 3"),
        ("path,label\n1.png,2\n2.png,1\n3.png,1.0\n", "spelled in two ways '1', '1.0': row 3, 4"),
        ("path,label\n1.png,01\n2.png,1\n3.png,x\n", "spelled in two ways '01', '1': row 2, 3"),
        ('path,label\n1.png,a\n2.png,"b\n3.png,c\n', "no CSV from line 3 on: unexpected end"),
        ('path,label\n1.png,"a\n2.png,"b\n3.png,c\n', "no CSV from line 2 on: ',' expected"),
    ],
)
def test_errors_name_rows_and_columns(table, text, message):
    with pytest.raises(DataError, match=message):
        load_table(table(text))


@pytest.mark.parametrize(
    "path", ["C:\\Users\\me\\a.jpg", "c:/me/a.jpg", "\\\\nas\\me\\a.jpg", "/me/a.jpg"]
)
def test_paths_of_another_computer_are_called_so(table, tmp_path, monkeypatch, path):
    table(f"path,label\nhere.png,a\n{path},b\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_table("t.csv")
    assert f"of t.csv is in this folder: 'here.png', '{path}'." in caught.value.found
    assert "of another computer" in caught.value.hint
    assert "--root" in caught.value.hint


def test_many_bad_rows_are_counted(table):
    with pytest.raises(DataError, match="row 2, 3, 4, 5, 6 and 15 more"):
        load_table(table("path,label\n" + "1.png,\n" * 20))


def test_other_encodings_are_told(table):
    with pytest.raises(DataError, match="not UTF-8"):
        load_table(table("path,label\n1.png,größe\n", encoding="latin-1"))


def test_a_table_that_is_not_there(tmp_path):
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(DataError, match="cannot be read"):
            load_table(tmp_path / name)


def test_a_missing_picture_stays_and_is_told(table):
    dataset = load_table(table("path,label\n1.png,a\ngone.png,b\n"))
    assert [s.name for s in dataset.splits["all"]] == ["1.png", "gone.png"]
    assert dataset.notes == ["1 picture of 2 missing: 'gone.png'."]
    with pytest.raises(OSError, match="gone"):
        dataset.splits["all"][1].read()


def test_pipes_and_devices_in_a_table_are_not_opened(table):
    path = table("path,label\n1.png,a\npipe.png,b\n/dev/zero,b\n")
    os.mkfifo(path.parent / "pipe.png")
    for sample in load_table(path).splits["all"][1:]:
        with pytest.raises(DataError, match="a pipe or device, no picture"):
            sample.read()


def test_leaks_and_torn_labels_are_told(table):
    dataset = load_table(
        table(
            "path,label,split\n1.png,a,train\n1.png,a,test\n2.png,b,train\n2.png,a,train\n3.png,b,test"
        )
    )
    assert any("1 picture both in test and in train or val: '1.png'" in n for n in dataset.notes)
    assert any("1 picture with two labels: '2.png'" in n for n in dataset.notes)


def test_number_labels_are_sorted_as_numbers(table):
    path = table("path,label\n1.png,10\n2.png,9\n3.png,0\n")
    dataset = load_table(path)
    assert dataset.class_names == ["0", "9", "10"]
    assert "labels are numbers" in dataset.notes[-1]
    assert load_table(path, class_names=["x", "y", "z"]).class_names == ["x", "y", "z"]


def test_whole_numbers_of_a_column_with_gaps(table):
    path = table("path,label\n1.png,10.0\n2.png,9.0\n3.png,11\n")
    dataset = load_table(path)
    assert dataset.class_names == ["9", "10", "11"]
    assert [sample.label for sample in dataset.splits["all"]] == [1, 0, 2]
    assert dataset.notes[0] == "Labels with a decimal point are whole numbers: 10.0 is 10."
    assert "labels are numbers" in dataset.notes[1]
    names = {"9.0": "x", "10": "y", "11.0": "z"}  # written by the same program
    assert load_table(path, class_names=names).class_names == ["x", "y", "z"]


def test_versions_are_words(table):
    dataset = load_table(table("path,label\n1.png,1.10\n2.png,1.9\n3.png,2.0\n"))
    assert dataset.class_names == ["1.10", "1.9", "2.0"]
    assert dataset.notes == []


def test_words_for_a_missing_label_are_told(table):
    dataset = load_table(table("path,label\n1.png,None\n2.png,b\n3.png,none\n"))
    assert dataset.class_names == ["None", "b", "none"]
    assert dataset.notes == ["'None', as programs write a missing label, is read as a class."]


def test_cells_that_are_no_loss(table):
    text = ',path,label,\n0,1.png,"circle, red",\n1,2.png, "two\nlines",,\n2,3.png,a "b",\n'
    dataset = load_table(table(text))  # an index of pandas in front, blank cells behind
    assert dataset.class_names == ['a "b"', "circle, red", "two lines"]
    assert dataset.notes == []


def test_paths_as_windows_writes_them(put):
    root = put("a b/1.png", "a b/2.png", "c/3.png", "c/back\\slash.png")
    rows = [("a b\\1.png", "a", "train"), ("a b/2.png", "a", "train"), ("c\\3.png", "c", "train")]
    rows += [("c/back\\slash.png", "c", "train"), ("a b/1.png", "a", "test")]
    lines = ["path,label,split", *map(",".join, rows)]
    (root / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    dataset = load_table(root / "t.csv")
    train = dataset.splits["train"]
    assert [s.name for s in train] == ["a b/1.png", "a b/2.png", "c/3.png", "c/back\\slash.png"]
    assert all(sample.read() for sample in train)
    assert "2 paths with backslashes read as 'a b/1.png' and 1 more." in dataset.notes
    assert any("1 picture both in test" in note for note in dataset.notes)


def test_a_label_of_300_characters(table):
    long = "very " * 60
    dataset = load_table(table(f"path,label\n1.png,{long}\n2.png,b\n"))
    assert dataset.class_names == ["b", long.strip()]


def test_class_names_by_label(table):
    path = table("path,label\n1.png,a\n2.png,b\n")
    assert load_table(path, class_names={"a": "ape", "b": "bee"}).class_names == ["ape", "bee"]
    with pytest.raises(UsageError, match="'c'"):
        load_table(path, class_names={"a": "ape", "b": "bee", "c": "cow"})


def test_parquet_that_may_not_be_read(put, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    root = put("1.png", "t.parquet")
    monkeypatch.setattr("pyarrow.parquet.read_schema", refused)
    with pytest.raises(DataError, match=r"t\.parquet may not be read \(permission\)\.\nNext: Ask"):
        load_table(root / "t.parquet")


def test_parquet(put):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = put("1.png", "2.png")
    columns = {
        "path": ["1.png", "2.png"],
        "label": pa.array(["b", "a"]).dictionary_encode(),
        "split": ["train", "test"],
        "size": [1, 2],
    }
    pq.write_table(pa.table(columns), root / "t.parquet")
    dataset = load_table(root / "t.parquet")
    assert dataset.class_names == ["a", "b"]
    assert [s.label for s in dataset.splits["train"]] == [1]
    pq.write_table(pa.table({"path": ["1.png", "2.png"], "label": [3, None]}), root / "t.parquet")
    with pytest.raises(DataError, match="without a label: row 2"):
        load_table(root / "t.parquet")
    columns = {"path": ["1.png", "2.png"], "label": [3.0, float("nan")]}
    pq.write_table(pa.table(columns), root / "t.parquet")
    with pytest.raises(DataError, match="written nan,: row 2"):
        load_table(root / "t.parquet")
    names = ["path", "label", "label"]
    twice = pa.Table.from_arrays([pa.array(["1.png"]), pa.array(["a"]), pa.array(["b"])], names)
    pq.write_table(twice, root / "t.parquet")
    with pytest.raises(DataError, match="more than one column 'label'"):
        load_table(root / "t.parquet")
    (root / "t.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_table(root / "t.parquet")


cells = st.text(
    st.characters(blacklist_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cf"]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(cells, cells, st.sampled_from(["train", "val", "test"])), min_size=1),
    st.sampled_from(",;\t"),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_is_written_is_read(tmp_path_factory, rows, delimiter, quoting):
    import unicodedata

    folder = tmp_path_factory.mktemp("table")
    path = folder / "t.csv"
    # One row that is there, so that the table is not refused as a whole.
    (folder / "here").write_bytes(b"x")
    rows = [("here", "label", "train"), *rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
        writer.writerow(("path", "label", "split"))
        writer.writerows(rows)
    labels = {unicodedata.normalize("NFC", label) for _, label, _ in rows}
    if same_numbers(labels):
        with pytest.raises(DataError, match="two ways"):
            load_table(path)
        return
    dataset, labels = load_table(path), in_order(labels)
    for split in ("train", "val", "test"):
        expected = [
            (file, labels.index(unicodedata.normalize("NFC", label)))
            for file, label, where in rows
            if where == split
        ]
        assert [(s.name, s.label) for s in dataset.splits.get(split, [])] == expected


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "t.csv"
    for head in (b"", b"path,label\n", b"path;label;split\r\n"):
        path.write_bytes(head + data)
        with pytest.raises(DataError):
            load_table(path)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_what_excel_saves_otherwise_names_what_to_save(table, encoding):
    with pytest.raises(DataError) as caught:
        load_table(table("path;label\n1.png;Vögel\n", encoding=encoding))
    assert "'CSV UTF-8'" in caught.value.hint


@pytest.mark.parametrize("ending", ["xlsx", "ods"])
def test_a_sheet_says_how_to_save_it(table, ending):
    with pytest.raises(UsageError) as caught:
        load_dataset(table("PK", f"t.{ending}"))
    assert "'CSV UTF-8'" in caught.value.hint
