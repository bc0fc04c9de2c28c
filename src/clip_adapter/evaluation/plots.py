"""Figures: what is taken for what, how the ratio was chosen, accuracy by shots.

Colours are Okabe and Ito's, which colour-blind people can tell apart, and "cividis", which was
made for them. Figures are drawn without pyplot: no display is opened and no state is left behind.
"""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clip_adapter.evaluation.report import Report
from clip_adapter.files import check_folder, write_output
from clip_adapter.reporting import log
from clip_adapter.training.selection import shown
from clip_adapter.wording import listed, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Candidates with names are named below the axis, up to so many.
MOST_NAMES = 8
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Cells get their number up to this many classes; more classes than the second cannot be named in
# a figure that fits a page, and those that are confused most are shown.
NUMBERED, SHOWN = 20, 60
LABEL_LENGTH = 28
DPI = 150


def report_plots(report: Report, folder: str | Path) -> list[Path]:
    """Write ``confusion.png``, and ``ratio-curve.png`` where a number was chosen, into ``folder``.

    Returns:
        The files.

    Raises:
        UsageError: no folder, but something else is there.
        DataError: the folder cannot be written.
    """
    check_folder(Path(folder))
    figures = {"confusion.png": confusion_figure(report.confusion, report.class_names)}
    # Methods that were blended have no order, so there is no curve of them.
    if curves := [
        curve
        for curve in report.selection
        if curve.get("accuracy") and not all(isinstance(c, str) for c in curve["candidates"])
    ]:
        figures["ratio-curve.png"] = selection_figure(curves, report.selection_zero_shot)
    return [save(figure, Path(folder) / name) for name, figure in figures.items()]


def confusion_figure(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Rows are true classes, columns answers; colour is the share of the row.

    Args:
        confusion: (C, C) counts.
        class_names: C names. Of more than ``SHOWN`` classes, those that are confused most are
            shown.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    kept = most_confused(counts, SHOWN)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    counts, shares = (cells[np.ix_(kept, kept)] for cells in (counts, shares))
    classes, title = len(kept), "Where the pictures of each class went"
    if classes < len(class_names):
        title += f": the {classes} of {len(class_names)} classes that are confused most"
    side = float(np.clip(2.5 + 0.28 * classes, 5, 16))
    figure, (axes,) = _figure(side + 1, side, [title], xlabel="answer", ylabel="true class")
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100, interpolation="nearest")
    names = [shortened(class_names[i], LABEL_LENGTH, "…") for i in kept]
    look: dict[str, Any] = {"fontsize": 8 if classes <= 30 else 6, "parse_math": False}
    axes.set_xticks(range(classes), names, rotation=90, **look)
    axes.set_yticks(range(classes), names, **look)
    for row, column in np.argwhere(counts).tolist() if classes <= NUMBERED else []:
        axes.text(
            column,
            row,
            f"{counts[row, column]:.0f}",
            ha="center",
            va="center",
            color="black" if shares[row, column] > 60 else "white",
            fontsize=7,
        )
    figure.colorbar(image, ax=axes, label="% of the true class", shrink=0.8)
    return figure


def most_confused(confusion: Sequence[Sequence[int]] | np.ndarray, most: int) -> list[int]:
    """At most ``most`` classes in order: both ends of the most frequent mistakes of (C, C) counts.

    All classes where there are not more.
    """
    counts = np.array(confusion, dtype=np.float64)
    np.fill_diagonal(counts, -1)
    confused: set[int] = set()
    for cell in np.argsort(-counts, axis=None, kind="stable").tolist():
        more = confused.union(divmod(cell, len(counts)))
        if len(more) > most:
            break
        confused = more
    return sorted(confused)


