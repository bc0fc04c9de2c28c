"""Tables are a pure function of results and published numbers, and say what they do not know."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.bench.frame import Findings
from clip_adapter.bench.tables import (
    CHOSEN,
    DIFFERENCE,
    MISSING,
    NOTES,
    OURS,
    PAPER,
    SAME,
    Table,
    bold,
    tables,
)

SHAPE, PARTS, OTHERS = (NOTES[why] for why in ("setting", "incomplete", "method"))
RATIOS = {"0": 50.0, "0.2": 58.0, "0.4": 61.0, "0.6": 60.0, "0.8": 59.0, "1": 55.0}
PUBLISHED = "*paper: dtd, RN50*"
BESIDE = ["demo", PUBLISHED, "demo-textures", PUBLISHED, "demo-colours", "*paper: imagenet, RN50*"]


def by_ratio(run):
    """Seeds lie one point apart."""
    return RATIOS[f"{run.options['visual_ratio']:g}"] + run.seed - 2


def test_a_cell_is_the_mean_over_seeds_and_their_deviation_beside_another_set(bench):
    [table] = bench.tables("table6", top1=by_ratio)
    assert table.cell("0.4", "demo") == "**61.00 ± 1.00**"
    assert table.titles == BESIDE
    assert table.cell("0.6", "demo") == "60.00 ± 1.00"
    assert table.cell("0.6", PUBLISHED) == "**66.06**"
    assert table.cell("0.4", PUBLISHED) == "*64.84*"
    assert SHAPE in table.notes
    assert any("CoOp's figure" in note for note in table.notes)


def test_the_same_set_backbone_and_style_get_a_difference(bench):
    [table] = bench.tables("table6", "paper", top1=by_ratio)
    assert table.titles[:3] == ["dtd", PUBLISHED, "*difference*"]
    row = ["60.00 ± 1.00", "**66.06**", "*-6.06*", "60.00 ± 1.00", "*60.77*", "*-0.77*"]
    assert table.rows["0.6"] == row
    assert SAME in table.notes
    assert SHAPE not in table.notes


@pytest.mark.parametrize(
    "difference", [{"style": "clip"}, {"backbones": ["ViT-L-14/openai"]}, {"shots": [8]}]
)
def test_one_thing_that_differs_takes_the_difference_away(bench, difference):
    [table] = bench.tables("table6", "paper", top1=by_ratio, **difference)
    assert "*difference*" not in table.titles
    assert SHAPE in table.notes


@pytest.mark.parametrize(
    "part",
    [{"n": 1691}, {"classes": 46}, {"skipped": 1}, {"test_skipped": 1}, {"copy_of": "org/dtd"}],
)
def test_a_part_of_a_data_set_gets_no_difference(bench, part):
    [table] = bench.tables("table6", "paper", top1=by_ratio, datasets=["dtd"], more=part)
    assert "*difference*" not in table.titles
    assert PARTS in table.notes
    assert SAME not in table.notes


def test_one_record_of_a_part_takes_the_difference_of_its_cell_away(bench):
    plan = bench.fill(bench.plan("table6", "paper", datasets=["dtd"]), by_ratio)
    run = next(r for r in plan.runs().values() if r.options["visual_ratio"] == 0)
    bench.results.write(run, {"top1": 50.0, "n": 9, "classes": 47})
    [table] = tables(Findings(plan, bench.results))
    kept = table.entries[(table.entries.kind == DIFFERENCE)].set_index("label").text
    assert (kept["0"], kept["0.6"]) == (MISSING, "-6.06")
    assert {SAME, PARTS} <= set(table.notes)


def test_a_part_of_a_shifted_set_gets_no_difference(bench):
    sets = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    shifts = {name: {"top1": 50.0, "n": 10000} for name in sets}
    [table] = bench.tables("table9", "paper", more={"shifts": shifts})
    assert table.titles.count("*difference*") == 2  # imagenet and imagenetv2


def test_ready_made_features_get_no_difference_whatever_they_are_called(bench):
    changes = {"datasets": ["caltech101"], "backbones": ["RN50/openai"]}
    [table] = bench.tables("figure7", "features", **changes)
    assert any("published" in label for label in table.rows)
    assert not any("difference" in label for label in table.rows)
    assert PARTS in table.notes


OWN = """
title = "Own"
datasets = ["imagenet"]
[[systems]]
label = "a"
method = "{method}"
of = "CLIP-Adapter"
prompts = {prompts}
[[systems]]
label = "b"
method = "coop"
of = "CoOp"
"""


@pytest.mark.parametrize(
    ("method", "prompts", "same"),
    [("clip-adapter", [], True), ("clip-adapter", ["a {}."], False), ("gda", [], False)],
)
def test_another_method_or_prompts_get_no_difference(bench, tmp_path, method, prompts, same):
    (tmp_path / "own.toml").write_text(OWN.format(method=method, prompts=prompts))
    [table] = bench.tables(str(tmp_path / "own.toml"), "paper")
    assert (table.rows["a"][-1] != MISSING) == same
    assert table.rows["b"][-1] != MISSING
    assert (OTHERS in table.notes) == (not same)


@pytest.mark.slow
def test_shots_stand_beside_each_other_and_published_curves_below(bench):
    tables = bench.tables("figure3", "paper", top1=lambda run: 60.0 + run.shots)
    assert len(tables) == 11
    [table] = [t for t in tables if t.caption == "imagenet"]
    assert table.titles == ["1 shot", "2 shots", "4 shots", "8 shots", "16 shots"]
    assert table.cell("*CLIP-Adapter, published: imagenet, RN50*", "16 shots") == "*61.20*"
    assert table.cell("*CLIP-Adapter, difference*", "16 shots") == "*+14.80*"
    assert table.cell("*Zero-shot CLIP, published", "1 shot") == "*55.40*"
    assert list(table.rows)[:4] == ["Zero-shot CLIP", "Linear probe CLIP", "CoOp", "CLIP-Adapter"]


def test_missing_partial_and_failed_runs_are_told(bench):
    kept = {("0", 1), ("0", 2), ("0.2", 1)}

    def top1(run):
        return by_ratio(run) if (f"{run.options['visual_ratio']:g}", run.seed) in kept else None

    plan = bench.plan("table6", datasets=["demo"])
    broken = next(r for r in plan.runs().values() if r.options["visual_ratio"] == 1)
    bench.results.fail(broken, "The disk is full.\nAt line 3.", "trace")
    [table] = bench.tables("table6", datasets=["demo"], top1=top1)
    assert table.cell("0.2", "demo") == "**57.00 (1 of 3 seeds)**"
    assert table.cell("0.4", "demo") == MISSING
    assert table.cell("1", "demo") == r"failed \[1\]"
    assert "[1] The disk is full." in table.notes


def test_the_papers_protocol_is_marked_in_every_row_that_it_made(bench):
    def top1(run):
        return 50.0 if run.method == "zero-shot" else 60 + 10 * run.options["visual_ratio"]

    [table] = bench.tables("figure4", protocol="paper", datasets=["demo"], top1=top1)
    assert list(table.rows) == ["Zero-shot CLIP", "CLIP-Adapter (best of 5 on the test set)"]
    assert table.cell("CLIP-Adapter", "demo") == "**70.00 ± 0.00**"
    assert table.chosen == [[r"visual\_ratio 1"]]
    [ours] = bench.tables("figure4", datasets=["demo"])
    assert "test set" not in "".join(ours.rows)


def test_settings_without_a_result_are_not_counted(bench):
    def top1(run):
        return None if run.options.get("visual_ratio") in (0.8, 1.0) else 50.0

    [table] = bench.tables("figure4", protocol="paper", datasets=["demo"], top1=top1)
    assert list(table.rows)[1] == "CLIP-Adapter (best of 3 on the test set)"
    assert table.cell("CLIP-Adapter", "demo") == "**50.00 ± 0.00 (3 of 5 settings)**"


def test_what_was_chosen_on_the_shots_is_told_by_seed(bench):
    plan = bench.plan("figure4", datasets=["demo"])
    for run in plan.runs().values():
        chosen = {} if run.method == "zero-shot" else {"visual_ratio": run.seed / 5}
        bench.results.write(run, {"top1": 50.0, "chosen": chosen})
    [table] = tables(Findings(plan, bench.results))
    assert table.chosen.text.tolist() == ["visual_ratio 0.2 / 0.4 / 0.6"]


def test_shifts_are_columns_with_the_papers_sets_beside(bench):
    [table] = bench.tables("table9")
    assert table.cell("CoOp", "demo-sketch") == "**50.00 ± 0.00**"
    assert table.cell("CoOp", r"*paper: imagenet\_sketch, RN50*") == "*31.14*"
    [table] = bench.tables("table9", "paper")
    assert table.titles[2::3] == ["*difference*"] * 5


def test_backbones_are_columns(bench):
    dtd, imagenet = bench.tables("table8", "paper")
    assert CHOSEN in dtd.notes
    assert [dtd.caption, imagenet.caption] == ["dtd", "imagenet"]
    assert dtd.titles[:2] == ["RN50/openai", PUBLISHED]
    assert dtd.rows["CLIP-Adapter"][-2:] == ["**70.86**", "*-10.86*"]


@pytest.mark.slow
def test_rows_that_a_set_cannot_have_are_not_in_its_table(bench):
    sets = ["imagenet", "textless"]
    whole, part = bench.tables("peers", "features", datasets=sets)
    assert list(part.rows) == ["Linear probe CLIP", "GDA", "R-2P", "auto"]
    assert len([label for label in whole.rows if "*" not in label]) > 20
    [only] = bench.tables("figure3", "features", datasets=sets)  # one row compares with nothing
    assert only.caption == "imagenet"


def test_silhouettes_are_compared_as_they_are_shown(bench):
    plan = bench.plan("figure6")
    for number, run in enumerate(plan.runs().values()):
        apart = {"silhouette": 0.3 + number / 500, "points": [[0.0, 0.0]], "labels": [0]}
        bench.results.write(run, {"top1": 50.0, "n": 9, **apart})
    [table] = tables(Findings(plan, bench.results))
    shown = table.entries[table.entries.title == "silhouette"]
    assert shown.text.tolist() == ["0.300", "0.302", "0.304", "0.306"]
    assert shown.bold.tolist() == [False, False, False, True]
    assert table.entries[table.entries.title != "silhouette"].bold.all()


@given(st.lists(st.floats(0, 100) | st.none(), min_size=1, max_size=8))
def test_the_best_of_a_column_is_bold(values):
    marked = bold(pd.DataFrame({"value": pd.Series(values, dtype=float), "column": 0}))
    highest = marked.value[marked.bold].tolist()
    known = [v for v in values if v is not None]
    if len(known) < 2:
        assert highest == []
    else:
        assert max(known) in highest
        assert all(round(v, 2) == round(max(known), 2) for v in highest)


def test_the_deviation_is_that_of_the_sample(bench):
    top1 = {1: 1.0, 2: None, 3: 3.0}
    findings = bench.findings("table6", datasets=["demo"], top1=lambda run: top1[run.seed])
    cell = next(findings.cells.itertuples())
    assert (cell.value, cell.deviation) == (2.0, pytest.approx(2**0.5))
    assert (cell.seeds, cell.wanted) == (2, 3)


ODD = pd.DataFrame(
    [
        (0, "A & B", 0, "a_b|c", OURS, "61.00 ± 1.00", 61.0, 1.0, 3, True),
        (0, "A & B", 1, "paper: 50 %", PAPER, "60.00", 60.0, None, 0, False),
        (1, "#2", 0, "a_b|c", OURS, "failed [1]", None, None, 0, False),
    ],
    columns=[
        "row",
        "label",
        "column",
        "title",
        "kind",
        "text",
        "value",
        "deviation",
        "seeds",
        "bold",
    ],
)


def test_markdown_keeps_its_columns():
    lines = [
        " ".join(line.split())
        for line in Table("", "", ODD, ["[1] it broke"]).markdown().splitlines()
    ]
    assert lines[0] == r"| system | a\_b\|c | *paper: 50 %* |"
    assert lines[2] == "| A & B | **61.00 ± 1.00** | *60.00* |"
    assert lines[3] == r"| \#2 | failed \[1\] | - |"
    assert lines[-1] == r"\[1\] it broke"


def test_csv_holds_numbers():
    assert Table("", "", ODD).csv().splitlines() == [
        "system,a_b|c,a_b|c: deviation,a_b|c: seeds,paper: 50 %",
        "A & B,61.0000,1.0000,3,60.0000",
        "#2,failed [1],,,",
    ]


def test_latex_is_escaped():
    text = Table("", "", ODD, ["[1] it broke"]).tex()
    assert r"system & a\_b|c & paper: 50 \% \\" in text
    assert r"A \& B & \textbf{61.00 $\pm$ 1.00} & 60.00 \\" in text
    assert text.startswith("% [1] it broke\n\\begin{tabular}{lrr}\n\\toprule\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
