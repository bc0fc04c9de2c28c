import logging

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.text import Text
from PIL import Image

from clip_adapter.errors import DataError
from clip_adapter.evaluation.plots import (
    SHOWN,
    confusion_figure,
    most_confused,
    report_plots,
    save,
    selection_figure,
    shots_figure,
)
from clip_adapter.evaluation.report import Report

CURVE = {
    "parameter": "visual_ratio",
    "candidates": [0.0, 0.2, 0.4],
    "accuracy": [60.0, 63.0, 61.0],
    "loss": [1.2, 1.0, 1.1],
    "pictures": 100,
    "chosen": 0.2,
}


def texts(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize("classes", [1, 2, 16, pytest.param(61, marks=pytest.mark.slow), 1000])
def test_confusion_of_any_size(classes, tmp_path):
    counts = np.eye(classes, dtype=int) * 5
    counts[0, -1] += 3
    names = [f"$class_{i}$ 花" for i in range(classes)]
    figure = confusion_figure(counts.tolist(), names)
    axes = figure.axes[0]
    assert len(texts(axes)) <= SHOWN
    assert names[0] in texts(axes)
    assert names[-1] in texts(axes)
    if classes <= 100:
        with Image.open(save(figure, tmp_path / "deep" / "c.png")) as image:
            assert max(image.size) < 4000


def test_cells_hold_the_counts():
    figure = confusion_figure([[3, 1], [0, 7]], ["a", "b"])
    assert [t.get_text() for t in figure.axes[0].texts] == ["3", "1", "7"]


def test_the_most_confused_are_kept():
    counts = np.eye(9, dtype=int) * 50
    counts[7, 2], counts[4, 5] = 9, 8
    assert most_confused(counts, 4) == [2, 4, 5, 7]
    assert most_confused(counts, 9) == list(range(9))


def test_the_chosen_ratio_is_marked():
    axes = selection_figure([CURVE]).axes[0]
    assert "chosen: 0.2" in legend(axes)
    assert len(selection_figure([CURVE, CURVE]).axes) == 4


def test_zero_shot_is_drawn_where_it_is_known_and_never_taken_from_a_candidate():
    shrunk = CURVE | {"parameter": "shrinkage"}  # at 0 it is anything but zero-shot
    assert "zero-shot CLIP" not in legend(selection_figure([shrunk]).axes[0])
    axes = selection_figure([shrunk], 61.5).axes[0]
    (line,) = [line for line in axes.get_lines() if line.get_label() == "zero-shot CLIP"]
    assert set(line.get_ydata()) == {61.5}


def test_the_sweep_of_c_has_a_log_axis():
    c = {**CURVE, "parameter": "C", "candidates": [1e-6, 1.0, 1e6], "chosen": 1.0}
    assert selection_figure([c]).axes[0].get_xscale() == "log"


def legend(axes):
    return [text.get_text() for text in axes.get_figure().legends[0].get_texts()]


def test_grids_and_blends_of_names_are_drawn():
    grid = [{"cache_weight": a, "cache_sharpness": 5.5} for a in (0.0, 1.0, 2.0)]
    axes = selection_figure([CURVE | {"candidates": grid, "chosen": grid[1]}]).axes[0]
    assert "chosen: cache_weight 1, cache_sharpness 5.5" in legend(axes)
    names = ["zero-shot", "gda", "clap"]
    blend = CURVE | {"candidates": names, "chosen": "gda x 2, clap"}
    axes = selection_figure([blend]).axes[0]
    assert "chosen: gda x 2, clap" in legend(axes)
    assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_no_curve_is_drawn_of_methods_that_were_blended(tmp_path):
    blend = CURVE | {"parameter": "members", "candidates": ["gda", "clap", "tip"], "chosen": "gda"}
    report = Report(
        *("auto", "d", 1, 100.0, None, 100.0, None, {"a": 100.0}, None, {"a": 1}, [[1]], ["a"]),
        selection=[blend],
    )
    assert [path.name for path in report_plots(report, tmp_path)] == ["confusion.png"]
    report.selection.append(CURVE)
    assert report_plots(report, tmp_path)[1].name == "ratio-curve.png"


def test_lines_with_bars(tmp_path):
    figure = shots_figure([1, 4], {"zero-shot": [(50, 0)] * 2, "x": [(40, 2), (60, 1)]}, "t")
    assert legend(figure.axes[0]) == ["zero-shot", "x"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        save(figure, tmp_path / "file" / "x.png")


@pytest.mark.parametrize("figure", ["selection", "two", "shots"])
def test_the_legend_hides_no_data(figure):
    long = CURVE | {"parameter": "members", "candidates": ["gda x 2", "a long name", "clap"]}
    drawn = {
        "selection": lambda: selection_figure([CURVE]),
        "two": lambda: selection_figure([CURVE, long]),
        "shots": lambda: shots_figure([1, 4], {f"m{i}": [(i, 1)] * 2 for i in range(9)}, "t"),
    }[figure]()
    drawn.draw_without_rendering()
    places = [axes.get_tightbbox() for axes in drawn.axes]
    legends = [one for axes in drawn.axes for one in axes.get_figure().legends]
    assert legends
    for one in legends:
        assert not any(one.get_window_extent().overlaps(place) for place in places)


@pytest.fixture
def a_font(tmp_path):
    """A font, known to matplotlib, that has one letter which no usual font has, and no other."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for i, point in enumerate(((0, 0), (0, 700), (700, 700), (700, 0))):
        (pen.lineTo if i else pen.moveTo)(point)
    pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    names = [".notdef", "box"]
    made.setupGlyphOrder(names)
    made.setupCharacterMap({ord("花"): "box"})
    made.setupGlyf(dict.fromkeys(names, pen.glyph()))
    made.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Hanako Test", "styleName": "Regular"})
    made.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    made.setupPost()
    made.save(tmp_path / "hanako.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "hanako.ttf")
    yield "Hanako Test"
    font_manager.fontManager.ttflist = before


def test_letters_come_from_a_font_that_has_them(a_font, tmp_path, caplog):
    figure = confusion_figure([[3, 1], [0, 7]], ["花", "Straße ж λ"])
    save(figure, tmp_path / "c.png")
    assert all(a_font in one.get_fontfamily() for one in figure.findobj(Text))
    assert not caplog.records


def test_letters_of_no_font_are_named(tmp_path, caplog):
    figure = confusion_figure([[3, 1], [0, 7]], ["\U00013080", "b"])  # a hieroglyph
    with caplog.at_level(logging.WARNING):
        save(figure, tmp_path / "c.png")
    assert "'\U00013080'" in caplog.text
    assert "Install a font" in caplog.text
