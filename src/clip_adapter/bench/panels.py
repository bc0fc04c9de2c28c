"""Panels of accuracy by shots, one per data set and their mean, as figures 3, 5 and 7 have them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clip_adapter.bench.beside import USUAL_BACKBONE, Beside, beside
from clip_adapter.bench.published import AVERAGE, Published
from clip_adapter.bench.recipe import System
from clip_adapter.bench.runs import ZERO_SHOT
from clip_adapter.bench.values import Findings, Place
from clip_adapter.evaluation.plots import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Panels beside each other; fewer make a smaller figure.
MOST_COLUMNS = 4
STAR = "*"
FAINT = 0.5


@dataclass
class Curve:
    """Accuracy by shots, in percent.

    Attributes:
        ours: {shots: (mean, standard deviation or None)}.
        published: {shots: accuracy}.
    """

    ours: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    published: dict[int, float] = field(default_factory=dict)


@dataclass
class Panel:
    """One data set: a curve for each system, and what the published ones are of."""

    title: str
    curves: dict[str, Curve] = field(default_factory=dict)
    where: str = ""


def panels(findings: Findings, published: Published, mean: bool) -> list[Panel]:
    """A panel for each data set and backbone, and with ``mean`` that of all before them."""
    made: dict[tuple[str, str], Panel] = {}
    several = len({p.backbone for p in findings.places()}) > 1
    for place in findings.places():
        title = f"{place.dataset}, {place.backbone}" if several else place.dataset
        panel = made.setdefault((place.dataset, place.backbone), Panel(title))
        for system in findings.systems:
            _add(panel, system, place, findings, beside(findings, system, place, published))
    found = [p for p in made.values() if any(c.ours for c in p.curves.values())]
    if mean and len(found) > 1:
        found.insert(0, _mean_panel(found, findings, published))
    return found


def _add(
    panel: Panel, system: System, place: Place, findings: Findings, theirs: Beside | None
) -> None:
    curve = panel.curves.setdefault(system.label, Curve())
    number = findings.accuracy(system.label, place)
    if number is not None:
        curve.ours[place.shots] = (number.mean, number.deviation)
    if theirs is not None:
        curve.published[place.shots] = theirs.value
        panel.where = theirs.where


def _mean_panel(found: Sequence[Panel], findings: Findings, published: Published) -> Panel:
    """Means over the data sets that have the system at these shots, all of them."""
    panel = Panel(f"mean of {len(found)} sets")
    recipe = findings.recipe
    for system in findings.systems:
        curve = panel.curves.setdefault(system.label, Curve())
        for shots in recipe.shots:
            own = [
                p.curves[system.label].ours.get(shots) for p in found if system.label in p.curves
            ]
            known = [value[0] for value in own if value is not None]
            if len(known) == len(found):
                curve.ours[shots] = (sum(known) / len(known), None)
            theirs = _published_mean(system, shots, found, findings, published)
            if theirs is not None:
                curve.published[shots] = theirs
                panel.where = f"mean, {USUAL_BACKBONE}"
    return panel


def _published_mean(
    system: System, shots: int, found: Sequence[Panel], findings: Findings, published: Published
) -> float | None:
    """Of the same sets, or None; where all eleven are there, as published."""
    recipe = findings.recipe
    own = [p.curves[system.label].published.get(shots) for p in found if system.label in p.curves]
    known = [value for value in own if value is not None]
    if len(known) < len(found):
        return None
    if len(found) == 11 and not recipe.like:
        printed = published.accuracy(system.of, AVERAGE, USUAL_BACKBONE, recipe.style, shots)
        if printed is not None:
            return printed.accuracy
    return sum(known) / len(known)


def panels_figure(
    made: Sequence[Panel], systems: Sequence[System], names: Sequence[str], title: str
) -> Figure:
    """All panels in a grid, with one legend; published curves are faint and dashed.

    Args:
        made: of :func:`panels`.
        systems: in the order of the legend.
        names: of the systems, for the legend.
        title: above the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(MOST_COLUMNS, len(made)) if len(made) != 4 else 2
    rows = math.ceil(len(made) / columns)
    figure = Figure(figsize=(max(3.6 * columns, 5.5), 3.2 * rows + 1), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in grid[len(made) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid, made, strict=False):
        _draw(axes, panel, {s.label: s for s in systems})
    handles = [
        Line2D([], [], color=_colour(i), **_style(system, i), label=name)
        for i, (system, name) in enumerate(zip(systems, names, strict=True))
    ]
    if any(curve.published for panel in made for curve in panel.curves.values()):
        label = "published, on the set in brackets"
        handles.append(Line2D([], [], color="0.3", alpha=FAINT, linestyle="--", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def _draw(axes: Axes, panel: Panel, systems: Mapping[str, System]) -> None:
    ticks = {0}
    for i, (label, system) in enumerate(systems.items()):
        curve = panel.curves.get(label)
        if curve is None:
            continue
        ticks.update(curve.ours)
        _draw_curve(axes, curve, system.method == ZERO_SHOT, i)
    axes.set_xticks(sorted(ticks), [str(k) for k in sorted(ticks)])
    axes.set_title(f"{panel.title} [{panel.where}]" if panel.where else panel.title, fontsize=9)
    axes.set_xlabel("labelled pictures per class", fontsize=8)
    axes.set_ylabel("right (%)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _draw_curve(axes: Axes, curve: Curve, zero_shot: bool, number: int) -> None:
    colour = _colour(number)
    if zero_shot:  # the paper's star: it needs no picture
        for values, alpha in ((dict(curve.ours), 1.0), (curve.published, FAINT)):
            if values:
                first = next(iter(values.values()))
                level = first[0] if isinstance(first, tuple) else first
                linestyle = ":" if alpha == 1 else "--"
                axes.axhline(level, color=colour, alpha=alpha, linestyle=linestyle, linewidth=1)
                axes.plot([0], [level], STAR, color=colour, alpha=alpha, markersize=10)
        return
    shots = sorted(curve.ours)
    if shots:
        deviations = [curve.ours[k][1] or 0.0 for k in shots]
        axes.errorbar(
            shots,
            [curve.ours[k][0] for k in shots],
            yerr=deviations,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            capsize=2,
        )
    known = sorted(curve.published)
    if known:
        values = [curve.published[k] for k in known]
        axes.plot(known, values, color=colour, alpha=FAINT, linestyle="--", linewidth=1)


def _style(system: System, number: int) -> dict[str, Any]:
    if system.method == ZERO_SHOT:
        return {"marker": STAR, "linestyle": ":"}
    return {"marker": MARKERS[number % len(MARKERS)], "linestyle": "-"}


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
