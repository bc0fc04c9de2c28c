"""The pages: the same bytes for the same accuracies, whatever the machine, and links that lead."""

import re

import pytest

from clip_adapter.bench.page import write_page
from clip_adapter.bench.plan import load_plans, save_plan

LINK = re.compile(r"\]\(([^)#]+)\)")


def accuracy(run):
    return 50.0 + run.shots + run.seed + len(run.method) / 3


def written(plans, bench, out):
    """The page of accuracies."""
    write_page(plans, bench.results, out)
    return (out / "TABLES.md").read_text()


def slower(bench, planned, seconds):
    for run in planned.runs().values():
        record = bench.results.read(run)
        fresh = {k: v for k, v in record.items() if k not in ("format", "key", "run")}
        times = {
            "train_seconds": seconds,
            "peak_memory_mib": 100 * seconds,
            "trained_parameters": 1000,
            "finished": f"2020-01-0{seconds}",
            "hardware": {"processor": f"machine {seconds}", "threads": seconds},
        }
        bench.results.write(run, fresh | times)


@pytest.mark.slow
def test_the_same_accuracies_give_the_same_bytes_elsewhere(bench, tmp_path):
    planned = [bench.fill(bench.plan(n), accuracy) for n in ("table10", "figure4")]
    pages = []
    for seconds in (1, 2):
        for one in planned:
            slower(bench, one, seconds)
        out = tmp_path / str(seconds)
        pages.append((out, write_page(planned, bench.results, out)))
    (one, first), (two, second) = pages
    names = [p.relative_to(one) for p in first]
    assert names == [p.relative_to(two) for p in second]
    differ = {n.name for n in names if (one / n).read_bytes() != (two / n).read_bytes()}
    assert differ == {"COSTS.md", "table10-costs-demo.csv"}
    text = (one / "TABLES.md").read_text()
    assert "machine" not in text
    assert "Measured on machine 1, 1 thread." in (one / "COSTS.md").read_text()


def test_links_lead_and_every_table_is_a_file(bench, tmp_path):
    few = {"datasets": ["demo", "demo-colours"], "shots": [1, 2], "seeds": [1]}
    planned = [bench.fill(bench.plan("figure3", **few), accuracy)]
    planned += [bench.fill(bench.plan(n), accuracy) for n in ("table9", "table10")]
    slower(bench, planned[-1], 1)
    files = write_page(planned, bench.results, tmp_path / "out")
    text = (tmp_path / "out/TABLES.md").read_text()
    targets = LINK.findall(text)
    assert "figures/demo/figure3.png" in targets
    assert all((tmp_path / "out" / t).exists() for t in targets)
    written = {p.relative_to(tmp_path / "out").as_posix() for p in files}
    for ending in ("csv", "tex"):
        assert f"tables/demo/figure3-demo-colours.{ending}" in written
        assert f"tables/demo/table9-demo.{ending}" in written
    assert all(p.exists() for p in files)
    assert "tables/demo/table10-costs-demo.csv" in written


def test_sections_of_several_calls_stand_in_the_papers_order(bench, tmp_path):
    out = tmp_path / "out"
    for words in (("table9",), ("table6", "features"), ("table4",)):
        save_plan(bench.fill(bench.plan(*words), accuracy), out)
    write_page(load_plans(out), bench.results, out)
    heads = re.findall(r"^##+ (.*)", (out / "TABLES.md").read_text(), re.MULTILINE)
    assert heads == [
        "Profile demo",
        "Table 4: ELEVATER's baselines",
        "Table 9: Distribution shift",
        "demo",
        "Profile features",
        "Table 6: Residual ratio",
    ]


def test_what_was_chosen_on_the_test_set_stands_apart(bench, tmp_path):
    out = tmp_path / "out"
    few = {"datasets": ["demo", "demo-colours"], "seeds": [1]}
    ours = bench.fill(bench.plan("figure4", **few), accuracy)
    papers = bench.fill(bench.plan("figure4", protocol="paper", **few), accuracy)
    files = write_page([ours, papers], bench.results, out)
    names = {path.relative_to(out).as_posix() for path in files}
    assert {"figures/demo/figure4.png", "figures/demo-paper-protocol/figure4.png"} <= names
    text = (out / "TABLES.md").read_text()
    assert "![figure4, demo]" in text
    assert "![figure4, demo, what is searched is the best on the TEST set" in text


