"""Checking a data set: every fault is named, and nothing is said of a whole one."""

import io
import json
import tarfile
from dataclasses import replace

import pytest
from PIL import Image

import clip_adapter.datasets.download.check as module
from clip_adapter.datasets.catalog import get_benchmark
from clip_adapter.datasets.coop import read_rows, rows_digest
from clip_adapter.datasets.download.check import check_benchmark
from clip_adapter.errors import DataError

CLASSES = ["Annual Crop Land", "Forest"]
FOLDERS = ["AnnualCrop", "Forest"]


def jpeg(colour):
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 60).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue() + bytes([colour])


@pytest.fixture
def small(put, monkeypatch):
    """EuroSAT with two classes of twelve pictures, and the record that goes with it."""

    def make(**changes):
        numbers = {"train": range(6), "val": range(6, 8), "test": range(8, 12)}
        rows = {
            split: [
                [f"{folder}/{folder}_{i}.jpg", label, CLASSES[label]]
                for label, folder in enumerate(FOLDERS)
                for i in some
            ]
            for split, some in numbers.items()
        }
        root = put(*(f"eurosat/2750/{r[0]}" for v in rows.values() for r in v), data=jpeg(0))
        path = root / "eurosat/split_zhou_EuroSAT.json"
        path.write_text(json.dumps(rows))
        record = get_benchmark("eurosat")
        sizes = {split: len(some) for split, some in rows.items()}
        side_file = replace(record.side_file, digest=rows_digest(read_rows(path)))
        changes = {"classes": 2, "sizes": sizes, "side_file": side_file, **changes}
        monkeypatch.setattr(module, "get_benchmark", lambda name: replace(record, **changes))
        return root

    return make


def test_a_whole_set(small):
    seen = []
    check = check_benchmark("eurosat", small(), progress=seen.append)
    assert check.ok
    assert (check.files, check.decoded, check.classes) == (24, 24, 2)
    assert check.sizes == check.expected == {"train": 12, "val": 4, "test": 8}
    assert check.notes == ["split_zhou_EuroSAT.json is CoOp's, row by row."]
    assert [(stage.title, stage.done, stage.total) for stage in seen] == [
        ("Decoding", done, 24) for done in range(1, 25)
    ]


