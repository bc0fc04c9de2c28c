"""Views of a feature set: those to learn from, and the one to score on."""

import pytest
import torch

from clip_adapter.errors import DataError
from clip_adapter.features import feature_set as module
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features, write_features

N, D, VIEWS = 5, 3, 2


def make(**changes):
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(VIEWS, N, D, generator=generator)
    given = {"plain": torch.randn(N, D, generator=generator)} | changes
    return FeatureSet(views, torch.arange(N) % 2, ["a", "b"], **given)


def test_the_plain_view_is_scored_where_it_is_known():
    one = make()
    assert torch.equal(one.plain_view, one.plain)
    assert one.features.shape == (VIEWS, N, D)
    assert torch.equal(make(plain=None).plain_view, one.features[0])


def test_it_goes_with_the_rows():
    one = make()
    rows = [4, 0]
    assert torch.equal(one.subset(rows).plain, one.plain[rows])
    assert make(plain=None).subset(rows).plain is None


def test_it_has_the_length_of_the_others():
    unit = make(feature_norm="unit")
    torch.testing.assert_close(unit.plain_view.norm(dim=-1), torch.ones(N))


@pytest.mark.parametrize(
    ("plain", "match"),
    [
        (torch.ones(N - 1, D), r"\(N, D\)"),
        (torch.ones(1, N, D), r"\(N, D\)"),
        (torch.full((N, D), float("nan")), "NaN"),
    ],
)
def test_a_plain_view_that_does_not_fit(plain, match):
    with pytest.raises(DataError, match=match):
        make(plain=plain)


def test_feature_files_keep_the_views_to_learn_from(tmp_path):
    one = make()
    path = tmp_path / "features.safetensors"
    write_features(path, {"train": one})
    back = load_features(f"{path}#train").feature_set
    assert torch.equal(back.features, one.features)
    assert back.plain is None
    assert torch.equal(back.plain_view, one.features[0])


@pytest.mark.parametrize("rows", [0, 1, 4, 5])
def test_parts_are_the_rows_in_order(monkeypatch, rows):
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    names = [str(i) for i in range(rows)]
    whole = FeatureSet(torch.randn(rows, 3), torch.zeros(rows), ["a"], names)
    parts = list(whole.parts())
    assert [len(part) for part in parts] == ([2] * (rows // 2) + [1] * (rows % 2) or [0])
    assert torch.equal(torch.cat([part.plain_view for part in parts]), whole.plain_view)
    assert [name for part in parts for name in part.names] == names


def test_a_row_that_is_no_number_is_found_in_any_part(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    rows = torch.zeros(5, 3)
    rows[4, 1] = torch.inf
    with pytest.raises(DataError, match="NaN or infinite"):
        FeatureSet(rows, torch.zeros(5), ["a"])


def test_sets_of_one_memory_are_written(tmp_path):
    rows, path = torch.randn(4, 3), tmp_path / "two.safetensors"
    one = FeatureSet(rows, torch.zeros(4), ["a"])
    write_features(path, {"one": one, "two": FeatureSet(rows[1:], one.labels[1:], ["a"])})
    assert torch.equal(load_features(f"{path}#one").feature_set.plain_view, rows)
    assert torch.equal(load_features(f"{path}#two").feature_set.plain_view, rows[1:])