def test_what_people_write_is_no_markup(bench, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        'title = "<h1>"\nnote = "a\\n# b_c_"\ndatasets = ["<b>_x_"]\nbackbones = ["demo"]\n'
        '[[systems]]\nlabel = "a|`<i>`\\n# b"\nmethod = "gda"\n'
        '[[systems]]\nlabel = "b"\nmethod = "ape"\n'
        '[[systems]]\nlabel = "<u>|"\nmethod = "fine-tune"\n'
    )
    plan = bench.fill(bench.plan(str(own), "paper", reason="no <s>"), lambda run: 50.0)
    text = written([plan], bench, tmp_path / "out")
    assert "### \\<h1\\>\n" in text
    assert "\na # b\\_c\\_\n" in text
    body = text.partition("### ")[2]
    assert r"- no \<s\> (\<b\>\_x\_): \<u\>\|" in body
    assert r"| a\|\`\<i\>\` # b " in body
    assert "\n# b" not in body
    assert not re.search(r"(?<!\\)<(?!/?details|/?summary)", body)


def test_a_copy_of_a_data_set_is_named(bench, tmp_path):
    planned = bench.plan("table6", "paper", datasets=["dtd"])
    bench.fill(planned, lambda run: 50.0, copy_of="org/textures")
    text = written([planned], bench, tmp_path)
    assert "Test pictures: dtd 1,692 (the copy org/textures, split its own way)." in text


@pytest.mark.slow
def test_rows_that_learn_from_plain_pictures_are_named(bench, tmp_path):
    planned = [
        bench.fill(bench.plan("figure3", profile, datasets=[name]), accuracy)
        for profile, name in (("paper", "dtd"), ("demo", "demo"))
    ]
    text = written(planned, bench, tmp_path)
    words = "coop-style preprocessing, 10 views of each shot (the plain one for Linear probe CLIP);"
    assert text.count(words) == text.count("the plain one") == 1


def test_the_same_runs_are_shown_once(bench, tmp_path):
    planned = [
        bench.fill(bench.plan(n, "features", datasets=["imagenet"]), accuracy)
        for n in ("figure3", "figure7")
    ]
    text = written(planned, bench, tmp_path / "out")
    assert "On this data these are the runs of: Figure 3" in text
    assert len(re.findall(r"^\\| Linear probe CLIP ", text, re.MULTILINE)) == 1
    assert not (tmp_path / "out/figures/features/figure7.png").exists()


def test_what_is_left_out_is_said_with_the_reason(bench, tmp_path):
    planned = [
        bench.plan("table3", reason="it reads pictures"),
        bench.plan("table6", missing=["demo-colours"]),
    ]
    for one in planned:
        bench.fill(one, accuracy)
    text = written(planned, bench, tmp_path / "out")
    assert "Nothing to compare on this data." in text
    assert "- it reads pictures (demo): Houlsby, Parallel\n" in text
    assert "- cannot be read: demo-colours\n" in text


def test_a_recipe_of_one_system_is_a_table_of_one_row(bench, tmp_path):
    own = tmp_path / "alone.toml"
    own.write_text(
        'title = "Alone"\ncolumns = "shots"\ndatasets = ["pets"]\nbackbones = ["demo"]\n'
        '[[systems]]\nlabel = "only"\nmethod = "gda"\n'
    )
    planned = bench.fill(bench.plan(str(own), "mine"), accuracy)
    text = written([planned], bench, tmp_path / "out")
    assert "Nothing to compare" not in text
    assert re.search(r"^\| only +\| \d", text, re.MULTILINE)


