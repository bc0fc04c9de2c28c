"""Hub data sets, from folders that the tests save: columns, splits and lazy bytes."""

import os
import subprocess
import sys

import pytest

from clip_adapter.datasets.decode import decode
from clip_adapter.datasets.hub import load_hub
from clip_adapter.datasets.open import load_dataset
from clip_adapter.errors import DataError, MissingExtraError, UsageError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def rows(png_bytes):
    def make(labels, names=("cat", "sea_lion"), **more):
        columns = {"image": [{"bytes": png_bytes, "path": None}] * len(labels), "label": labels}
        features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
        for key, (values, kind) in more.items():
            columns[key], features[key] = values, kind
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    return make


@pytest.fixture
def save(tmp_path):
    def make(data, name="saved"):
        if isinstance(data, dict):
            data = datasets.DatasetDict(data)
        data.save_to_disk(str(tmp_path / name))
        return f"hub:{tmp_path / name}"

    return make


def test_splits_labels_and_bytes(save, rows, png_bytes):
    spec = save({"train": rows([1, 0]), "validation": rows([0]), "test": rows([1]), "x": rows([0])})
    dataset = load_hub(spec)
    assert dataset.class_names == ["cat", "sea lion"]
    assert [s.label for s in dataset.splits["train"]] == [1, 0]
    assert list(dataset.splits) == ["train", "val", "test"]
    assert dataset.splits["train"][1].name == "train/1"
    assert dataset.splits["test"][0].read() == png_bytes
    assert decode(dataset.splits["test"][0].read(), "x").size == (4, 4)
    assert "Splits left out: 'x'." in dataset.notes


def test_a_bare_list_of_names_goes_by_the_numbers_of_the_set(save, rows):
    spec = save(rows([2, 0], names=["dc1", "dc10", "dc2"]))
    assert load_hub(spec, ["one", "ten", "two"]).class_names == ["one", "ten", "two"]


@pytest.mark.parametrize("wrap", [True, False])
def test_one_split_is_read_as_a_whole(save, rows, wrap):
    dataset = load_hub(save({"train": rows([1, 0])} if wrap else rows([1, 0])))
    assert not dataset.has_splits
    assert len(dataset.splits["all"]) == 2
    assert any("'train'" in note for note in dataset.notes) == wrap


def test_rows_without_a_label_are_counted(save, rows):
    dataset = load_hub(save({"train": rows([1, 0, None]), "test": rows([-1, -1])}))
    assert list(dataset.splits) == ["train"]
    assert "1 row of train without a label: left out." in dataset.notes
    assert "2 rows of test without a label: left out." in dataset.notes


def test_text_labels_and_a_chosen_column(save, rows):
    text = rows([0, 1]).remove_columns("label").add_column("label", ["wolf", "ant"])
    dataset = load_hub(save(text))
    assert dataset.class_names == ["ant", "wolf"]
    assert [s.label for s in dataset.splits["all"]] == [1, 0]
    coarse = datasets.ClassLabel(names=["x"])
    both = rows([0, 1], coarse_label=([0, 0], coarse))
    assert load_hub(save(both, "both")).class_names == ["cat", "sea lion"]


def test_no_or_several_columns(save, rows):
    with pytest.raises(DataError, match="no image column; its columns: 'label'"):
        load_hub(save(rows([0, 1]).remove_columns("image"), "no_image"))
    with pytest.raises(DataError, match="no label column"):
        load_hub(save(rows([0, 1]).remove_columns("label"), "no_label"))
    two = rows([0], other=([0], datasets.ClassLabel(names=["x"]))).rename_column("label", "kind")
    with pytest.raises(DataError, match="2 label columns"):
        load_hub(save(two, "two"))


def test_a_picture_by_its_path(save, rows, put, png_bytes, tmp_path):
    put("p/1.png")
    columns = {"image": [str(tmp_path / "p" / "1.png")], "label": [0]}
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    (sample,) = load_hub(save(data)).splits["all"]
    assert sample.read() == png_bytes


def test_given_names_and_prompts(save, rows):
    spec = save({"train": rows([1, 0]), "test": rows([0])})
    dataset = load_dataset(spec, class_names={"cat": "x", "sea_lion": "y"}, prompts=["dtd"])
    assert dataset.class_names == ["x", "y"]
    assert dataset.templates == ["{} texture."]


@pytest.mark.parametrize("spec", ["hub:", "hub:/no/such/folder", "hub:a b", "hub:a/b/c", "hub:x@"])
def test_a_wrong_name(spec):
    with pytest.raises(UsageError, match="names no data set and no folder"):
        load_hub(spec)


def test_a_folder_that_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="cannot be loaded"):
        load_hub(f"hub:{tmp_path}")


def test_offline_says_how_to_get_the_data():
    code = (
        "from clip_adapter.datasets.hub import load_hub\n"
        "from clip_adapter.errors import DataError\n"
        "try:\n    load_hub('hub:nobody/nothing@main:plain')\n"
        "except DataError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'hub:nobody/nothing@main:plain' cannot be loaded" in done.stdout
    assert "save_to_disk" in done.stdout


def test_name_revision_and_configuration_are_passed_on(monkeypatch, rows):
    asked = []

    def load(path, name, revision):
        asked.append((path, name, revision))
        return datasets.DatasetDict({"train": rows([0, 1])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    for spec in ("hub:own/set", "hub:set@v1", "hub:own/set:plain", "hub:own/eurosat@v1:plain"):
        dataset = load_hub(spec)
    assert asked == [
        ("own/set", None, None),
        ("set", None, "v1"),
        ("own/set", "plain", None),
        ("own/eurosat", "plain", "v1"),
    ]
    assert dataset.templates == ["a centered satellite photo of {}."]


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'datasets>=\d.*extra 'hub'"):
        load_hub("hub:own/set")
