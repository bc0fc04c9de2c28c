"""The figures of the paper, drawn from results with the published numbers beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from clip_adapter.bench.frame import USUAL_BACKBONE, Findings, Frame
from clip_adapter.bench.results import ZERO_SHOT
from clip_adapter.evaluation.plots import COLOURS, MARKERS
from clip_adapter.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Panels beside each other; fewer make a smaller figure.
MOST_COLUMNS = 4
# More classes than this cannot be told apart by colour and mark.
MOST_CLASSES = 20
FAINT: dict[str, Any] = {"alpha": 0.5, "linestyle": "--", "linewidth": 1}
BESIDE = "published, on the set in brackets"
TINY, SMALL, LARGE = 7, 9, 11
# Names are shown as they are: a "$" in them begins no formula.
STYLE: dict[Any, Any] = {
    **{"text.parse_math": False, "axes.titlesize": SMALL, "figure.titlesize": LARGE},
    **dict.fromkeys(("legend.fontsize", "axes.labelsize"), TINY),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), TINY),
    **{"axes.grid": True, "grid.alpha": 0.3, "figure.constrained_layout.use": True},
}


def make_figure(findings: Findings) -> Figure | None:
    """The figure of the recipe; None where there is nothing to draw."""
    from matplotlib import rc_context

    draw, columns = DRAW.get(findings.recipe.figure, (None, 0))
    if draw is None or not findings.cells.seeds.any():
        return None
    handles: dict[str, Any] = {}  # of the legend
    with rc_context(STYLE):
        if figure := draw(findings, handles):
            figure.legend(handles.values(), [*handles], loc="outside lower center", ncols=columns)
            figure.suptitle(f"{findings.recipe.title}: {findings.recipe.profile}")
    return figure


def _grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure with ``count`` axes, ``columns`` of them beside each other."""
    from matplotlib.figure import Figure

    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows + 1))
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def curves(findings: Findings) -> Frame:
    """The cells and what is published, by panel: a data set, or the mean of all with figure 3.

    A mean is over all data sets, or it is not there; nor where they have different methods.
    """
    cells = findings.cells
    panels = cells.dataset + (", " + cells.backbone if cells.backbone.nunique() > 1 else "")
    cells = cells.assign(panel=panels)[cells.seeds.groupby(panels).transform("sum") > 0]
    count = cells.panel.nunique()
    if findings.recipe.figure != "shots" or count < 2:
        return cells
    groups = cells.groupby(["label", "shots"], sort=False)[["value", "theirs"]]
    means = groups.mean().where(groups.count() == count).reset_index()
    methods = cells[cells.value.notna()].groupby("panel").label.agg(frozenset)
    if methods.nunique() > 1 or means.value.isna().all():
        return cells
    means["where"] = means.theirs.notna().map({True: f"mean, {USUAL_BACKBONE}", False: None})
    return pd.concat([means.assign(panel=f"mean of {count} sets"), cells])


def _panels(findings: Findings, handles: dict[str, Any]) -> Figure:
    """Accuracy by shots, one panel per data set; published curves are faint and dashed."""
    from matplotlib.lines import Line2D

    cells, styles = curves(findings), dict[str, dict[str, Any]]()
    for i, system in enumerate(findings.systems):
        zero = system.method == ZERO_SHOT  # the paper's star: it needs no picture
        look = {"marker": "*", "linestyle": ":"} if zero else {"marker": MARKERS[i % len(MARKERS)]}
        styles[system.label] = {"color": COLOURS[i % len(COLOURS)], **look}
    panels = list(cells.groupby("panel", sort=False))
    columns = 2 if len(panels) == 4 else min(MOST_COLUMNS, len(panels))
    figure, grid = _grid(len(panels), columns, max(3.6, 5.5 / columns), 3.2)
    for axes, (name, panel) in zip(grid, panels, strict=True):
        for label, own in panel.groupby("label", sort=False):
            _curve(axes, own.sort_values("shots"), styles[str(label)])
        ticks = sorted({0, *panel.shots[panel.value.notna()]})
        axes.set_xticks(ticks, [str(k) for k in ticks])
        where = "".join(f" [{where}]" for where in panel["where"].dropna()[-1:])
        axes.set(title=f"{name}{where}", xlabel="labelled pictures per class", ylabel="right (%)")
    handles |= {findings.shown_as(n): Line2D([], [], **style) for n, style in styles.items()}
    if cells.theirs.notna().any():
        handles[BESIDE] = Line2D([], [], color="0.3", **FAINT)
    return figure