def test_each_fault_is_named(small):
    root = small()
    pictures = root / "eurosat/2750"
    (pictures / "Forest/Forest_1.jpg").unlink()
    (pictures / "Forest/Forest_9.jpg").rename(pictures / "Forest/Forest_9 copy.jpg")
    whole = (pictures / "AnnualCrop/AnnualCrop_3.jpg").read_bytes()
    (pictures / "AnnualCrop/AnnualCrop_3.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "AnnualCrop/AnnualCrop_4.jpg").write_bytes(b"")
    check = check_benchmark("eurosat", root)
    assert check.missing == ["2750/Forest/Forest_1.jpg", "2750/Forest/Forest_9.jpg"]
    assert check.unexpected == ["2750/Forest/Forest_9 copy.jpg"]
    assert check.renamed == [("2750/Forest/Forest_9.jpg", "2750/Forest/Forest_9 copy.jpg")]
    assert [file for file, _ in check.unreadable] == [
        "2750/AnnualCrop/AnnualCrop_3.jpg",
        "2750/AnnualCrop/AnnualCrop_4.jpg",
    ]
    assert "damaged" in check.unreadable[0][1]
    assert "empty" in check.unreadable[1][1]
    assert check.sizes == {"train": 11, "val": 4, "test": 7}
    # Names tell what is missing; a sentence on the sum would say it twice.
    assert check.wrong == []
    assert not check.ok
    assert json.loads(json.dumps(check.to_dict()))["ok"] is False


def test_fast_does_not_decode(small):
    root = small()
    (root / "eurosat/2750/Forest/Forest_1.jpg").write_bytes(b"no picture")
    check = check_benchmark("eurosat", root, fast=True)
    assert check.ok
    assert check.decoded == 0


def test_another_side_file_is_told(small):
    root = small()
    path = root / "eurosat/split_zhou_EuroSAT.json"
    rows = json.loads(path.read_text())
    rows["train"].reverse()
    path.write_text(json.dumps(rows))
    check = check_benchmark("eurosat", root, fast=True)
    assert not check.missing
    assert any("not CoOp's" in line and "drive.google.com" in line for line in check.wrong)


def test_other_numbers_than_the_records(small):
    check = check_benchmark("eurosat", small(classes=3, sizes={"train": 9, "val": 4, "test": 8}))
    assert "2 classes; EuroSAT has 3." in check.wrong
    assert "12 pictures in train; EuroSAT has 9." in check.wrong


def test_pictures_that_no_split_uses(small, put):
    root = small(has_unused=True)
    put("eurosat/2750/Forest/extra.jpg", "eurosat/2750/Forest/Forest_1.jpg.bak")
    put("eurosat/2750/Forest/.hidden.jpg", "eurosat/2750/__MACOSX/x.jpg", "eurosat/2750/readme")
    (root / "eurosat/2750/Forest/Forest_1.jpg").unlink()
    check = check_benchmark("eurosat", root)
    assert check.renamed == [("2750/Forest/Forest_1.jpg", "2750/Forest/Forest_1.jpg.bak")]
    assert check.unexpected == ["2750/Forest/Forest_1.jpg.bak"]
    assert check.notes[:3] == [
        "1 picture that CoOp's splits do not use.",
        "2 files left out, not pictures by their ending (1 without ending, 1 .bak).",
        "Left out: '2750/__MACOSX' (of the system); '2750/Forest/.hidden.jpg' (hidden).",
    ]


@pytest.mark.parametrize("left_out", [(), ("2750/extra",)])
def test_folders_that_coop_leaves_out(small, put, left_out):
    root = small(left_out=left_out)
    put("eurosat/2750/extra/1.jpg")
    check = check_benchmark("eurosat", root, fast=True)
    assert check.ok == bool(left_out)
    assert check.unexpected == ([] if left_out else ["2750/extra/1.jpg"])


def test_a_name_in_another_unicode_form(small, put, monkeypatch):
    root = small()
    path = root / "eurosat/split_zhou_EuroSAT.json"
    rows = json.loads(path.read_text())
    rows["train"].append(["Forest/caf\u00e9.jpg", 1, "Forest"])
    path.write_text(json.dumps(rows))
    put("eurosat/2750/Forest/cafe\u0301.jpg")
    check = check_benchmark("eurosat", root, fast=True)
    assert check.renamed == [("2750/Forest/caf\u00e9.jpg", "2750/Forest/cafe\u0301.jpg")]


def test_a_circle_of_links_ends(small):
    root = small()
    (root / "eurosat/2750/Forest/again").symlink_to(root / "eurosat/2750/Forest")
    assert check_benchmark("eurosat", root, fast=True).ok


def test_counts_by_class_where_there_are_no_lists(put, monkeypatch):
    record = replace(
        get_benchmark("imagenet"),
        classes=2,
        sizes={"train": 3, "val": 0, "test": 4},
        per_class={"test": 2},
    )
    monkeypatch.setattr(module, "get_benchmark", lambda name: record)
    inner = "imagenet/images"
    train = [f"{inner}/train/{w}/{i}.png" for w, i in (("n1", 1), ("n1", 2), ("n2", 1))]
    root = put(*train, *(f"{inner}/val/{w}/{i}.png" for w in ("n1", "n2") for i in "12"))
    (root / "imagenet/classnames.txt").write_text("n1 ape\nn2 bee\nn3 cow\n")
    assert check_benchmark("imagenet", root).ok
    (root / f"{inner}/val/n2/1.png").unlink()
    check = check_benchmark("imagenet", root)
    assert check.wrong == [
        "3 pictures in test; ImageNet has 4.",
        "1 of 2 pictures of 'bee' in test.",
    ]
    (root / f"{inner}/train/n2/1.png").unlink()
    (root / f"{inner}/train/n2").rmdir()
    assert "images/train/n2/ is missing." in check_benchmark("imagenet", root).wrong


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="clip-adapter data get eurosat"):
        check_benchmark("eurosat", tmp_path)


@pytest.mark.slow
@pytest.mark.shared
def test_eurosat_as_it_is(shared, tmp_path):
    with tarfile.open(shared / "images/eurosat.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    check = check_benchmark("eurosat", tmp_path, fast=True)
    assert check.ok, check.to_dict()
    assert check.files == 27_000
    assert check.sizes == {"train": 13_500, "val": 5400, "test": 8100}
    pictures = tmp_path / "eurosat/2750"
    (pictures / "River/River_7.jpg").unlink()
    (pictures / "Forest/Forest_10.jpg").rename(pictures / "Forest/woods.jpg")
    whole = (pictures / "Pasture/Pasture_5.jpg").read_bytes()
    (pictures / "Pasture/Pasture_5.jpg").write_bytes(whole[: len(whole) // 2])
    check = check_benchmark("eurosat", tmp_path)
    assert sorted(check.missing) == ["2750/Forest/Forest_10.jpg", "2750/River/River_7.jpg"]
    assert check.unexpected == ["2750/Forest/woods.jpg"]
    assert check.renamed == [("2750/Forest/Forest_10.jpg", "2750/Forest/woods.jpg")]
    assert [file for file, _ in check.unreadable] == ["2750/Pasture/Pasture_5.jpg"]
    assert not check.ok
    assert check.decoded == 27_000 - 3
