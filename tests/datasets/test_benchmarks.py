"""The paper's data sets: their records, and reading them in CoOp's layout."""

import gzip
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from clip_adapter.datasets import catalog
from clip_adapter.datasets.catalog import SideFile, benchmark_names, get_benchmark, known_benchmark
from clip_adapter.datasets.coop import (
    find_file,
    find_folder,
    load_benchmark,
    read_rows,
    rows_digest,
)
from clip_adapter.datasets.open import load_dataset, parse_spec
from clip_adapter.datasets.splits import sample_few_shot
from clip_adapter.errors import DataError, UsageError
from clip_adapter.options import SourceOptions
from clip_adapter.reporting import NotesWarning
from clip_adapter.sources import open_source

RECORDS = [get_benchmark(name) for name in benchmark_names()]
ROWS = {
    "train": [["Forest/1.jpg", 1, "Forest"], ["AnnualCrop/1.jpg", 0, "Annual Crop Land"]],
    "val": [["Forest/2.jpg", 1, "Forest"]],
    "test": [["AnnualCrop/2.jpg", 0, "Annual Crop Land"]],
}
EUROSAT = [f"eurosat/2750/{row[0]}" for rows in ROWS.values() for row in rows]
WNIDS = ["n01440764", "n01443537", "n01484850"]
CLASSES = "n01440764 tench\nn01443537 goldfish\nn01484850 great white shark\n"


@pytest.fixture
def eurosat(put):
    root = put(*EUROSAT)
    (root / "eurosat/split_zhou_EuroSAT.json").write_text(json.dumps(ROWS))
    return root


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_record_is_whole(record):
    assert set(record.sizes) == {"train", "val", "test"}
    assert record.sizes["test"]
    assert all((record.title, record.licence, record.citation, record.homepage))
    # What cannot be downloaded is said in words.
    assert record.archives or record.by_hand
    assert record.picture_folders
    assert record.side_file or record.hub or not record.split_folders
    assert record.template.count("{}") == 1
    assert set(record.split_folders) <= {s for s, size in record.sizes.items() if size}
    for archive in record.archives:
        assert archive.layout
        # An archive writes into its own set's folder, or is an archive in an archive.
        places = archive.layout.values()
        assert all(p.startswith((f"{record.folder}/", "downloads/")) for p in places)
        assert archive.md5 is None or re.fullmatch("[0-9a-f]{32}", archive.md5)
        assert archive.sha256 is None or re.fullmatch("[0-9a-f]{64}", archive.sha256)
        assert archive.url is None or archive.url.startswith(("http://", "https://"))
        # Where the content is not known, the address must at least be safe.
        checked = archive.md5 or archive.sha256
        assert archive.url is None or checked or archive.url.startswith("https://")


def test_every_file_of_the_catalog_is_a_set_of_the_docs():
    files = {path.stem for path in Path(catalog.__file__).parent.glob("*.py")}
    page = (Path(__file__).parents[2] / "docs/data.md").read_text("utf-8")
    assert set(benchmark_names()) == files - {"__init__", "base"}
    for record in RECORDS:
        rows = [row for row in page.splitlines() if row.startswith(f"| `{record.name}` |")]
        assert len(rows) == 1, f"one row for {record.name} in the table of folders in docs/data.md"
        assert f"| `{record.folder}/` |" in rows[0]
        assert record.side_file is None or f"`{record.side_file.name}`" in rows[0]
    some = ["imagenet", "food101", "ucf101", "imagenetv2", "cifar10"]
    assert [name for name in benchmark_names() if name in some] == some, "the paper's order"


@pytest.mark.parametrize(
    ("spelled", "name"),
    [("EuroSAT", "eurosat"), ("ImageNet-A", "imagenet_a"), ("Flowers102", "oxford_flowers")],
)
def test_other_spellings(spelled, name):
    assert known_benchmark(spelled) == get_benchmark(spelled).name == name


def test_an_unknown_name():
    with pytest.raises(UsageError, match="Did you mean 'eurosat'"):
        get_benchmark("eurosad")


@pytest.mark.parametrize("inside", ["", "eurosat", "eurosat/2750"])
def test_the_root_may_be_the_parent_the_set_or_its_pictures(eurosat, inside):
    dataset = load_benchmark("eurosat", eurosat / inside)
    assert dataset.name == "eurosat"
    assert dataset.class_names == ["Annual Crop Land", "Forest"]
    assert [s.name for s in dataset.splits["train"]] == [
        "2750/Forest/1.jpg",
        "2750/AnnualCrop/1.jpg",
    ]
    assert [s.label for s in dataset.splits["train"]] == [1, 0]
    assert dataset.templates == ["a centered satellite photo of {}."]
    assert all(s.read() for samples in dataset.splits.values() for s in samples)


