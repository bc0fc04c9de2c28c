"""Tables are a pure function of results and published numbers, and say what they do not know."""

import pytest

from clip_adapter.bench.layout import MISSING
from clip_adapter.bench.published import load_published
from clip_adapter.bench.shape import sentences
from clip_adapter.bench.tables import CHOSEN, OTHERS, PARTS, SAME, SHAPE, tables
from clip_adapter.bench.values import Findings

RATIOS = {"0": 50.0, "0.2": 58.0, "0.4": 61.0, "0.6": 60.0, "0.8": 59.0, "1": 55.0}


def by_ratio(run):
    """Seeds lie one point apart."""
    return RATIOS[f"{run.options['visual_ratio']:g}"] + run.seed - 2


def made(bench, planned):
    return tables(Findings(planned, bench.results), load_published())


def row(table, label):
    (found,) = [r for r in table.rows if r.label.startswith(label)]
    return dict(zip([c.title for c in table.columns], found.cells, strict=True))


def test_a_cell_is_the_mean_over_seeds_and_their_deviation(bench):
    planned = bench.fill(bench.plan("table6"), by_ratio)
    (table,) = made(bench, planned)
    cell = row(table, "0.4")["demo"]
    assert (cell.text, cell.value, cell.seeds) == ("61.00 ± 1.00", 61.0, 3)
    assert cell.bold
    assert not row(table, "0.6")["demo"].bold


def test_another_set_stands_beside_without_a_difference(bench):
    planned = bench.fill(bench.plan("table6"), by_ratio)
    (table,) = made(bench, planned)
    titles = [c.title for c in table.columns]
    assert titles == [
        "demo",
        "paper: dtd, RN50",
        "demo-textures",
        "paper: dtd, RN50",
        "demo-colours",
        "paper: imagenet, RN50",
    ]
    assert row(table, "0.6")["paper: dtd, RN50"].text == "66.06"
    assert row(table, "0.6")["paper: dtd, RN50"].bold
    assert SHAPE in table.notes
    assert any("CoOp's figure" in note for note in table.notes)


def test_the_same_set_backbone_and_style_get_a_difference(bench):
    planned = bench.fill(bench.plan("table6", "paper"), by_ratio)
    (table,) = made(bench, planned)
    kinds = [c.kind for c in table.columns]
    assert kinds == ["ours", "paper", "difference"] * 2
    first = next(r for r in table.rows if r.label == "0.6").cells
    assert [c.text for c in first] == [
        "60.00 ± 1.00", "66.06", "-6.06", "60.00 ± 1.00", "60.77", "-0.77",
    ]  # fmt: skip
    assert SAME in table.notes
    assert SHAPE not in table.notes


@pytest.mark.parametrize(
    "change", [{"style": "clip"}, {"backbones": ["ViT-L-14/openai"]}, {"shots": [8]}]
)
def test_one_thing_that_differs_takes_the_difference_away(bench, change):
    planned = bench.fill(bench.plan("table6", "paper", **change), by_ratio)
    (table,) = made(bench, planned)
    assert {c.kind for c in table.columns} == {"ours", "paper"}
    assert SHAPE in table.notes


@pytest.mark.parametrize(
    "part",
    [{"n": 1691}, {"classes": 46}, {"skipped": 1}, {"test_skipped": 1}, {"copy_of": "org/dtd"}],
)
def test_a_part_of_a_data_set_gets_no_difference(bench, part):
    planned = bench.plan("table6", "paper", datasets=["dtd"])
    (table,) = made(bench, bench.fill(planned, by_ratio, **part))
    assert {c.kind for c in table.columns} == {"ours", "paper"}
    assert PARTS in table.notes
    assert SAME not in table.notes


def test_one_record_of_a_part_takes_the_difference_of_its_cell_away(bench):
    planned = bench.fill(bench.plan("table6", "paper", datasets=["dtd"]), by_ratio)
    run = next(r for r in planned.runs if r.options["visual_ratio"] == 0)
    bench.results.write(run, {"top1": 50.0, "n": 9, "classes": 47, "shifts": {}, "chosen": {}})
    (table,) = made(bench, planned)
    assert next(r for r in table.rows if r.label == "0").cells[2].text == MISSING
    assert row(table, "0.6")["difference"].text == "-6.06"
    assert {SAME, PARTS} <= set(table.notes)


