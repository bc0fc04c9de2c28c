"""The numbered scripts run as a reader would run them, on a small task."""

import runpy
import sys
import types
from pathlib import Path

import pytest

from clip_adapter.methods import base

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


# It compares five methods in thirty fits; by default it runs at one number of shots, on two draws.
LONG = "02_compare_methods"


@pytest.mark.parametrize(
    "script",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem == LONG), id=p.stem) for p in SCRIPTS],
)
def test_it_runs(script, task_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.name, "photos", "demo"])
    # What a script registers is gone when it ends; the built-in ones are there before.
    assert base.method_names()
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_the_long_one_in_short(task_folder, monkeypatch, capsys):
    module = types.ModuleType(LONG)
    exec((ROOT / f"examples/{LONG}.py").read_text("utf-8"), vars(module))
    monkeypatch.setattr(module, "SHOTS", (1,))
    monkeypatch.setattr(module, "SEEDS", (1, 2))
    module.main("photos", "demo")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["method", *module.METHODS]
    assert all("±" in line for line in lines[1:])


def test_all_are_numbered_and_listed():
    listing = (ROOT / "examples/README.md").read_text("utf-8")
    numbers = [f"{i:02d}" for i in range(1, len(SCRIPTS) + 1)]
    assert [script.name[:2] for script in SCRIPTS] == numbers
    assert all(f"]({script.name})" in listing for script in SCRIPTS)
