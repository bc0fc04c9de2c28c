"""Figures: what is drawn is what was found, and the file is the same each time."""

import pytest

from clip_adapter.bench.figures import MOST_CLASSES, curves, gains, make_figure
from clip_adapter.bench.frame import Findings
from clip_adapter.evaluation.plots import save

DRAWN = ("figure3", "figure4", "figure5", "figure6", "figure7")
PLANE = {
    "points": [[float(i), float(i * i % 7)] for i in range(12)],
    "labels": [i % 3 for i in range(12)],
    "class_names": ["a_1", "$b$", "c"],
    "silhouette": 0.25,
}


def accuracy(run):
    return 40.0 + run.shots + run.seed + len(run.method)


def findings_of(bench, name, top1=accuracy, profile="demo", **overrides):
    return bench.findings(name, profile, top1=top1, more=PLANE, **overrides)


def legend(figure):
    [box] = figure.legends
    return [text.get_text() for text in box.get_texts()]


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_two_drawings_are_the_same_bytes(bench, name, tmp_path):
    findings = findings_of(bench, name, datasets=["demo"])
    one, two = (save(make_figure(findings), tmp_path / f"{n}.png").read_bytes() for n in "ab")
    assert one == two
    assert one.startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["figure3", "figure4", "figure6", "table6"])
def test_nothing_is_drawn_without_results(bench, name):
    assert make_figure(Findings(bench.plan(name), bench.results)) is None


@pytest.mark.slow
def test_figure_3_has_the_mean_first_and_a_panel_for_each_set(bench):
    findings = findings_of(bench, "figure3", profile="paper")
    figure = make_figure(findings)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "mean of 11 sets [mean, RN50]"
    assert titles[1] == "imagenet [imagenet, RN50]"
    assert len([t for t in titles if t]) == 12
    names = ["Zero-shot CLIP", "Linear probe CLIP", "CoOp", "CLIP-Adapter"]
    assert legend(figure) == [*names, "published, on the set in brackets"]
    drawn = curves(findings)
    own = drawn[(drawn.panel == "imagenet") & (drawn.label == "CLIP-Adapter")].set_index("shots")
    assert own.value[16] == 40 + 16 + 2 + len("clip-adapter")
    assert own.deviation[16] == 1.0
    assert own.theirs.to_dict() == {1: 58.0, 2: 58.4, 4: 59.2, 8: 60.3, 16: 61.2}
    mean = drawn[drawn.panel.str.startswith("mean") & (drawn.label == "CLIP-Adapter")]
    assert mean.theirs.iloc[-1] == pytest.approx(74.3, abs=0.05)  # as the paper prints it


@pytest.mark.parametrize("name", ["figure3", "figure4"])
def test_what_was_chosen_on_the_test_set_is_marked(bench, name):
    for protocol in ("ours", "paper"):
        figure = make_figure(findings_of(bench, name, protocol=protocol, datasets=["demo"]))
        marked = "CLIP-Adapter (best of 5 on the test set)" in legend(figure)
        assert marked == (protocol == "paper")


def test_the_mean_is_of_all_sets_or_not_there(bench):
    def partly(run):
        return None if (run.dataset, run.shots) == ("demo-colours", 8) else accuracy(run)

    drawn = curves(findings_of(bench, "figure3", partly))
    coop = drawn[drawn.label == "CoOp"].set_index(["panel", "shots"])
    mean = coop.loc["mean of 3 sets"]
    assert set(mean.value.dropna().index) == {1, 2, 4, 16}
    theirs = [coop.theirs[name, 16] for name in ("demo", "demo-textures", "demo-colours")]
    assert mean.theirs[16] == pytest.approx(sum(theirs) / 3)


def test_one_set_has_no_mean(bench):
    assert set(curves(findings_of(bench, "figure3", datasets=["demo"])).panel) == {"demo"}


def test_gains_are_ranked_with_the_published_beside(bench):
    reached = {"demo": 60.0, "demo-textures": 45.0, "demo-colours": 75.0}

    def top1(run):
        return 50.0 if run.method == "zero-shot" else reached[run.dataset]

    findings = findings_of(bench, "figure4", top1)
    ranked = gains(findings).set_index("panel")
    assert list(ranked.value.items()) == [
        ("demo-colours", 25.0),
        ("demo", 10.0),
        ("demo-textures", -5.0),
    ]
    assert ranked.theirs.tolist() == pytest.approx([61.2 - 55.4, 82.5 - 31.4, 66.1 - 40.4])
    axes = make_figure(findings).axes[0]
    assert axes.get_yticklabels()[0].get_text() == "demo-colours [imagenet, RN50]"
    assert axes.yaxis_inverted()


def test_every_panel_of_the_plane_has_its_silhouette(bench):
    figure = make_figure(findings_of(bench, "figure6"))
    names = ["CLIP", "CoOp", "CLIP-Adapter without residual", "CLIP-Adapter"]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"{name}, silhouette 0.250" for name in names]
    assert legend(figure) == ["a_1", "$b$", "c"]
    several = make_figure(findings_of(bench, "figure6", shots=[1, 4]))
    titles = [axes.get_title() for axes in several.axes]
    assert titles[0] == "demo, 1 shot\nCLIP, silhouette 0.250"
    assert len(set(titles)) == 8


@pytest.mark.parametrize("classes", [2, 3 * MOST_CLASSES])
def test_classes_in_the_plane_can_be_told_apart(bench, classes):
    record = {
        "points": [[float(i), 0.0] for i in range(2 * classes)],
        "labels": [i % classes for i in range(2 * classes)],
        "class_names": [str(i) for i in range(classes)],
        "silhouette": 0.5,
    }
    axes = make_figure(bench.findings("figure6", more=record)).axes[0]
    styles = {(line.get_color(), line.get_marker()) for line in axes.get_lines()}
    assert len(styles) == min(classes, MOST_CLASSES)
    assert (" of " in axes.get_title()) == (classes > MOST_CLASSES)
