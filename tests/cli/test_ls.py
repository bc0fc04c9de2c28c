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


def test_backbones(run_json, run):
    names = {row["name"] for row in run_json("ls", "backbones", "--json")}
    assert {"RN50/openai", "RN101/openai", "ViT-B-32/openai", "ViT-B-16/openai"} <= names
    assert "ViT-B-32/openai" in run("ls", "backbones").stdout


@pytest.mark.parametrize("name", ["imagenet-ensemble", "eurosat"])
def test_templates(run_json, run, name):
    rows = {row["name"]: row["templates"] for row in run_json("ls", "templates", "--json")}
    shown = run("ls", "templates").stdout
    for template in rows[name]:
        assert template in shown
