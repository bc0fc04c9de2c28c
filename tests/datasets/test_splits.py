"""The sampler makes CoOp's own lists, and keeps its promises on any labels."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.datasets.splits import draw, sample_few_shot
from clip_adapter.errors import UsageError

SPLITS = Path(__file__).parents[3] / "shared" / "splits"
SETS = {
    "caltech101": "Caltech101",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "oxford_flowers": "OxfordFlowers",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "ucf101": "UCF101",
}
# The image folder that the lists carry and the split files do not.
FOLDERS = {
    "caltech101": "101_ObjectCategories/",
    "dtd": "images/",
    "eurosat": "2750/",
    "oxford_flowers": "jpg/",
    "oxford_pets": "images/",
    "stanford_cars": "",
    "ucf101": "UCF-101-midframes/",
}
# Lists of "path label 1" lines in the same order, with a folder that CoOp's draws do not have. Of
# SUN397, the tenth set with known draws, there is no list of all pictures.
LINES = {
    "fgvc_aircraft": ("swat_fgvc", "fgvc-aircraft-2013b/data/"),
    "food101": ("swat_food101", ""),
}

labels_lists = st.lists(st.integers(0, 6), max_size=60)


def listed_pictures(name, split):
    """Path, as CoOp's draws have it, and label of every picture of a set's split."""
    if name in SETS:
        rows = json.loads((SPLITS / f"split_zhou_{SETS[name]}.json").read_bytes())[split]
        return [(FOLDERS[name] + path, label) for path, label, _ in rows]
    file, folder = LINES[name]
    lines = (SPLITS / f"{file}_{split}.txt").read_text().splitlines()
    rows = [line.rsplit(" ", 2) for line in lines]
    return [(path.removeprefix(folder), int(label)) for path, label, _ in rows]


@pytest.mark.shared
@pytest.mark.parametrize("name", [*SETS, *LINES])
def test_fifteen_draws_of_coop_file_by_file(name):
    if not SPLITS.exists():
        pytest.skip("no ../shared here")
    golden = json.loads(gzip.decompress((SPLITS / "coop_fewshot_seeds.json.gz").read_bytes()))
    pictures = listed_pictures(name, "train")
    draws = 0
    for shots in (1, 2, 4, 8, 16):
        for seed in (1, 2, 3):
            drawn = sample_few_shot([label for _, label in pictures], shots, seed)
            expected = golden[name][f"shot_{shots}-seed_{seed}"]["train"]
            assert [pictures[i][0] for i in drawn] == expected, (shots, seed)
            draws += 1
    assert draws == 15


@given(labels_lists, st.integers(1, 9), st.integers(0, 10**9))
def test_each_class_gets_its_shots(labels, shots, seed):
    drawn = sample_few_shot(labels, shots, seed)
    assert len(set(drawn)) == len(drawn)
    counts = Counter(labels[i] for i in drawn)
    assert counts == {c: min(n, shots) for c, n in Counter(labels).items()}
    order = list(dict.fromkeys(labels))
    assert [labels[i] for i in drawn] == sorted((labels[i] for i in drawn), key=order.index)


@given(labels_lists, st.integers(1, 5), st.integers(0, 99), st.randoms())
def test_draws_depend_on_the_seed_alone(train, shots, seed, noise):
    first = sample_few_shot(train, shots=shots, seed=seed)
    random.seed(noise.random())
    before = random.getstate()
    assert sample_few_shot(train, shots=shots, seed=seed) == first
    assert random.getstate() == before


def test_seeds_differ():
    labels = [0] * 50 + [1] * 50
    draws = {tuple(sample_few_shot(labels, shots=4, seed=seed)) for seed in range(20)}
    assert len(draws) == 20


def test_a_small_class_keeps_all_its_pictures_in_order():
    assert sample_few_shot([5, 5, 5, 2], shots=4, seed=3) == [0, 1, 2, 3]


@pytest.mark.parametrize("shots", [0, -1, 1.5, True, "4"])
def test_shots_below_one_are_refused(shots):
    with pytest.raises(UsageError, match="at least 1"):
        sample_few_shot([0], shots=shots)


def test_negative_seed_is_refused():
    with pytest.raises(UsageError, match="Seed -1"):
        sample_few_shot([0], shots=1, seed=-1)


@pytest.mark.parametrize(("hold_out", "most"), [(None, 4), (1, 3)])
def test_more_shots_than_any_class_has_are_told(hold_out, most, caplog):
    labels = [0, 1] * 4
    with caplog.at_level("WARNING", "clip_adapter"):
        draw(labels, most, 1, hold_out)
        assert not caplog.records
        draw(labels, 8, 1, hold_out)
    assert f"8 shots are asked for, and no class has more than {most}." in caplog.text


def test_a_float_that_is_held_out_is_a_share():
    assert len(draw([0, 1] * 4, None, 1, 1)[1]) == 2
    with pytest.raises(UsageError, match=r"hold-out 1\.0"):
        draw([0, 1] * 4, None, 1, 1.0)
