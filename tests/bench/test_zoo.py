"""``benchmarks/zoo``: tasks that are what they are called, and a report that is honest."""

import json
import runpy
import sys
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

ZOO = Path(__file__).parents[2] / "benchmarks/zoo"
NAMES = ("cells", "draws", "report", "run")
# Named and shaped like one of the sets: 30 classes, 6 shots and 10 test pictures of each.
DATASET, KIND, CLASSES, SHOTS, TEST, D = "caltech101_vitb16", "single", 30, 6, 10, 8


@pytest.fixture
def zoo(monkeypatch):
    """The modules as ``python benchmarks/zoo`` imports them: from their own folder."""
    monkeypatch.syspath_prepend(str(ZOO))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield __import__("types").SimpleNamespace(**{n: __import__(n) for n in NAMES})
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder with one made-up feature file."""
    folder = tmp_path_factory.mktemp("zoo")
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, D, generator=generator)

    def rows(each):
        labels = torch.arange(CLASSES).repeat_interleave(each)
        return centres[labels] + torch.randn(len(labels), D, generator=generator), labels

    tensors = {"text": centres + 0.5 * torch.randn(CLASSES, D, generator=generator)}
    for name, each in (("val", SHOTS), ("test", TEST)):
        tensors[f"{name}.features"], tensors[f"{name}.labels"] = rows(each)
    names = [f"class {i}" for i in range(CLASSES)]
    path = folder / f"{DATASET}.safetensors"
    save_file(tensors, path, {"classes": json.dumps(names)})
    return folder


@pytest.mark.parametrize(
    ("departure", "classes", "want"),
    [
        ("even", 6, [8] * 6),
        ("long-tailed", 4, [8, 4, 2, 1]),
        ("8-to-1", 5, [8, 8, 8, 1, 1]),
        ("three-more", 6, [3, 3, 3, 1, 1, 1]),
        ("three-more", 2, [3, 1]),
        ("one-of-many", 4, [8, 1, 1, 1]),
        ("half-absent", 6, [8, 8, 8, 0, 0, 0]),
        ("wrong-25", 4, [8] * 4),
        ("permuted-text", 4, [8] * 4),
    ],
)
def test_counts_of_a_departure(zoo, departure, classes, want):
    cell = zoo.cells.Cell(DATASET, KIND, classes, 8, departure)
    order = list(range(classes))
    assert cell.counts(classes, order) == want
    counts = cell.counts(classes, order[::-1])  # who has many is drawn
    assert counts == want[::-1]


def test_every_profile_asks_each_cell_once_and_shots_that_there_are(zoo):
    tuned, confirmed = (zoo.cells.profile(n) for n in ("tune", "confirm"))
    for cells in (tuned, confirmed, zoo.cells.profile("small"), zoo.cells.profile("blind")):
        names = [c.name for c in cells]
        assert len(set(names)) == len(names)
        assert all(c.shots <= zoo.cells.SETS[c.dataset, c.kind].most for c in cells)
    # Nothing is ever chosen on what confirms.
    assert {c.dataset for c in confirmed} == set(zoo.cells.CONFIRMING)
    assert not {c.dataset for c in tuned} & {c.dataset for c in confirmed}
    assert {c.departure for c in tuned} == set(zoo.cells.DEPARTURES)
    assert {c.departure for c in confirmed} >= {"even", "wrong-25", *zoo.cells.UNEVEN}
    with pytest.raises(ValueError, match="allowed"):
        zoo.cells.profile("large")


def test_subsets_are_disjoint_and_reach_the_test_pictures(zoo, features):
    for classes, groups in ((5, 6), (10, 3), (23, 1), (0, 1), (40, 1)):
        cell = zoo.cells.Cell(DATASET, KIND, classes, 4)
        parts = zoo.draws.subsets(features, cell)
        assert len(parts) == groups
        together = [c for group in parts for c in group]
        assert len(set(together)) == len(together)
        assert all(len(g) == min(classes or CLASSES, CLASSES) for g in parts)
        pictures = TEST * len(together)
        most = len(parts) == CLASSES // len(parts[0])
        assert pictures >= zoo.cells.TEST_PICTURES or most
        draws = zoo.draws.count_draws(features, cell)
        assert draws >= zoo.cells.DRAWS
        assert draws % groups == 0
    # Shots and departure change the draw and not the classes.
    same = [zoo.cells.Cell(DATASET, KIND, 5, k, d) for k, d in ((1, "even"), (4, "8-to-1"))]
    assert len({repr(zoo.draws.subsets(features, c)) for c in same}) == 1


@pytest.mark.parametrize(
    "departure", ["even", "8-to-1", "half-absent", "wrong-25", "permuted-text"]
)
def test_draws_are_deterministic_and_what_they_are_called(zoo, features, departure):
    cell = zoo.cells.Cell(DATASET, KIND, 10, 4, departure)
    (a, test, rows), (b, _, again) = (zoo.draws.draw(features, cell, 3) for _ in range(2))
    assert torch.equal(a.train.features, b.train.features)
    assert torch.equal(a.train.labels, b.train.labels)
    assert torch.equal(a.text_weights, b.text_weights)
    assert (rows, a.seed) == (again, b.seed)
    other, _, _ = zoo.draws.draw(features, cell, 3 + 3)  # the same classes, other pictures
    assert other.class_names == a.class_names
    assert other.train.digests != a.train.digests
    assert len(test) == len(rows) == 100
    assert not set(a.train.digests) & {f"test-{row}" for row in rows}
    assert len(set(a.train.digests)) == len(a.train)

    tensors, names = zoo.draws._file(features, DATASET)
    place = {name: i for i, name in enumerate(a.class_names)}
    own = [int(d.split("-")[1]) for d in a.train.digests]
    true = torch.tensor([place[names[int(tensors["val.labels"][row])]] for row in own])
    wrong = int((true != a.train.labels).sum())
    assert wrong == (round(0.25 * len(own)) if departure == "wrong-25" else 0)
    numbers = sorted(torch.bincount(true, minlength=10).tolist())
    want = {"8-to-1": [1] * 5 + [4] * 5, "half-absent": [0] * 5 + [4] * 5}
    assert numbers == want.get(departure, [4] * 10)
    x = torch.nn.functional.normalize(tensors["val.features"][own].float(), dim=-1)
    torch.testing.assert_close(a.train.plain_view, x)
    held = [place[names[int(tensors["test.labels"][row])]] for row in rows]
    assert test.labels.tolist() == held
    text = tensors["text"][[names.index(n) for n in a.class_names]]
    text = torch.nn.functional.normalize(text, dim=-1)
    assert torch.allclose(a.text_weights, text) == (departure != "permuted-text")
    order = text @ a.text_weights.T
    assert sorted(order.argmax(1).tolist()) == list(range(10))  # the same texts, of others


def runs_of(cell, hits):
    """What ``load`` gives: a run of every method with these hits."""
    return {
        (cell.name, m): {"hits": {str(i): float(x) for i, x in enumerate(h)}, "seconds": [1, 2, 9]}
        for m, h in hits.items()
    }


def test_gain_and_its_error_are_paired(zoo):
    draw = np.random.default_rng(0)
    a, b = draw.random(50) < 0.8, draw.random(50) < 0.5
    cell = zoo.cells.Cell(DATASET, KIND, 10, 4)
    methods = ["a", "zero-shot"]
    runs = runs_of(cell, {"a": a, "zero-shot": b})
    frame = zoo.report.table(runs, [cell], methods, "zero-shot", "auto").set_index("method")
    d = 100 * (a.astype(float) - b)
    assert frame.gain["a"] == pytest.approx(d.mean())
    assert frame.error["a"] == pytest.approx(d.std(ddof=1) / 50**0.5)
    assert frame.accuracy["a"] == pytest.approx(100 * a.mean())
    assert frame.gain["zero-shot"] == frame.error["zero-shot"] == 0
    assert frame.seconds["a"] == 2


def test_the_rival_in_the_regret_is_found_on_the_other_half(zoo):
    """Rivals that differ by chance alone leave no regret on average, whoever is best by luck."""
    draw = np.random.default_rng(1)
    cell = zoo.cells.Cell(DATASET, KIND, 10, 4)
    methods = ["auto", *(f"rival {i}" for i in range(20)), "zero-shot"]
    regrets, naive = [], []
    for _ in range(60):
        hits = {m: draw.random(100) < 0.7 for m in methods}
        frame = zoo.report.table(runs_of(cell, hits), [cell], methods, "zero-shot", "auto")
        frame = frame.set_index("method")
        regrets.append(frame.regret["auto"])
        naive.append(frame.accuracy.drop("auto").max() - frame.accuracy["auto"])
    assert np.mean(naive) > 6  # the best on the same pictures looks far better
    assert abs(np.mean(regrets)) < 3 * np.std(regrets) / 60**0.5
    # What is better is a regret, and the default is no rival of itself.
    hits = {m: np.zeros(100) for m in methods}
    hits["rival 3"] = np.ones(100)
    frame = zoo.report.table(runs_of(cell, hits), [cell], methods, "zero-shot", "auto")
    regret = frame.set_index("method").regret
    assert regret["auto"] == 100
    assert regret["rival 3"] == 0
    hits["auto"], hits["rival 3"] = np.ones(100), np.zeros(100)
    frame = zoo.report.table(runs_of(cell, hits), [cell], methods, "zero-shot", "auto")
    assert frame.set_index("method").regret["zero-shot"] == 0


def test_a_cell_without_a_run_of_every_method_is_left_out_and_the_summary_counts(zoo):
    cells = [zoo.cells.Cell(DATASET, KIND, 10, k) for k in (1, 2, 4)]
    runs = {}
    for cell, right in zip(cells, (80, 20, 50), strict=True):
        good = np.arange(100) < right
        runs |= runs_of(cell, {"a": good, "zero-shot": np.arange(100) < 50})
    del runs[cells[2].name, "a"]
    methods = ["a", "zero-shot"]
    frame = zoo.report.table(runs, cells, methods, "zero-shot", "auto")
    assert set(frame.cell) == {c.name for c in cells[:2]}
    row = zoo.report.summary(frame).loc["a"]
    assert (row["cells"], row["cells under"], row["under by 1"]) == (2, 1, 1)
    assert row["mean gain"] == pytest.approx(0)
    assert row["worst gain"] == pytest.approx(-30)
    assert row["worst cell"] == cells[1].name


class HerePool:
    """A pool of processes in this one."""

    started: ClassVar[Counter] = Counter()

    def __init__(self, jobs, mp_context=None):
        self.jobs = jobs

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, work, folder, cell, spec):
        HerePool.started[cell.name, spec] += 1
        future = Future()
        try:
            future.set_result(work(folder, cell, spec))
        except Exception as error:
            future.set_exception(error)
        return future


def test_end_to_end_and_resumed(zoo, features, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(zoo.run, "ProcessPoolExecutor", HerePool)
    tiny = [zoo.cells.Cell(DATASET, KIND, 10, k, d) for k, d in ((1, "even"), (4, "half-absent"))]
    monkeypatch.setattr(zoo.cells, "profile", lambda _: tiny)
    specs = ["zero-shot", "gda:gaussian_weight=9", "gda:gaussian_weight=0", "no-such-method"]
    words = ["zoo", "--features", str(features), "--out", str(tmp_path), "--default", specs[1]]
    HerePool.started.clear()

    def once(*methods):
        monkeypatch.setattr(sys, "argv", [*words, "--methods", *methods])
        runpy.run_path(str(ZOO / "__main__.py"), run_name="__main__")
        return capsys.readouterr().out

    report = once(*specs)
    assert sum(HerePool.started.values()) == 8
    assert report.count("FAILED") == 2  # and the others went on
    assert "Unknown method 'no-such-method'" in report
    assert "No cell has a run of every method." in report
    HerePool.started.clear()
    report = once(*specs[:3])
    assert not HerePool.started
    assert "6 runs are there, 0 to go." in report
    for words_told in ("mean gain", "half-absent", "cells under"):
        assert words_told in report
    runs = zoo.report.load(tmp_path, tiny, specs)
    assert len(runs) == 6
    for (name, method), result in runs.items():
        assert (result["cell"], result["method"]) == (name, method)
        assert len(result["hits"]) == 300  # three subsets of ten classes
        assert len(result["seconds"]) == len(result["chosen"]) == 12
    for cell in tiny:
        zero, gda, none = (runs[cell.name, m]["hits"] for m in specs[:3])
        assert none == zero  # options are read
        assert gda != zero
