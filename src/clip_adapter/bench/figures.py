"""The figures of the paper, drawn from results with the published numbers beside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_adapter.bench.gains import Gain, compared, gains
from clip_adapter.bench.layout import shots_word
from clip_adapter.bench.panels import panels, panels_figure
from clip_adapter.bench.published import Published
from clip_adapter.bench.values import Findings
from clip_adapter.evaluation.plots import COLOURS, MARKERS, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More classes than this cannot be told apart by colour and mark.
MOST_CLASSES = 20


def draw(findings: Findings, published: Published, path: Path) -> list[Path]:
    """Writes the figure of the recipe to ``path``; nothing where there is nothing to draw.

    Returns:
        The files: none or one.

    Raises:
        DataError: it cannot be written.
    """
    figure = make_figure(findings, published)
    return [] if figure is None else [save(figure, path)]


def make_figure(findings: Findings, published: Published) -> Figure | None:
    """The figure of the recipe, or None."""
    recipe = findings.recipe
    title = f"{recipe.title}: {recipe.profile}"
    if recipe.figure in ("shots", "branches"):
        made = panels(findings, published, mean=recipe.figure == "shots")
        names = [findings.shown_as(s.label) for s in findings.systems]
        return panels_figure(made, findings.systems, names, title) if made else None
    if recipe.figure == "gains":
        found = {k: g for k, g in gains(findings, published).items() if g}
        pair = compared(findings)
        here = findings.shown_as(pair[1].label) if pair else ""
        return gains_figure(found, title, here) if found else None
    if recipe.figure == "tsne":
        planes = _planes(findings)
        return plane_figure(planes, title) if planes else None
    return None


def gains_figure(found: Mapping[int, Sequence[Gain]], title: str, here: str) -> Figure:
    """Bars from the largest gain down; the published gain as a diamond.

    Args:
        found: of :func:`~clip_adapter.bench.gains.gains`, not empty.
        title: above the figure.
        here: what the bars are of, for the legend.
    """
    from matplotlib.figure import Figure

    most = max(len(ranked) for ranked in found.values())
    size = (6.5 * len(found), 2.0 + 0.42 * most)
    figure = Figure(figsize=size, layout="constrained")
    every = figure.subplots(1, len(found), squeeze=False)[0].tolist()
    for axes, (shots, ranked) in zip(every, found.items(), strict=True):
        rows = range(len(ranked))
        labels = [f"{g.dataset} [{g.where}]" if g.where else g.dataset for g in ranked]
        values = [g.gain for g in ranked]
        spread = [g.deviation or 0.0 for g in ranked]
        axes.barh(rows, values, xerr=spread, color=COLOURS[0], height=0.6, label=here, capsize=2)
        known = [(i, g.published) for i, g in enumerate(ranked) if g.published is not None]
        if known:
            places, theirs = zip(*known, strict=True)
            axes.plot(
                theirs, places, "D", color=COLOURS[1], label="published, on the set in brackets"
            )
        for i, gain in enumerate(ranked):
            side = "left" if gain.gain >= 0 else "right"
            offset = (gain.deviation or 0.0) * (1 if gain.gain >= 0 else -1)
            axes.annotate(
                f" {gain.gain:+.2f} ", (gain.gain + offset, i), va="center", ha=side, fontsize=7
            )
        axes.set_yticks(rows, labels, fontsize=8, parse_math=False)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_xlabel("points above zero-shot CLIP")
        axes.set_title(f"{title}, {shots_word(shots)}", fontsize=10)
    handles, labels = every[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=2)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _planes(findings: Findings) -> dict[str, Mapping[str, Any]]:
    """{title: record} of every system, for the first seed."""
    places = findings.places()
    several = len(places) > 1
    found: dict[str, Mapping[str, Any]] = {}
    for place in places:
        for system in findings.systems:
            records = findings.at(system.label, place).records
            if records and records[0].get("points"):
                where = f"{place.dataset}, {shots_word(place.shots)}\n" if several else ""
                apart = records[0]["silhouette"]
                found[f"{where}{findings.shown_as(system.label)}, silhouette {apart:.3f}"] = (
                    records[0]
                )
    return found


def plane_figure(planes: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """A panel for each classifier; a class has a colour and a mark of its own.

    Args:
        planes: {title: record with points, labels, class_names}. Of more than ``MOST_CLASSES``
            classes, those with the most points are shown.
        title: above the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = 2 if len(planes) > 1 else 1
    rows = math.ceil(len(planes) / columns)
    figure = Figure(figsize=(5 * columns, 4.2 * rows + 1.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    handles: dict[str, Line2D] = {}
    for axes in grid[len(planes) :]:
        axes.set_axis_off()
    for axes, (name, record) in zip(grid, planes.items(), strict=False):
        labels, points, names = record["labels"], record["points"], record["class_names"]
        shown = sorted(label for label, _ in Counter(labels).most_common(MOST_CLASSES))
        for i, label in enumerate(shown):
            own = [p for p, other in zip(points, labels, strict=True) if other == label]
            style: dict[str, Any] = {
                "color": COLOURS[i % len(COLOURS)],
                "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
                "linestyle": "",
            }
            x, y = zip(*own, strict=True)
            axes.plot(x, y, markersize=3, alpha=0.8, **style)
            handles.setdefault(names[label], Line2D([], [], markersize=6, **style))
        if len(shown) < len(names):
            name += f"\n{len(shown)} of {len(names)} classes"
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    legend = figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=7
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(title, fontsize=11)
    return figure