def test_the_split_file_may_lie_one_folder_up(eurosat):
    path = eurosat / "eurosat/split_zhou_EuroSAT.json"
    path.rename(eurosat / path.name)
    assert len(load_benchmark("eurosat", eurosat).splits["train"]) == 2


def test_what_is_not_there_says_how_to_get_it(eurosat, tmp_path):
    with pytest.raises(DataError, match=r"clip-adapter data get dtd --root .*"):
        load_benchmark("dtd", eurosat)
    with pytest.raises(DataError, match="does not exist"):
        load_benchmark("dtd", tmp_path / "none")
    (eurosat / "eurosat/split_zhou_EuroSAT.json").unlink()
    with pytest.raises(
        DataError, match=r"split_zhou_EuroSAT\.json is not in .*(?s:.*)drive\.google"
    ):
        load_benchmark("eurosat", eurosat)


def test_a_list_of_names_says_what_it_should_hold(put):
    root = put("imagenet-sketch/images/n1/a.png")
    with pytest.raises(DataError, match="a line for each class: the name of its folder, a space"):
        load_benchmark("imagenet_sketch", root)
    record = get_benchmark("imagenet_sketch")
    unknown = replace(record, side_file=SideFile("classnames.txt"))
    with pytest.raises(DataError, match=f"Its owners may have it: {record.homepage}"):
        find_file(unknown, SideFile("classnames.txt"), root / "imagenet-sketch", root)


def test_a_bare_name_with_root(eurosat, monkeypatch):
    monkeypatch.chdir(eurosat)
    # A folder of that name is read as a folder, unless a root is given: a folder takes none.
    assert parse_spec("eurosat").kind == "folder"
    assert list(load_dataset("eurosat").splits) == ["all"]
    assert list(load_dataset("eurosat", root=eurosat).splits) == ["train", "val", "test"]
    names = {"Forest": "wood", "Annual Crop Land": "field"}
    dataset = load_dataset("eurosat", root=".", class_names=names, prompts=["dtd"])
    assert dataset.class_names == ["field", "wood"]
    assert dataset.templates == ["{} texture."]


def test_a_bare_name_without_root_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"clip-adapter data get ucf101 --root DIR"):
        load_dataset("ucf101")
    with pytest.raises(DataError, match=r"eurosad does not exist\. Did you mean 'eurosat'\?"):
        load_dataset("eurosad", root=tmp_path)