@pytest.mark.slow
def test_names_with_slashes_and_spaces_are_files_all_the_same(bench, tmp_path):
    own = tmp_path / "my own.toml"
    own.write_text(
        'title = "Mine"\ncolumns = "shots"\nfigure = "shots"\ndatasets = ["hub:a/b", "../c"]\n'
        'backbones = ["RN50/openai", "demo"]\n'
        '[[systems]]\nlabel = "a/b"\nmethod = "gda"\n[[systems]]\nlabel = "b"\nmethod = "ape"\n'
    )
    planned = bench.fill(bench.plan(str(own), "paper"), accuracy)
    files = write_page([planned], bench.results, tmp_path / "out")
    folder = tmp_path / "out/tables/paper"
    assert {p.parent for p in files if p.suffix == ".csv"} == {folder}
    assert (folder / "my-own-hub-a-b-RN50-openai.csv").is_file()
    assert "(figures/paper/my%20own.png)" in (tmp_path / "out/TABLES.md").read_text()


def test_a_page_of_nothing_is_whole(bench, tmp_path):
    text = written([bench.plan("table6"), bench.plan("figure6")], bench, tmp_path)
    assert re.search(r"\\| 0\\.4 +\\| - +\\|", text)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("name", ["table6", "table9", "figure3", "figure4", "figure6", "table10"])
def test_a_page_without_any_data_set_is_whole(bench, tmp_path, name):
    sets = ["demo", "demo-textures", "demo-colours"]
    text = written([bench.plan(name, missing=sets)], bench, tmp_path)
    assert "cannot be read: demo" in text


def test_the_papers_protocol_is_said_above_the_table(bench, tmp_path):
    planned = [bench.fill(bench.plan("table5", protocol="paper"), accuracy)]
    text = written(planned, bench, tmp_path)
    assert "the best on the TEST set" in text
    assert "| D/4 (best of 5 on the test set) " in text
    assert "chosen on the shots" not in text


@pytest.fixture
def costs(bench):
    planned = bench.plan("table1")
    for run in planned.runs().values():
        bench.results.write(
            run,
            {
                "train_seconds": 7200.0 if run.method == "coop" else 30.0,
                "train_how": "8 of 80 steps timed" if run.method == "coop" else "timed whole",
                "trained_parameters": 524288,
                "embed_seconds": 600.0,
                "train_peak_mib": 1234.5,
                "infer_ms": 20.25,
                "infer_peak_mib": 500.0,
                "hardware": {"processor": "P", "threads": 2},
            },
        )
    return planned


@pytest.mark.slow
def test_costs_stand_beside_the_papers_with_the_accuracy_of_another_recipe(bench, costs, tmp_path):
    # Other options, other accuracy: that of the default branch and prompts is taken.
    figure = bench.fill(bench.plan("figure5", datasets=["demo"]), lambda run: 30.0)
    other = bench.fill(bench.plan("peers"), lambda run: 61.25 if run.options else 70.5)
    text = written([costs, figure, other], bench, tmp_path)
    assert "Seconds and memory: [COSTS.md](COSTS.md)." in text
    rows = {
        cells[0]: cells[1:]
        for line in (tmp_path / "COSTS.md").read_text().partition("### Every")[0].splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) > 1
    }
    assert rows["system"][-2:] == ["right on demo (%)", "*paper: right on imagenet (%)*"]
    assert rows["CoOp"] == [
        "2 h", "*880 min*", "10 min", "524,288", "*0.02 M*", "1,234 MiB", "20.2 ms",
        "*299.6 ms*", "500 MiB", "*7193 MiB*", "61.25", "*60.46*",
    ]  # fmt: skip
    assert rows["CoOp, our recipe"][-2:] == ["70.50", "-"]
    assert rows["CLIP-Adapter"][-2:] == ["61.25", "*61.33*"]
    assert rows["Linear probe CLIP"][-2:] == ["70.50", "*53.44*"]


def test_costs_say_how_they_were_measured(bench, costs, tmp_path):
    write_page([costs], bench.results, tmp_path)
    text = (tmp_path / "COSTS.md").read_text()
    assert "CoOp: 8 of 80 steps timed, and multiplied." in text
    assert "RN50/random, 100 classes, 16 shots" in text
