"""Published numbers are read as they were printed, or refused with the line that is wrong."""

import shutil
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.bench.published import (
    FEW_SHOT,
    TABLES,
    load_published,
    paper_backbone,
)
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.bench.shipped import shipped
from clip_adapter.errors import DataError

ELEVEN = load_recipe("figure3").datasets


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "published"
    shutil.copytree(shipped("published"), folder)
    return folder


# Means of the 16-shot accuracies that the sources state.
@pytest.mark.parametrize(
    ("method", "mean"),
    [
        ("zero-shot", 58.89),
        ("CoOp", 73.45),
        ("CLIP-Adapter", 74.44),
        ("Tip-Adapter-F", 75.83),
        ("GDA", 76.05),
        ("APE-T", 77.28),
    ],
)
def test_means_over_the_eleven_sets(method, mean):
    published = load_published()
    found = [published.accuracy(method, d, "RN50/openai", "clip", 16) for d in ELEVEN]
    assert statistics.fmean(f.accuracy for f in found) == pytest.approx(mean, abs=0.006)


def test_the_two_kinds_of_preprocessing_are_kept_apart():
    published = load_published()
    coop = published.accuracy("zero-shot", "imagenet", "RN50", "coop", 16)
    clip = published.accuracy("zero-shot", "imagenet", "RN50", "clip", 16)
    assert (coop.accuracy, coop.digitised) == (55.4, True)
    assert (clip.accuracy, clip.digitised) == (60.32, False)
    assert published.accuracy("linear-probe", "dtd", "RN50", "clip", 16) is None


def test_tables_tell_where_the_paper_contradicts_itself():
    published = load_published()
    (zero,) = [f for f in published.table(6) if f.row == "0" and f.dataset == "imagenet"]
    assert zero.value == 60.46
    assert "CoOp" in zero.note
    ten = [f for f in published.table(2) if f.row == "10" and f.metric == "top1"]
    assert ten[0].value == 71.85
    assert "best" in ten[0].note
    assert {f.table for f in published.tables} == {1, 2, 4, 5, 6, 7, 8, 9, 10}


def test_what_one_number_says_twice_agrees():
    """The adapter of RN50 on ImageNet at 16 shots is in six tables."""
    found = {
        f.value
        for f in load_published().tables
        if (f.dataset, f.backbone, f.metric) == ("imagenet", "RN50", "top1")
        and (f.row in ("CLIP-Adapter", "Adapter", "Hard", "D/4") or (f.table, f.row) == (6, "0.2"))
    }
    assert found == {61.33}


@pytest.mark.shared
def test_the_copy_is_the_whole_file(shared):
    theirs = shared / "published" / FEW_SHOT
    assert (shipped("published") / FEW_SHOT).read_text() == theirs.read_text()


@pytest.mark.shared
def test_tables_hold_the_numbers_of_the_paper(shared):
    """Each row of accuracies of the paper's text is one of ours, in order."""
    text = " ".join((shared / "paper" / "paper.txt").read_text().split())
    published = load_published()

    def values(number, dataset="imagenet", metric="top1", **where):
        return " ".join(
            f"{f.value:.2f}"
            for f in published.table(number)
            if f.dataset == dataset and f.metric == metric
            and all(getattr(f, k) == v for k, v in where.items())
        )  # fmt: skip

    lines = [values(2), values(2, metric="memory"), values(2, metric="parameters"), values(4)]
    lines += [values(n, d) for n in (5, 6) for d in ("dtd", "imagenet")] + [values(7)]
    lines += [values(8, d, row=r) for d in ("dtd", "imagenet") for r in ("CoOp", "CLIP-Adapter")]
    shifted = published.table(9)
    for row in dict.fromkeys(f.row for f in shifted):
        lines.append(" ".join(f"{f.value:.2f}" for f in shifted if f.row == row))
    missing = [line for line in lines if line not in text]
    assert not missing
    assert len(lines) == 17
    for value in values(10).split():
        assert f"{value}%" in text


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (TABLES, "61.33", "61,33", "line"),
        (TABLES, "61.33", "161.33", "0 to 100"),
        (TABLES, "61.33", "nan", "value = nan"),
        (TABLES, "55.41,%", "55.41,km", "km"),
        (TABLES, "table,row", "tabel,row", "columns"),
        (TABLES, "RN50,coop", "RN50,loose", "loose"),
        (FEW_SHOT, "60.32", "sixty", "acc = 'sixty'"),
        (FEW_SHOT, "RN50,clip-style", "RN50,none", "none"),
        (FEW_SHOT, "clip-style,imagenet", "clip-style,imagenot", "imagenot"),
        (FEW_SHOT, "zero-shot,0,60.32", "zero-shot,-1,60.32", "-1"),
    ],
)
def test_a_damaged_file_is_told(copy, file, old, new, told):
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as error:
        load_published(copy)
    assert told in str(error.value)
    assert file in str(error.value)


def test_a_missing_file_is_told(copy):
    (copy / FEW_SHOT).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_published(copy)


@given(st.sampled_from(["B", "L", "H"]), st.integers(1, 32))
def test_names_of_backbones(size, patch):
    assert paper_backbone(f"ViT-{size}-{patch}/openai") == f"ViT-{size}/{patch}"
    assert paper_backbone(f"ViT-{size}-{patch}/random") == f"ViT-{size}-{patch}/random"


@given(st.text(max_size=20))
def test_any_other_name_stays(name):
    assert paper_backbone(name + "x") == name + "x"