@pytest.mark.parametrize("path", ["./dtd", "/dtd", "x/dtd", "dtd.csv", "dtd/"])
def test_a_path_is_no_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_spec("hub:dtd").kind == "hub"
    for root in (None, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            parse_spec(path, root)


def test_sources_take_a_root_beside_a_name(eurosat, monkeypatch):
    monkeypatch.chdir(eurosat)
    with pytest.warns(NotesWarning, match="has no pictures in test"):
        source = open_source("eurosat", SourceOptions(root=eurosat))
    assert source.name == "eurosat"
    assert source.splits() == ["train", "val", "test"]
    with pytest.raises(UsageError, match="--root"):
        open_source("eurosat/2750", SourceOptions(root=eurosat))


def test_imagenet_tests_on_its_val_folder(put):
    files = [
        f"imagenet/images/{s}/{w}/{i}.JPEG" for s in ("train", "val") for w in WNIDS for i in "21"
    ]
    root = put(*(f.replace(".JPEG", ".jpeg") for f in files), "imagenet/images/train/.hidden/a.png")
    (root / "imagenet/classnames.txt").write_text(CLASSES)
    dataset = load_benchmark("imagenet", root)
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {
        "train": 6,
        "test": 6,
    }
    assert dataset.class_names == ["tench", "goldfish", "great white shark"]
    assert dataset.splits["test"][0].name == f"images/val/{WNIDS[0]}/1.jpeg"
    assert [s.label for s in dataset.splits["test"]] == [0, 0, 1, 1, 2, 2]


def test_a_shift_has_the_classes_of_its_folders_by_imagenets_names(put):
    inner = "imagenet-adversarial/imagenet-a"
    root = put(f"{inner}/{WNIDS[2]}/a.png", f"{inner}/{WNIDS[0]}/b.png")
    (root / inner / "README.txt").write_text("no class")
    (root / "imagenet").mkdir()
    # The shifts share the class names that lie with ImageNet.
    (root / "imagenet/classnames.txt").write_text(CLASSES)
    dataset = load_benchmark("imagenet_a", root)
    assert dataset.class_names == ["tench", "great white shark"]
    assert [s.label for s in dataset.splits["test"]] == [0, 1]
    put(f"{inner}/cats/c.png")
    with pytest.raises(DataError, match=r"no class of .*'cats'"):
        load_benchmark("imagenet_a", root)


def test_imagenetv2_counts_its_classes(put):
    inner = "imagenetv2/imagenetv2-matched-frequency-format-val"
    root = put(*(f"{inner}/{i}/a.png" for i in (10, 2, 0)))
    names = "".join(f"n{i:08d} thing {i}\n" for i in range(11))
    (root / "imagenetv2/classnames.txt").write_text(names)
    dataset = load_benchmark("imagenetv2", root)
    assert len(dataset.class_names) == 11
    assert [s.label for s in dataset.splits["test"]] == [0, 2, 10]


@pytest.mark.parametrize("text", ["n1 a\nn1 b\n", "n1\n"])
def test_class_names_of_another_form(put, text):
    root = put("imagenet-sketch/images/n1/a.png")
    (root / "imagenet-sketch/classnames.txt").write_text(text)
    with pytest.raises(DataError, match="has the line"):
        load_benchmark("imagenet_sketch", root)


def put_aircraft(put, lists):
    """A set in the layout of FGVC-Aircraft; the lists hold (picture, variant)."""
    variants = sorted({v for rows in lists.values() for _, v in rows}, key=lambda v: int(v[1:]))
    first = next(iter(lists.values()))[0][0]
    root = put(f"fgvc_aircraft/images/{first}.jpg")
    (root / "fgvc_aircraft/variants.txt").write_text("".join(f"{v}\n" for v in variants))
    for split, rows in lists.items():
        text = "".join(f"{picture} {variant}\n" for picture, variant in rows)
        (root / f"fgvc_aircraft/images_variant_{split}.txt").write_text(text)
    return root


def test_aircraft_by_its_lists(put):
    lists = {"train": [("002", "v1"), ("001", "v0")], "val": [("003", "v0")], "test": []}
    root = put_aircraft(put, lists)
    dataset = load_benchmark("fgvc_aircraft", root)
    assert [s.name for s in dataset.splits["train"]] == ["images/002.jpg", "images/001.jpg"]
    assert [s.label for s in dataset.splits["train"]] == [1, 0]
    assert list(dataset.splits) == ["train", "val"]
    # As in DC-10, DC-3: sorted as text, which is beyond doubt where the list says so.
    (root / "fgvc_aircraft/variants.txt").write_text("v0\nv1\nv10\nv2\n")
    assert load_benchmark("fgvc_aircraft", root, [*"abcd"]).class_names == [*"abcd"]
    (root / "fgvc_aircraft/images_variant_test.txt").write_text("004 v7\n")
    with pytest.raises(DataError, match="'004 v7'"):
        load_benchmark("fgvc_aircraft", root)


def test_a_copy_of_the_hub_has_coops_names(tmp_path, png_bytes):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["Audi A5 2012", "BMW X5 2007"]),
        }
    )
    rows = {"image": [{"bytes": png_bytes, "path": None}] * 2, "label": [1, 0]}
    part = datasets.Dataset.from_dict(rows, features=features)
    saved = datasets.DatasetDict({"train": part, "test": part, "contrast": part})
    saved.save_to_disk(str(tmp_path / "stanford_cars/hub"))
    dataset = load_benchmark("stanford_cars", tmp_path)
    assert dataset.class_names == ["2012 Audi A5", "2007 BMW X5"]
    assert list(dataset.splits) == ["train", "test"]
    assert "not CoOp's" in dataset.notes[0]
    assert dataset.copy_of == "tanganke/stanford_cars"
    # Pictures in CoOp's layout come first.
    (tmp_path / "stanford_cars/cars_train").mkdir()
    with pytest.raises(DataError, match="split_zhou_StanfordCars"):
        load_benchmark("stanford_cars", tmp_path)


def read_swat(shared, name, split):
    lines = (shared / "splits" / f"swat_{name}_{split}.txt").read_text().splitlines()
    return [line.split(" ")[:2] for line in lines]


def drawn(shared, name, shots, seed):
    with gzip.open(shared / "splits/coop_fewshot_seeds.json.gz") as file:
        return json.load(file)[name][f"shot_{shots}-seed_{seed}"]


@pytest.mark.shared
def test_aircraft_as_it_is(shared, put):
    lists = {
        split: [(p.split("/")[-1].removesuffix(".jpg"), f"v{v}") for p, v in rows]
        for split in ("train", "val", "test")
        for rows in [read_swat(shared, "fgvc", split)]
    }
    dataset = load_benchmark("fgvc_aircraft", put_aircraft(put, lists))
    record = get_benchmark("fgvc_aircraft")
    assert {split: len(samples) for split, samples in dataset.splits.items()} == record.sizes
    assert len(dataset.class_names) == record.classes
    train = dataset.splits["train"]
    for shots in (1, 16):
        golden = drawn(shared, "fgvc_aircraft", shots, 1)
        rows = sample_few_shot([sample.label for sample in train], shots)
        assert sorted(train[i].name for i in rows) == sorted(golden["train"])