def test_a_part_of_a_shifted_set_gets_no_difference(bench):
    planned = bench.plan("table9", "paper")
    shifts = {s: {"top1": 50.0, "n": 10000} for s in planned.recipe.shifts}
    (table,) = made(bench, bench.fill(planned, lambda run: 60.0, shifts=shifts))
    assert [c.kind for c in table.columns].count("difference") == 2  # imagenet and imagenetv2


def test_ready_made_features_get_no_difference_whatever_they_are_called(bench):
    planned = bench.plan("figure7", "features", datasets=["caltech101"], backbones=["RN50/openai"])
    (table,) = made(bench, bench.fill(planned, lambda run: 90.0))
    assert {r.kind for r in table.rows} == {"ours", "paper"}
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
    ("method", "prompts", "kept"),
    [("clip-adapter", [], 2), ("clip-adapter", ["a {}."], 1), ("gda", [], 1)],
)
def test_another_method_or_prompts_get_no_difference(bench, tmp_path, method, prompts, kept):
    own = tmp_path / "own.toml"
    own.write_text(OWN.format(method=method, prompts=prompts))
    planned = bench.fill(bench.plan(str(own), "paper"), lambda run: 60.0)
    (table,) = made(bench, planned)
    known = [c for r in table.rows for c in r.cells[2:] if c.value is not None]
    assert len(known) == kept
    assert (OTHERS in table.notes) == (kept == 1)


def test_shots_stand_beside_each_other_and_published_curves_below(bench):
    planned = bench.fill(bench.plan("figure3", "paper"), lambda run: 60.0 + run.shots)
    found = made(bench, planned)
    assert len(found) == 11
    (table,) = [t for t in found if t.caption == "imagenet"]
    assert [c.title for c in table.columns] == [
        "1 shot", "2 shots", "4 shots", "8 shots", "16 shots",
    ]  # fmt: skip
    assert row(table, "CLIP-Adapter, published: imagenet, RN50")["16 shots"].text == "61.20"
    assert row(table, "CLIP-Adapter, difference")["16 shots"].text == "+14.80"
    assert row(table, "Zero-shot CLIP, published")["1 shot"].text == "55.40"


def test_missing_partial_and_failed_runs_are_told(bench):
    planned = bench.plan("table6", datasets=["demo"])
    kept = {("0", 1), ("0", 2), ("0.2", 1)}

    def top1(run):
        return by_ratio(run) if (f"{run.options['visual_ratio']:g}", run.seed) in kept else None

    bench.fill(planned, top1)
    broken = next(r for r in planned.runs if r.options["visual_ratio"] == 1)
    bench.results.fail(broken, "The disk is full.\nAt line 3.", "trace")
    (table,) = made(bench, planned)
    assert row(table, "0.2")["demo"].text == "57.00 (1 of 3 seeds)"
    assert row(table, "0.4")["demo"].text == MISSING
    assert row(table, "1")["demo"].text == "failed [1]"
    assert "[1] The disk is full." in table.notes


def test_the_papers_protocol_is_marked_in_every_row_that_it_made(bench):
    planned = bench.plan("figure4", protocol="paper", datasets=["demo"])

    def top1(run):
        return 50.0 if run.method == "zero-shot" else 60 + 10 * run.options["visual_ratio"]

    (table,) = made(bench, bench.fill(planned, top1))
    assert [r.label for r in table.rows] == [
        "Zero-shot CLIP",
        "CLIP-Adapter (best of 5 on the test set)",
    ]
    assert row(table, "CLIP-Adapter")["demo"].value == 70.0
    assert table.chosen.rows[0].cells[0].text == "visual_ratio 1"
    ours = bench.fill(bench.plan("figure4", datasets=["demo"]), lambda run: 50.0)
    assert "test set" not in "".join(r.label for r in made(bench, ours)[0].rows)