def _curve(axes: Any, curve: Frame, style: Mapping[str, Any]) -> None:
    ours, theirs = curve.dropna(subset="value"), curve.dropna(subset="theirs")
    faint = {"color": style["color"], **FAINT}
    if style["marker"] == "*":
        for values, look in ((ours.value, {**style, "marker": ""}), (theirs.theirs, faint)):
            for value in values[:1]:
                axes.axhline(value, **look)
                axes.plot([0], [value], **look | {"marker": "*", "markersize": 10})
        return
    axes.errorbar(
        ours.shots, ours.value, ours.deviation.fillna(0), markersize=5, capsize=2, **style
    )
    axes.plot(theirs.shots, theirs.theirs, **faint)


def gains(findings: Findings) -> Frame:
    """Points above zero-shot of the first system that learns, the largest first.

    ``theirs`` is the same of published numbers, where both are of one backbone.
    """
    cells, keys = curves(findings), ["panel", "shots"]
    first = {s.method == ZERO_SHOT: s.label for s in reversed(findings.systems)}
    base, reached = (
        cells[cells.label == first.get(zero, "")].set_index(keys) for zero in (True, False)
    )
    theirs = (reached.theirs - base.theirs).where(reached["where"] == base["where"])
    gained = reached.assign(value=reached.value - base.value, theirs=theirs).reset_index()
    gained["where"] = gained["where"].where(gained.theirs.notna())
    return gained.dropna(subset="value").sort_values(
        ["shots", "value", "panel"], ascending=[True, False, True]
    )


def _gains(findings: Findings, handles: dict[str, Any]) -> Figure | None:
    """Bars from the largest gain down; the published gain as a diamond."""
    parts = list(gains(findings).groupby("shots"))
    if not parts:
        return None
    figure, grid = _grid(len(parts), len(parts), 6.5, 1.0 + 0.42 * max(len(p) for _, p in parts))
    for axes, (shots, own) in zip(grid, parts, strict=True):
        rows, spread = range(len(own)), own.deviation.fillna(0)
        bars = axes.barh(rows, own.value, xerr=spread, color=COLOURS[0], height=0.6, capsize=2)
        axes.bar_label(bars, fmt="{:+.2f}", padding=2, fontsize=TINY)
        handles[findings.shown_as(own.label.iloc[0])] = bars
        if own.theirs.notna().any():
            (handles[BESIDE],) = axes.plot(own.theirs, rows, "D", color=COLOURS[1])
        axes.set_yticks(rows, (own.panel + (" [" + own["where"] + "]").fillna("")).tolist())
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set(xlabel="points above zero-shot CLIP", title=counted(int(str(shots)), "shot"))
    return figure


def _planes(findings: Findings, handles: dict[str, Any]) -> Figure | None:
    """The first seed of every cell that has one, a panel for each.

    A class has a colour and a mark of its own. Of more than ``MOST_CLASSES`` classes, those with
    the most points are shown.
    """
    planes = [
        (
            f"{cell.dataset}, {counted(cell.shots, 'shot')}\n" * (len(findings.columns) > 1)
            + findings.shown_as(cell.label),
            record,
        )
        for cell in findings.cells.itertuples()
        for record in [record for record in cell.records if record.get("points")][:1]
    ]
    if not planes:
        return None
    figure, grid = _grid(len(planes), min(2, len(planes)), 5, 4.2)
    for axes, (title, record) in zip(grid, planes, strict=True):
        points = pd.DataFrame(record["points"]).groupby(pd.Series(record["labels"]))
        names = record["class_names"]
        most = pd.Series(record["labels"]).value_counts().nlargest(MOST_CLASSES)
        for i, label in enumerate(sorted(most.index)):
            own = points.get_group(label)
            (dots,) = axes.plot(
                own[0],
                own[1],
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
                markersize=3,
                linestyle="",
                alpha=0.8,
            )
            handles.setdefault(names[label], dots)
        few = f"\n{len(most)} of {len(names)} classes" if len(most) < len(names) else ""
        axes.set(xticks=[], yticks=[], title=f"{title}, silhouette {record['silhouette']:.3f}{few}")
    return figure


# How a figure is drawn, and how many names stand in a line of its legend.
DRAW = {"shots": (_panels, 3), "branches": (_panels, 3), "gains": (_gains, 2), "tsne": (_planes, 5)}
