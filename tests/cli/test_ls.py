import re

import pytest


def test_methods(run_json, run):
    rows = {row["name"]: row for row in run_json("ls", "methods", "--json")}
    assert {"clip-adapter", "zero-shot", "linear-probe"} <= set(rows)
    assert rows["clip-adapter"]["options"]["visual_ratio"] == "auto"
    shown = run("ls", "methods").stdout
    for name, row in rows.items():
        assert name in shown
        for key, default in row["options"].items():
            assert f"{key}={default}" in shown
    assert len(re.findall(r"reads: \w+, text weights", shown)) == sum(
        row["needs_text"] for row in rows.values()
    )


@pytest.fixture
def quick(monkeypatch):
    """Nothing is really measured; the architectures that were asked for."""
    asked = []

    def rate(row, device, dtype):
        asked.append(row.arch)
        return 1234.5 if row.arch == "RN50" else 67.8

    monkeypatch.setattr("clip_adapter.backbones.rates._rate", rate)
    return asked


def test_backbones(run_json, run):
    rows = {row["name"]: row for row in run_json("ls", "backbones", "--json")}
    assert {"demo", "RN50/openai", "ViT-B-32/openai", "ViT-B-16/openai"} <= set(rows)
    best = rows["ViT-B-32/datacomp_xl_s13b_b90k"]
    assert best["recommended"]
    assert (best["imagenet"], best["mean_38"], best["licence"]) == (69.17, 57.95, "mit")
    assert (best["parameters"], best["multiply_adds"]) == (151_300_000, 4_410_000_000)
    assert best["source"].endswith("/docs/openclip_results.csv")
    assert rows["ViT-B-16/dfn2b"]["commercial_use"] is False
    assert rows["ViT-B-16-SigLIP/webli"]["extra"] == "siglip"
    assert rows["ViT-B-32-SigLIP2-256/webli"]["mean_38"] is None
    assert {row["pictures_per_second"] for row in rows.values()} == {None}
    assert rows["demo"]["licence"] is None
    shown = run("ls", "backbones").stdout
    for name in rows:
        assert name in shown  # whole, to be copied
    assert re.search(r"ViT-B-32/openai +│ +63.3 │ +52.5 │ +151 │ +4.4 │ +│ apache-2.0 ", shown)
    assert re.search(r"EVA02-L-14/merged2b_s4b_b131k .+ unknown ", shown)


def test_every_backbone(run_json):
    few = [row["name"] for row in run_json("ls", "backbones", "--json")]
    every = [row["name"] for row in run_json("ls", "backbones", "--all", "--json")]
    assert every[: len(few)] == few
    assert {"RN101/openai", "RN50/yfcc15m"} <= set(every) - set(few)
    assert len(every) == len(set(every))


def test_measured_backbones(run_json, run, quick):
    rows = run_json("ls", "backbones", "--measure", "--device", "cpu", "--json")
    rates = {row["name"]: row["pictures_per_second"] for row in rows}
    assert (rates["demo"], rates["RN50/openai"], rates["ViT-B-32/openai"]) == (None, 1234.5, 67.8)
    assert len(quick) == len(set(quick)) > 10
    shown = run("ls", "backbones", "--measure").stdout  # kept: nothing is measured again
    assert re.search(r"RN50/openai .+ 1,234.5 ", shown)
    assert len(quick) == len(set(quick))
    others = run_json("ls", "backbones", "--dtype", "bfloat16", "--json")
    assert {row["pictures_per_second"] for row in others} == {None}


@pytest.mark.parametrize("option", ["--all", "--measure"])
def test_options_of_backbones_alone(run, option):
    result = run("ls", "methods", option)
    assert result.exit_code == 2
    assert "change nothing for methods" in result.stderr


@pytest.mark.parametrize("name", ["imagenet-ensemble", "eurosat"])
def test_templates(run_json, run, name):
    rows = {row["name"]: row["templates"] for row in run_json("ls", "templates", "--json")}
    shown = run("ls", "templates").stdout
    for template in rows[name]:
        assert template in shown