def test_what_was_chosen_on_the_shots_is_told_by_seed(bench):
    planned = bench.plan("figure4", datasets=["demo"])
    for run in planned.runs:
        chosen = {} if run.method == "zero-shot" else {"visual_ratio": run.seed / 5}
        bench.results.write(run, {"top1": 50.0, "n": 9, "shifts": {}, "chosen": chosen})
    (table,) = made(bench, planned)
    assert [c.text for r in table.chosen.rows for c in r.cells] == ["visual_ratio 0.2 / 0.4 / 0.6"]


def test_shifts_are_columns_with_the_papers_sets_beside(bench):
    planned = bench.fill(bench.plan("table9"), lambda run: 60.0)
    (table,) = made(bench, planned)
    assert row(table, "CoOp")["demo-sketch"].value == 50.0
    assert row(table, "CoOp")["paper: imagenet_sketch, RN50"].text == "31.14"
    planned = bench.fill(bench.plan("table9", "paper"), lambda run: 60.0)
    (table,) = made(bench, planned)
    assert [c.kind for c in table.columns] == ["ours", "paper", "difference"] * 5


def test_backbones_are_columns(bench):
    planned = bench.fill(bench.plan("table8", "paper"), lambda run: 60.0)
    dtd, imagenet = made(bench, planned)
    assert CHOSEN in dtd.notes
    assert [dtd.caption, imagenet.caption] == ["dtd", "imagenet"]
    assert [c.title for c in dtd.columns[:2]] == ["RN50/openai", "paper: dtd, RN50"]
    last = [c.text for c in next(r for r in dtd.rows if r.label == "CLIP-Adapter").cells[-2:]]
    assert last == ["70.86", "-10.86"]


def test_rows_that_a_set_cannot_have_are_not_in_its_table(bench):
    sets = ["imagenet", "textless"]
    planned = bench.fill(bench.plan("peers", "features", datasets=sets), lambda run: 60.0)
    whole, part = made(bench, planned)
    assert [r.label for r in part.rows if r.kind == "ours"] == [
        "Linear probe CLIP",
        "GDA",
        "R-2P",
        "auto",
    ]
    assert len([r for r in whole.rows if r.kind == "ours"]) > 20
    planned = bench.fill(bench.plan("figure3", "features", datasets=sets), lambda run: 60.0)
    (only,) = made(bench, planned)  # one row compares with nothing
    assert only.caption == "imagenet"


def test_silhouettes_are_compared_as_they_are_shown(bench):
    planned = bench.plan("figure6")
    for number, run in enumerate(planned.runs):
        apart = {"silhouette": 0.3 + number / 500, "points": [[0.0, 0.0]], "labels": [0]}
        bench.results.write(run, {"top1": 50.0, "n": 9, **apart})
    (table,) = made(bench, planned)
    assert [r.cells[1].text for r in table.rows] == ["0.300", "0.302", "0.304", "0.306"]
    assert [r.cells[1].bold for r in table.rows] == [False, False, False, True]
    assert all(r.cells[0].bold for r in table.rows)
    assert "from low to high: CLIP 0.300, CoOp 0.302" in told(bench, planned)[0]


def told(bench, planned):
    return sentences(Findings(planned, bench.results), load_published())


def test_the_best_ratio_is_said_to_be_inside_or_at_an_end(bench):
    planned = bench.fill(bench.plan("table6", datasets=["demo"]), by_ratio)
    (line,) = told(bench, planned)
    assert line.startswith("demo: the best ratio is 0.4, strictly between 0 and 1 (")
    assert "ratio 0 is 11.00 lower" in line
    assert "in the paper on dtd, RN50: the best ratio is 0.6" in line
    planned = bench.plan("table6", datasets=["demo"], seeds=[4])
    bench.fill(planned, lambda run: 50.0 + run.options["visual_ratio"])
    (line,) = told(bench, planned)
    assert "the best ratio is 1, not strictly between 0 and 1 (ratio 0 is 1.00 lower)" in line


