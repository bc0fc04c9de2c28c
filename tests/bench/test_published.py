"""Published numbers are read as they were printed, or refused with the file that is wrong."""

import shutil

import pytest

from clip_adapter.bench.frame import FEW_SHOT, TABLES, load_published, paper_backbone
from clip_adapter.bench.recipe import load_recipe, shipped
from clip_adapter.datasets.catalog import benchmark_names
from clip_adapter.errors import DataError

ELEVEN = list(load_recipe("figure3").datasets)
UNITS = {
    *[("top1", "%"), ("train_time", "min"), ("inference", "ms"), ("parameters", "M")],
    *[("memory", "MiB"), ("memory", "GiB")],
}


def rows(**where):
    published = load_published()
    for name, value in where.items():
        published = published[published[name] == value]
    return published


def accuracies(**where):
    return rows(table=0, **where).drop_duplicates("dataset").set_index("dataset").value


# Means of the 16-shot accuracies that the sources state.
@pytest.mark.parametrize(
    ("row", "shots", "mean"),
    [
        ("zero-shot", 0, 58.89),
        ("CoOp", 16, 73.45),
        ("CLIP-Adapter", 16, 74.44),
        ("Tip-Adapter-F", 16, 75.83),
        ("GDA", 16, 76.05),
        ("APE-T", 16, 77.28),
    ],
)
def test_means_over_the_eleven_sets(row, shots, mean):
    right = accuracies(row=row, shots=shots, backbone="RN50", style="clip")
    assert right[ELEVEN].mean() == pytest.approx(mean, abs=0.006)


def test_every_number_is_one_that_can_be():
    published = load_published()
    assert published.value.between(0, published.unit.map({"%": 100}).fillna(1e6)).all()
    assert set(zip(published.metric, published.unit, strict=True)) == UNITS
    assert set(published["style"]) == {"clip", "coop"}
    assert set(published.dataset) <= {*benchmark_names(), "avg"}
    assert set(published.table) == {0, 1, 2, 4, 5, 6, 7, 8, 9, 10}


def test_the_two_kinds_of_preprocessing_are_kept_apart():
    zero = rows(row="zero-shot", dataset="imagenet", backbone="RN50")
    zero = zero.drop_duplicates("style").set_index("style")
    assert (zero.value["coop"], zero.digitised["coop"]) == (55.4, True)
    assert (zero.value["clip"], zero.digitised["clip"]) == (60.32, False)
    assert rows(table=0, row="linear-probe", dataset="dtd", style="clip").empty


def test_tables_tell_where_the_paper_contradicts_itself():
    [zero] = rows(table=6, row="0", dataset="imagenet").itertuples()
    assert zero.value == 60.46
    assert "CoOp" in zero.note
    [ten] = rows(table=2, row="10", metric="top1").itertuples()
    assert ten.value == 71.85
    assert "best" in ten.note


def test_what_one_number_says_twice_agrees():
    """The adapter of RN50 on ImageNet at 16 shots is in six tables."""
    published = rows(dataset="imagenet", backbone="RN50", metric="top1")
    adapter = published.row.isin(["CLIP-Adapter", "Adapter", "Hard", "D/4"])
    ratio = (published.table == 6) & (published.row == "0.2")
    assert set(published[(published.table > 0) & (adapter | ratio)].value) == {61.33}


@pytest.mark.shared
def test_the_copy_is_the_whole_file(shared):
    theirs = shared / "published" / FEW_SHOT
    assert (shipped("published") / FEW_SHOT).read_text() == theirs.read_text()


@pytest.mark.shared
def test_tables_hold_the_numbers_of_the_paper(shared):
    """Each row of accuracies of the paper's text is one of ours, in order."""
    text = " ".join((shared / "paper" / "paper.txt").read_text().split())

    def values(table, dataset="imagenet", metric="top1", **where):
        own = rows(table=table, dataset=dataset, metric=metric, **where)
        return " ".join(map("{:.2f}".format, own.value))

    lines = [values(2), values(2, metric="memory"), values(2, metric="parameters"), values(4)]
    lines += [values(n, d) for n in (5, 6) for d in ("dtd", "imagenet")] + [values(7)]
    lines += [values(8, d, row=r) for d in ("dtd", "imagenet") for r in ("CoOp", "CLIP-Adapter")]
    shifted = rows(table=9).groupby("row", sort=False).value
    lines += [" ".join(map("{:.2f}".format, own)) for _, own in shifted]
    assert [line for line in lines if line not in text] == []
    assert len(lines) == 17
    for value in values(10).split():
        assert f"{value}%" in text


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (TABLES, "61.33", "61;33"),
        (TABLES, "table,row", "tabel,row"),
        (FEW_SHOT, "60.32", "sixty"),
        (FEW_SHOT, "dataset,method", "dataset"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, file, old, new):
    folder = tmp_path / "published"
    shutil.copytree(shipped("published"), folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=rf"{file} cannot be read"):
        load_published(folder)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"tables\.csv cannot be read"):
        load_published(tmp_path)


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("ViT-B-16/openai", "ViT-B/16"),
        ("RN50/openai", "RN50"),
        ("ViT-B-16/random", "ViT-B-16/random"),
        ("demo", "demo"),
    ],
)
def test_names_of_backbones(name, paper):
    assert paper_backbone(name) == paper