@pytest.mark.slow
@pytest.mark.shared
def test_food_as_it_is(shared, put):
    rows = {
        split: [
            [path.removeprefix("images/"), int(label), path.split("/")[1]]
            for path, label in read_swat(shared, "food101", split)
        ]
        for split in ("train", "val", "test")
    }
    root = put(f"food-101/images/{rows['train'][0][0]}")
    (root / "food-101/split_zhou_Food101.json").write_text(json.dumps(rows))
    dataset = load_benchmark("food101", root)
    record = get_benchmark("food101")
    assert {split: len(samples) for split, samples in dataset.splits.items()} == record.sizes
    assert len(dataset.class_names) == record.classes
    assert dataset.class_names[0] == "apple pie"
    files = {s.name for s in dataset.splits["train"]}
    assert set(drawn(shared, "food101", 16, 1)["train"]) <= files


@pytest.mark.shared
@pytest.mark.parametrize(
    "record", [r for r in RECORDS if r.side_file and r.side_file.digest], ids=lambda r: r.name
)
def test_records_of_sets_with_a_split_file(shared, record):
    path = shared / "splits" / record.side_file.name
    if not path.is_file():
        pytest.skip(f"no {path.name} in ../shared/splits")
    rows = read_rows(path)
    assert {split: len(r) for split, r in rows.items()} == record.sizes
    assert len({row[1] for r in rows.values() for row in r}) == record.classes
    assert rows_digest(rows) == record.side_file.digest
    swapped = {**rows, "train": [rows["train"][1], rows["train"][0], *rows["train"][2:]]}
    assert rows_digest(swapped) != record.side_file.digest


@pytest.mark.shared
def test_imagenet_val_and_names(shared, put):
    text = (shared / "splits/imagenet_classnames.txt").read_text()
    wnids = [line.split(" ")[0] for line in text.splitlines()]
    rows = read_swat(shared, "imagenet", "val50k")
    record = get_benchmark("imagenet")
    counts = Counter(path.rsplit("_", 1)[1].split(".")[0] for path, _ in rows)
    assert len(rows) == record.sizes["test"]
    assert set(counts.values()) == {record.per_class["test"]}
    # Labels are the places of the sorted WordNet ids: the order in which the reader counts them.
    assert {path.rsplit("_", 1)[1].split(".")[0]: int(label) for path, label in rows} == {
        wnid: i for i, wnid in enumerate(wnids)
    }
    root = put(*(f"imagenet/images/val/{wnid}/a.jpeg" for wnid in wnids))
    (root / "imagenet/classnames.txt").write_text(text)
    dataset = load_benchmark("imagenet", root)
    assert list(dataset.splits) == ["test"]
    assert [s.label for s in dataset.splits["test"]] == list(range(1000))
    assert (dataset.class_names[0], dataset.class_names[-1]) == ("tench", "toilet paper")


def test_folders_are_found_once(put):
    root = put("imagenet-rendition/imagenet-r/n1/a.png")
    record = get_benchmark("imagenet_r")
    here = root / "imagenet-rendition"
    assert find_folder(record, root) == find_folder(record, here) == here
    assert find_folder(record, here / "imagenet-r") == here


def test_cifar_is_read_from_class_folders_and_from_its_copy(tmp_path, put, png_bytes):
    root = put(*(f"cifar10/{s}/{c}/1.png" for s in ("train", "test") for c in ("cat", "airplane")))
    data = load_dataset("CIFAR-10", root=root)
    assert (data.name, data.class_names) == ("cifar10", ["airplane", "cat"])
    assert {s: len(own) for s, own in data.splits.items()} == {"train": 2, "test": 2}
    assert data.templates == ["a photo of a {}."]

    datasets = pytest.importorskip("datasets")
    names = {"fine_label": ["aquarium_fish", "apple"], "coarse_label": ["fish", "fruit"]}
    kinds = {name: datasets.ClassLabel(names=own) for name, own in names.items()}
    rows = {"img": [{"bytes": png_bytes, "path": None}] * 2, "fine_label": [0, 1]}
    copy = datasets.Dataset.from_dict(
        rows | {"coarse_label": [0, 1]}, datasets.Features({"img": datasets.Image(), **kinds})
    )
    both = datasets.DatasetDict({"train": copy, "test": copy})
    both.save_to_disk(str(tmp_path / "other/cifar100/hub"))
    data = load_dataset("cifar100", root=tmp_path / "other")
    assert data.class_names == ["aquarium fish", "apple"]
    assert {s: len(own) for s, own in data.splits.items()} == {"train": 2, "test": 2}
    assert data.copy_of == "uoft-cs/cifar100"
