"""Figures: what is drawn is what was found, and the file is the same each time."""

import pytest

from clip_adapter.bench.beside import beside
from clip_adapter.bench.figures import MOST_CLASSES, draw, make_figure, plane_figure
from clip_adapter.bench.gains import gains
from clip_adapter.bench.panels import panels
from clip_adapter.bench.published import load_published
from clip_adapter.bench.values import Findings

DRAWN = ("figure3", "figure4", "figure5", "figure6", "figure7")


def accuracy(run):
    return 40.0 + run.shots + run.seed + len(run.method)


def found(bench, name, top1=accuracy, profile="demo", **overrides):
    plane = {
        "points": [[float(i), float(i * i % 7)] for i in range(12)],
        "labels": [i % 3 for i in range(12)],
        "class_names": ["a_1", "$b$", "c"],
        "silhouette": 0.25,
    }
    planned = bench.fill(bench.plan(name, profile, **overrides), top1, **plane)
    return Findings(planned, bench.results)


@pytest.mark.parametrize("name", DRAWN)
def test_two_drawings_are_the_same_bytes(bench, name, tmp_path):
    findings, published = found(bench, name), load_published()
    (one,) = draw(findings, published, tmp_path / "one.png")
    (two,) = draw(findings, published, tmp_path / "two.png")
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [*DRAWN, "table6"])
def test_nothing_is_drawn_without_results(bench, name):
    findings = Findings(bench.plan(name), bench.results)
    assert make_figure(findings, load_published()) is None


def test_figure_3_has_the_mean_first_and_a_panel_for_each_set(bench):
    findings = found(bench, "figure3", profile="paper")
    figure = make_figure(findings, load_published())
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "mean of 11 sets [mean, RN50]"
    assert titles[1] == "imagenet [imagenet, RN50]"
    assert len([t for t in titles if t]) == 12
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [
        "Zero-shot CLIP",
        "Linear probe CLIP",
        "CoOp",
        "CLIP-Adapter",
        "published, on the set in brackets",
    ]


@pytest.mark.parametrize("name", ["figure3", "figure4"])
def test_what_was_chosen_on_the_test_set_is_marked(bench, name):
    for protocol in ("ours", "paper"):
        figure = make_figure(found(bench, name, protocol=protocol), load_published())
        (legend,) = figure.legends
        told = [t.get_text() for t in legend.get_texts()]
        assert ("CLIP-Adapter (best of 5 on the test set)" in told) == (protocol == "paper")


def test_curves_hold_means_and_published_numbers(bench):
    made = panels(found(bench, "figure3", profile="paper"), load_published(), mean=True)
    curve = made[1].curves["CLIP-Adapter"]
    assert curve.ours[16] == (40 + 16 + 2 + len("clip-adapter"), 1.0)
    assert curve.published == {1: 58.0, 2: 58.4, 4: 59.2, 8: 60.3, 16: 61.2}
    assert made[0].curves["CLIP-Adapter"].published[16] == 74.3


def test_the_mean_is_of_all_sets_or_not_there(bench):
    def partly(run):
        return None if (run.dataset, run.shots) == ("demo-colours", 8) else accuracy(run)

    made = panels(found(bench, "figure3", partly), load_published(), mean=True)
    assert made[0].title == "mean of 3 sets"
    assert set(made[0].curves["CoOp"].ours) == {1, 2, 4, 16}
    sets = [made[i].curves["CoOp"].published[16] for i in (1, 2, 3)]
    assert made[0].curves["CoOp"].published[16] == pytest.approx(sum(sets) / 3)


def test_one_set_has_no_mean(bench):
    made = panels(found(bench, "figure3", datasets=["demo"]), load_published(), mean=True)
    assert [p.title for p in made] == ["demo"]


def test_gains_are_ranked_with_the_published_beside(bench):
    reached = {"demo": 60.0, "demo-textures": 45.0, "demo-colours": 75.0}

    def top1(run):
        return 50.0 if run.method == "zero-shot" else reached[run.dataset]

    findings = found(bench, "figure4", top1)
    (ranked,) = gains(findings, load_published()).values()
    assert [(g.dataset, g.gain) for g in ranked] == [
        ("demo-colours", 25.0),
        ("demo", 10.0),
        ("demo-textures", -5.0),
    ]
    assert [g.published for g in ranked] == pytest.approx([61.2 - 55.4, 82.5 - 31.4, 66.1 - 40.4])
    assert not any(g.same for g in ranked)
    axes = make_figure(findings, load_published()).axes[0]
    assert axes.get_yticklabels()[0].get_text() == "demo-colours [imagenet, RN50]"
    assert axes.yaxis_inverted()


def test_gains_on_the_papers_own_set_are_the_same_thing(bench):
    findings = found(bench, "figure4", profile="paper", datasets=["dtd"])
    ((gain,),) = gains(findings, load_published()).values()
    assert gain.same


def test_every_panel_of_the_plane_has_its_silhouette(bench):
    figure = make_figure(found(bench, "figure6"), load_published())
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "CLIP, silhouette 0.250",
        "CoOp, silhouette 0.250",
        "CLIP-Adapter without residual, silhouette 0.250",
        "CLIP-Adapter, silhouette 0.250",
    ]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["a_1", "$b$", "c"]


def test_planes_of_several_shots_are_named(bench):
    figure = make_figure(found(bench, "figure6", shots=[1, 4]), load_published())
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "demo, 1 shot\nCLIP, silhouette 0.250"
    assert len(set(titles)) == 8


@pytest.mark.parametrize("classes", [2, MOST_CLASSES, 3 * MOST_CLASSES])
def test_classes_in_the_plane_can_be_told_apart(classes):
    record = {
        "points": [[float(i), 0.0] for i in range(2 * classes)],
        "labels": [i % classes for i in range(2 * classes)],
        "class_names": [str(i) for i in range(classes)],
        "silhouette": 0.0,
    }
    axes = plane_figure({"one": record}, "").axes[0]
    styles = {(line.get_color(), line.get_marker()) for line in axes.get_lines()}
    assert len(styles) == min(classes, MOST_CLASSES)
    assert ("of" in axes.get_title()) == (classes > MOST_CLASSES)


def test_what_is_beside_is_of_the_same_preprocessing_or_not_there(bench):
    published = load_published()
    for name, known in (("figure3", True), ("figure7", False)):
        findings = Findings(bench.plan(name, "paper"), bench.results)
        probe = next(s for s in findings.systems if s.method == "linear-probe")
        place = next(p for p in findings.places() if (p.dataset, p.shots) == ("dtd", 16))
        assert (beside(findings, probe, place, published) is not None) == known
