"""Numbers of code that was edited since, and deviations of what was never redrawn."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from clip_adapter.bench.benchmark import run_bench
from clip_adapter.bench.frame import Findings
from clip_adapter.bench.page import write_page
from clip_adapter.bench.plan import load_plans, make_plan
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.features.files import load_features, write_features
from clip_adapter.methods import base


def call(recipe, environment):
    return run_bench([recipe], profile="features", environment=environment, jobs=1)


METHOD = """
from dataclasses import dataclass

import torch
from clip_adapter.methods.base import Fitted, Head, Method, register
from theirs.sums import sums


@register
@dataclass
class Means(Method):
    name = "theirs"
    summary = "class means"
    citation = "arXiv 0000.00000"
    trains = "nothing"

    def fit(self, task):
        return Fitted(Head(sums(task), logit_scale=task.logit_scale))
"""
SUMS = """
import torch


def sums(task):
    features, labels = task.train.features[0], task.train.labels
    means = torch.zeros(len(task.class_names), features.shape[1])
    return SIGN * means.index_add(0, labels, features)
"""


def test_edited_code_of_another_package_is_run_anew(
    recipe, environment, inside, tmp_path, monkeypatch
):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    package = tmp_path / "packages" / "theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "means.py").write_text(METHOD)
    path = recipe(('method = "linear-probe"\noptions = { C = 1.0 }', 'method = "theirs"'))

    def run(sign):
        """As a new process sees the file."""
        (package / "sums.py").write_text(SUMS.replace("SIGN", sign))
        for name in [n for n in sys.modules if n.split(".")[0] == "theirs"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        importlib.import_module("theirs.means")
        outcome = call(path, environment)
        cells = Findings(load_plans(Path(environment.out))[0], outcome.results).cells
        return outcome, cells[cells.label == "probe"].value.min()

    first, right = run("1")
    again, _ = run("1")
    edited, wrong = run("-1")
    assert (first.done, again.done, edited.done) == (14, 0, 4)
    assert wrong < 25 < right
    back, once_more = run("1")
    assert (back.done, once_more) == (0, right)


def test_edited_code_of_a_backbone_is_another_run(recipe, tmp_path, monkeypatch):
    (tmp_path / "nets-1.dist-info").mkdir()
    (tmp_path / "nets-1.dist-info" / "METADATA").write_text("Name: nets\nVersion: 1\n")
    entry = "[clip_adapter.backbones]\ntheir-net = nets:make\n"
    (tmp_path / "nets-1.dist-info" / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))

    def keys(backbone, code):
        (tmp_path / "nets.py").write_text(code)
        loaded = load_recipe(recipe(), "mine", {"backbones": [backbone], "datasets": ["pets"]})
        return make_plan(loaded).runs().keys()

    # The package is not imported for this, or it would fail.
    first = keys("their-net", "raise SystemExit(1)")
    assert first == keys("their-net", "raise SystemExit(1)")
    assert not first & keys("their-net", "raise SystemExit(2)")
    assert keys("demo", "1") == keys("demo", "2")


def test_shots_that_were_never_redrawn_have_no_deviation(recipe, environment, inside):
    outcome = call(recipe(), environment)
    out = Path(environment.out)
    write_page(outcome.plans, outcome.results, out)
    page = (out / "TABLES.md").read_text("utf-8")
    [csv], [tex] = out.rglob("tables/*/*.csv"), out.rglob("tables/*/*.tex")
    # The probe is the same on the same shots; the adapters begin at random.
    assert "where all seeds had the same shots" in page
    assert "where all seeds had the same shots" in tex.read_text("utf-8")
    assert page.count("± is the spread of the method's own randomness, not of draws.") == 1
    probe = next(row for row in page.splitlines() if row.startswith("| probe"))
    assert "±" not in probe
    assert "± 0.00" not in page
    assert r"$\pm$ 0.00" not in tex.read_text("utf-8")
    rows = pd.read_csv(csv)
    own = rows[rows.system == "probe"].filter(like="deviation")
    assert own.shape[1] == 2
    assert own.isna().all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize(("shots", "drawn"), [(2, True), (4, False)])
def test_seeds_that_draw_all_there_is_are_the_same_again(
    shots, drawn, recipe, environment, inside, tmp_path
):
    for name in ("toys", "others"):
        given = Path(environment.features, f"{name}.safetensors")
        whole, test = (load_features(f"{given}#{one}") for one in ("train_4shot", "test"))
        sets = {"train": whole.feature_set, "test": test.feature_set}
        write_features(tmp_path / f"{name}.safetensors", sets, whole.text)
    own = dataclasses.replace(environment, features=str(tmp_path))
    outcome = call(recipe(("shots = [2]", f"shots = [{shots}]")), own)
    cells = Findings(outcome.plans[0], outcome.results).cells
    assert cells[cells.label == "probe"].repeated.eq(not drawn).all()
    write_page(outcome.plans, outcome.results, tmp_path / "out")
    assert ("own randomness" in (tmp_path / "out/TABLES.md").read_text("utf-8")) is not drawn
