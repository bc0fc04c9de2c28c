"""One door to all sources, and what each error offers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clip_adapter.datasets.open import DataSpec, feature_spec, load_dataset, parse_spec
from clip_adapter.errors import DataError, UsageError


def test_folder_table_and_prompts(put):
    root = put("s/a/1.png", "s/b/1.png")
    assert load_dataset(root / "s").class_names == ["a", "b"]
    assert load_dataset(str(root / "s"), prompts=["a {} b", "c {}"]).templates == ["a {} b", "c {}"]
    (root / "dtd.csv").write_text("path,label\ns/a/1.png,x\n", encoding="utf-8")
    assert load_dataset(root / "dtd.csv").templates == ["{} texture."]
    (root / "lists").mkdir()
    (root / "lists" / "t.tsv").write_text("path\tlabel\na/1.png\tx\n", encoding="utf-8")
    assert load_dataset(root / "lists" / "t.tsv", root=root / "s").splits["all"][0].read()


def test_a_folder_whose_name_has_an_ending(put):
    root = put("pictures.csv/a/1.png", "pictures.npz/a/1.png")
    assert load_dataset(root / "pictures.csv").class_names == ["a"]
    assert load_dataset(root / "pictures.npz").class_names == ["a"]


def test_a_wrong_prompt_is_told_before_reading():
    with pytest.raises(UsageError, match="exactly one"):
        load_dataset("/nowhere", prompts=["no place"])


@pytest.mark.parametrize("spec", ["a.safetensors", "x/a.safetensors#train_4shot", "f.npz"])
def test_features_are_told_from_pictures(spec, put, monkeypatch):
    assert feature_spec(spec).kind == "features"  # there or not
    with pytest.raises(DataError, match=r"(safetensors|npz) does not exist"):
        load_dataset(spec)
    monkeypatch.chdir(put(spec.partition("#")[0]))
    with pytest.raises(UsageError, match=r"holds features(?s:.)*hub:NAME"):
        load_dataset(spec)


@pytest.mark.parametrize("spec", ["folder", "t.csv", "hub:a/b.npz", "split.json", "a#b", ""])
def test_other_specs_are_no_features(spec):
    assert not feature_spec(spec)


def test_parquet_is_told_by_its_columns(put):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = put("1.png")
    vectors = pa.array([[0.1, 0.2]])
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2)), 2)
    for column, values, expected in (
        ("embedding", vectors, True),
        ("features", vectors, True),
        ("features", fixed, True),
        ("features", pa.array([1.0]), False),
        ("other", vectors, False),
    ):
        columns = {"path": ["1.png"], "label": ["a"], column: values}
        pq.write_table(pa.table(columns), root / "t.parquet")
        assert bool(feature_spec(root / "t.parquet")) == expected
        assert bool(feature_spec(f"{root}/t.parquet#set")) == expected
    assert load_dataset(root / "t.parquet").class_names == ["a"]
    assert not feature_spec(root / "none.parquet")


def test_what_is_nothing_lists_all_forms(put):
    root = put("notes.docx")
    with pytest.raises(UsageError) as caught:
        load_dataset(root / "notes.docx")
    for form in ("FOLDER/class", ".csv", ".parquet", "split_zhou_", "hub:", ".safetensors"):
        assert form in str(caught.value)
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(root / "none")
    with pytest.raises(DataError, match="does not exist"):  # longer than a name may be
        load_dataset(root / ("n" * 300))


def test_data_is_opened_without_what_takes_long_to_import():
    heavy = "torch", "pyarrow", "datasets", "open_clip", "torchvision"
    code = (
        "import sys, clip_adapter.datasets.open, clip_adapter.datasets.splits\n"
        "import clip_adapter.datasets.decode\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_was_named_is_told_apart_once(put, monkeypatch):
    root = put("s/a/1.png", "t.csv", "eurosat/2750/Forest/1.jpg", "f#1.npz")
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root))
    for text, base, spec in (
        ("~/f#1.npz#a", None, DataSpec("~/f#1.npz#a", "features", root / "f#1.npz", "a")),
        ("s", None, DataSpec("s", "folder", Path("s"))),
        ("t.csv", root, DataSpec("t.csv", "table", Path("t.csv"))),
        ("f#1.npz", None, DataSpec("f#1.npz", "features", Path("f#1.npz"))),
        ("f#1.npz#a", None, DataSpec("f#1.npz#a", "features", Path("f#1.npz"), "a")),
        ("EuroSAT", root, DataSpec("EuroSAT", "benchmark", root, "eurosat")),
        ("hub:a/b", None, DataSpec("hub:a/b", "hub")),
    ):
        assert parse_spec(text, base) == spec
        assert parse_spec(spec) is spec
        assert str(spec) == text
    with pytest.raises(UsageError, match="given as list"):
        parse_spec(["s"])  # type: ignore[arg-type]