def test_a_tie_of_ratios_is_told_and_absent_ends_are_not(bench):
    def tell(values):
        planned = bench.plan("table6", datasets=["demo"], seeds=[4 + len(values) + sum(values)])
        options = dict(zip(RATIOS, values, strict=True))
        bench.fill(planned, lambda run: options[f"{run.options['visual_ratio']:g}"] or None)
        return told(bench, planned)[0].partition(";")[0]

    assert tell([60, 60, 50, 50, 50, 50]) == (
        "demo: the best ratios are 0 and 0.2, a tie, not only strictly between 0 and 1 "
        "(ratio 1 is 10.00 lower)"
    )
    assert tell([0, 60, 50, 50, 51, 0]) == ("demo: the best ratio is 0.2, strictly between 0 and 1")


def test_what_is_shown_as_the_same_is_not_above(bench):
    def top1(run):
        return 50.001 if run.method == "clip-adapter" else 50.0

    for name in ("figure3", "figure4"):
        planned = bench.fill(bench.plan(name, datasets=["demo"], seeds=[1]), top1)
        assert ("above CoOp nowhere" if name == "figure3" else "not above zero: demo") in "".join(
            told(bench, planned)
        )


def test_numbers_of_others_are_not_said_to_be_the_papers(bench, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        OWN.format(method="clip-adapter", prompts=[])
        + '[profile.demo]\ndatasets = ["demo"]\nlike = { demo = "dtd" }\n'
    )
    planned = bench.fill(bench.plan(str(own)), lambda run: 60.0)
    (line,) = told(bench, planned)
    assert "published on dtd, RN50: " in line
    assert "in the paper" not in line


def test_settings_without_a_result_are_not_counted(bench):
    planned = bench.plan("figure4", protocol="paper", datasets=["demo"])

    def top1(run):
        return None if run.options.get("visual_ratio") in (0.8, 1.0) else 50.0

    (table,) = made(bench, bench.fill(planned, top1))
    assert [r.label for r in table.rows][1] == "CLIP-Adapter (best of 3 on the test set)"
    assert row(table, "CLIP-Adapter")["demo"].text == "50.00 ± 0.00 (3 of 5 settings)"
    (line,) = told(bench, planned)
    assert line.endswith("(protocol paper: what is searched is the best on the test set).")


def test_an_older_result_says_that_the_last_attempt_failed(bench):
    planned = bench.fill(bench.plan("table6", datasets=["demo"]), by_ratio)
    run = next(r for r in planned.runs if r.options["visual_ratio"] == 1)
    bench.results.fail(run, "The disk is full.\nAt line 3.", "trace")
    (table,) = made(bench, planned)
    assert row(table, "1")["demo"].text == "55.00 ± 1.00 [1]"
    assert "[1] An older result; the last attempt failed: The disk is full." in table.notes


def test_shots_at_which_the_adapter_is_above_are_named(bench):
    def top1(run):
        return {"clip-adapter": 50 + run.shots, "zero-shot": 53.0, "coop": 99.0}.get(run.method, 1)

    planned = bench.fill(bench.plan("figure3", datasets=["demo"]), top1)
    assert told(bench, planned) == [
        "demo: CLIP-Adapter is above Zero-shot CLIP at 4, 8, 16 of 1, 2, 4, 8, 16 shots, "
        "above Linear probe CLIP at all of 1, 2, 4, 8, 16 shots, above CoOp nowhere."
    ]


def test_peers_say_who_leads(bench):
    planned = bench.plan("peers")
    bench.fill(planned, lambda run: {"gda": 80.0, "clip-adapter": 70.0}.get(run.method, 60.0))
    first, second = told(bench, planned)
    systems = len(planned.recipe.systems)
    assert f"does not lead everywhere: its rank is 2 of {systems}." in first
    assert second == "Of 2 columns, the highest is GDA in 2; a tie counts for each."


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5", "table7", "table10"])
def test_a_table_says_its_order_or_its_best(bench, name):
    planned = bench.plan(name, datasets=["demo"])
    labels = [s.label for s in planned.recipe.systems]
    by_key = {
        run.key: 40.0 + labels.index(key[0])
        for key, cell in planned.cells.items()
        for runs in cell
        for run in runs
    }
    bench.fill(planned, lambda run: by_key[run.key])
    (line,) = told(bench, planned)
    assert labels[-1] in line
    assert f"{39 + len(labels)}.00" in line
