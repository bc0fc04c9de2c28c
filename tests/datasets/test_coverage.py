"""What there is to learn from, through the public door."""

import re
import shutil
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import clip_adapter
from clip_adapter.datasets.coverage import coverage
from clip_adapter.errors import DataError

PICTURES = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", *"abcdefgh"])), max_size=30)


@given(PICTURES)
def test_each_content_is_learned_from_once_and_under_one_label(pictures):
    labels, digests = [y for y, _ in pictures], [d for _, d in pictures]
    labels_of = {d: {y for y, e in pictures if e == d} for d in digests if d}
    once = [d for d, own in labels_of.items() if len(own) == 1]
    unknown = digests.count("")
    if pictures and not once and not unknown:
        with pytest.raises(DataError, match="two labels or more"):
            coverage(labels, digests)
        return
    rows, notes, conflicting, _ = coverage(labels, digests)
    assert rows == sorted(rows)
    assert sorted(d for i in rows if (d := digests[i])) == sorted(once)
    assert sum(digests[i] == "" for i in rows) == unknown
    assert {*conflicting} == {d for d, own in labels_of.items() if len(own) > 1}
    assert bool(notes) == (len(rows) < len(labels))


def test_without_digests_all_pictures_differ():
    assert coverage([0, 0, 1], []) == ([0, 1, 2], [], [], "")


@pytest.fixture
def features(tmp_path):
    """Writes a feature file of rows (label, number of the picture)."""

    def write(name, pictures):
        generator = torch.Generator().manual_seed(0)
        known = torch.randn(20, 8, generator=generator)
        path = tmp_path / f"{name}.safetensors"
        tensors = {
            "train.features": torch.stack([known[i] for _, i in pictures]),
            "train.labels": torch.tensor([y for y, _ in pictures]),
            "text": torch.randn(3, 8, generator=generator),
        }
        save_file(tensors, path, {"classes": '["a", "b", "c"]'})
        return f"{path}#train"

    return write


@pytest.fixture
def lines(caplog, recwarn):
    """What the user has heard so far: lines and warnings."""
    caplog.set_level("INFO")
    warnings.simplefilter("always", UserWarning)
    return lambda: "\n".join([*caplog.messages, *(str(one.message) for one in recwarn)])


@pytest.mark.parametrize("method", ["auto", "gda"])
def test_copies_change_nothing(features, method, lines):
    plain = [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6)]
    copied = [*plain, *[(0, 1)] * 5, (2, 6)]
    torn = [*plain, (1, 9), (2, 9), (0, 9)]
    wanted = clip_adapter.fit(features("plain", plain), method=method)
    probe = torch.randn(9, 8, generator=torch.Generator().manual_seed(1))
    for name, pictures in {"copied": copied, "torn": torn}.items():
        classifier = clip_adapter.fit(features(name, pictures), method=method)
        assert classifier.info["train_pictures"] == len(plain)
        assert torch.equal(classifier.logits(probe), wanted.logits(probe))
    assert "6 exact copies count no second time." in lines()
    assert "3 training pictures are left out" in lines()


def test_pictures_that_all_lie_under_two_labels_are_refused(features):
    both = features("both", [(y, i) for y in (0, 1) for i in range(3)])
    with pytest.raises(DataError, match="All 6 training pictures lie under two labels"):
        clip_adapter.fit(both)


@pytest.mark.parametrize("method", ["auto", "fine-tune"])
def test_copies_in_a_folder_are_told(uneven, make_folder, tmp_path, method, lines):
    folder, options = shutil.copytree(uneven / "train", tmp_path / "pictures"), {}
    shutil.copy(folder / "red" / "0.png", folder / "red" / "copy.png")
    shutil.copy(folder / "red" / "1.png", folder / "blue" / "other.png")
    if method == "fine-tune":
        options = {"epochs": 1}
    backbone = str(make_folder())
    classifier = clip_adapter.fit(str(folder), method=method, options=options, backbone=backbone)
    # Of 2 + 3 + 4 and two more: the copy counts once, and what is red and blue is neither.
    assert classifier.info["train_pictures"] == 8
    assert "2 training pictures are left out: also there under another label." in lines()
    assert "1 exact copy counts no second time." in lines()


@pytest.mark.parametrize("method", ["auto"])
def test_a_class_that_loses_all_of_its_pictures_is_named(
    uneven, make_folder, tmp_path, method, lines
):
    folder = shutil.copytree(uneven / "train", tmp_path / "pictures")
    (folder / "grey").mkdir()
    shutil.copy(folder / "red" / "0.png", folder / "grey" / "same.png")
    clip_adapter.fit(str(folder), method=method, backbone=str(make_folder()))
    assert re.search("no training picture.*'grey'|'grey'.*no training picture", lines())