def selection_figure(curves: Sequence[Mapping[str, Any]], zero_shot: float | None = None) -> Figure:
    """Accuracy and loss of every candidate on held-out shots, and which was chosen.

    Args:
        curves: records of :class:`~clip_adapter.training.selection.Selection`, with accuracies.
        zero_shot: percent right by zero-shot CLIP on the same shots; None where it is not known.
    """
    titles = [f"Chosen on {curve['pictures']} held-out training pictures" for curve in curves]
    figure, panels = _figure(6 * len(curves), 4.2, titles)
    for axes, curve in zip(panels, curves, strict=True):
        x: list[Any] = curve["candidates"]
        chosen, label = curve["chosen"], f"chosen: {shown(curve['chosen'])}"
        if not all(isinstance(c, int | float) for c in x):  # a grid, or names: by their number
            chosen = x.index(chosen) if chosen in x else None  # a blend is none of them
            if len(x) <= MOST_NAMES:
                axes.set_xticks(range(len(x)), [shown(c) for c in x], rotation=30, fontsize=7)
            x = list(range(len(x)))
        axes.plot(x, curve["accuracy"], color=COLOURS[0], marker=MARKERS[0], label="right (%)")
        if zero_shot is not None:
            axes.axhline(zero_shot, color="0.5", linestyle=":", label="zero-shot CLIP")
        if min(x) > 0 and max(x) / min(x) > 100:
            axes.set_xscale("log")
        if chosen is None:
            axes.plot([], [], " ", label=label)
        else:
            axes.axvline(chosen, color=COLOURS[6], linewidth=1, label=label)
        axes.set_xlabel(str(curve["parameter"]).replace("_", " "))
        axes.set_ylabel("right on held-out shots (%)", color=COLOURS[0])
        loss = axes.twinx()
        loss.plot(
            x, curve["loss"], color=COLOURS[1], marker=MARKERS[1], linestyle="--", label="loss"
        )
        loss.set_ylabel("loss on held-out shots (nats)", color=COLOURS[1])
        _legend(axes, [*axes.get_lines(), *loss.get_lines()])
    return figure


def shots_figure(
    shots: Sequence[int], rows: Mapping[str, Sequence[tuple[float, float]]], title: str
) -> Figure:
    """Accuracy by shots, one line per method, with bars of one standard deviation.

    Args:
        shots: S numbers of pictures per class.
        rows: by method, (mean, standard deviation) in percent at each of the S.
        title: above the figure.
    """
    figure, (axes,) = _figure(
        6.5,
        4.5,
        [title],
        xlabel="labelled pictures per class",
        ylabel="right on the test pictures (%)",
    )
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS))
    for (name, points), (colour, marker) in zip(rows.items(), looks, strict=False):
        means, deviations = zip(*points, strict=True)
        axes.errorbar(
            shots,
            means,
            yerr=deviations,
            label=name,
            color=colour,
            marker=marker,
            linestyle=":" if name == "zero-shot" else "-",
            capsize=3,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(shots), [str(k) for k in shots])
    axes.grid(alpha=0.3)
    _legend(axes, axes.get_legend_handles_labels()[0])
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG whole or not at all; a folder made for it is marked as output.

    Letters that the font lacks come from other fonts that are installed here.

    Raises:
        DataError: it cannot be written.
    """
    from matplotlib.text import Text

    texts = [one for one in figure.findobj(Text) if isinstance(one, Text)]
    families = _families({letter for one in texts for letter in one.get_text()})
    for one in texts:
        one.set_fontfamily(families)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Told already; such a letter is drawn as a box, and the rest is right.
        warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib currently does not support")
        figure.savefig(buffer, format="png", dpi=DPI)
    return write_output(path, buffer.getvalue())


def _families(letters: set[str]) -> list[str]:
    """The usual font, then as many installed ones as are needed to have all ``letters``."""
    from matplotlib import font_manager, rcParams

    usual = font_manager.findfont(font_manager.FontProperties())
    lacking = {ord(letter) for letter in letters if letter.isprintable()}
    lacking -= font_manager.get_font(usual).get_charmap().keys()
    families = list(rcParams["font.family"])
    for font in font_manager.fontManager.ttflist if lacking else []:
        # The last resort has a box for every letter.
        if font.style == "normal" and "Last Resort" not in font.name:
            has = font_manager.get_font(font.fname).get_charmap().keys()
            families += [font.name] if lacking & has else []
            lacking -= has
    if lacking:
        log.warning(
            f"No font here has the letters {listed(map(chr, sorted(lacking)))}: they are drawn as "
            "boxes. Install a font that has them, such as Noto Sans of that script."
        )
    return families


def _legend(axes: Axes, handles: Sequence[Any]) -> None:
    """A legend below the axes, where it hides nothing."""
    figure: Any = axes.get_figure()
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=7)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _figure(
    width: float, height: float, titles: Sequence[str], **words: Any
) -> tuple[Figure, list[Axes]]:
    """Axes beside each other, one for each title; ``words`` are set on all of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    parts = figure.subfigures(1, len(titles), squeeze=False)[0]
    for part, title in zip(parts, titles, strict=True):
        axes = part.subplots()
        axes.set_title(title, fontsize=10)
        axes.set(**words)
    return figure, figure.axes
