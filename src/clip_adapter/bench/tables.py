"""Tables: what was found beside the published numbers, as entries of a frame, and its pivots.

An entry of ours is the mean over seeds and their standard deviation. The best of a column is bold,
in ours and in the published ones each for itself. What differs between two machines, seconds and
memory, is in tables of their own, without a difference: the paper's seconds are of an A100, its
memory is the GPU's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clip_adapter.bench.frame import (
    CELL,
    INCOMPLETE,
    METHOD,
    SETTING,
    Findings,
    Frame,
    load_published,
    row_of,
    table_number,
)
from clip_adapter.bench.recipe import System
from clip_adapter.methods import make_method
from clip_adapter.wording import counted

MISSING, WHOLE = "-", "timed whole"
OURS, PAPER, DIFFERENCE = "ours", "paper", "difference"
# What a table is of, and what stands beside each other in it, by a recipe's ``columns``.
LAYOUTS = {
    "shots": (["dataset", "backbone"], ["shots"]),
    "backbone": (["dataset", "shots"], ["backbone"]),
    "shift": (["dataset", "backbone", "shots"], ["test_set"]),
}
SAME = "The difference is ours minus the published number."
CHOSEN = "The paper names no validation data for its ratios; ours are chosen on the shots."
NOTES = {
    SETTING: "The published numbers are of another data set, backbone, preprocessing or number of "
    "shots: they show the shape of the finding, and no difference is given.",
    INCOMPLETE: "Published numbers without a difference stand beside results of another or an "
    "incomplete data set (ready-made features, a copy split its own way, other classes or other "
    "test pictures): they show the shape alone.",
    METHOD: "Published numbers without a difference stand beside another method, or prompts of "
    "one's own: they show the shape alone.",
}


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


_mib, _count = "{:,.0f} MiB".format, "{:,.0f}".format
# Recipes of accuracies whose costs are of interest as well.
COSTED = ("table2", "table3", "table10", "peers")
# (head, number of a record, how it is written, the paper's metric and what that is called)
TRAINING = (
    ("training", "train_seconds", _seconds, "train_time", "training"),
    ("features of all shots, once", "embed_seconds", _seconds, "", ""),
    ("trained parameters", "trained_parameters", _count, "parameters", "trained parameters"),
)
ALONE = (
    *TRAINING,
    ("memory in training", "train_peak_mib", _mib, "", ""),
    ("a picture", "infer_ms", "{:.3g} ms".format, "inference", "a picture"),
    ("memory in answering", "infer_peak_mib", _mib, "memory", "memory"),
)
BESIDE = (
    *TRAINING,
    ("peak memory of the process", "peak_memory_mib", _mib, "memory", "memory"),
)


@dataclass(frozen=True)
class Table:
    """Entries, and what is said of them.

    Attributes:
        name: of its files.
        caption: above it; "" where it is the only one of its recipe.
        entries: rows with the columns row and column (their places), label and title (their heads),
            kind, text, value, deviation, seeds and bold.
        notes: sentences below.
        chosen: what was chosen, as entries; none where nothing was.
    """

    name: str
    caption: str
    entries: Frame
    notes: Sequence[str] = ()
    chosen: Frame = None

    def markdown(self, mark: str = "#### ") -> str:
        """A pipe table, with its notes below; published numbers are in italics."""
        entries, lines = self.entries, [f"{escaped(note)}  " for note in self.notes]
        ours = entries[entries.kind == OURS]
        italic = {
            "text": (entries.kind != OURS) & (entries.text != MISSING),
            "label": ~entries.row.isin(ours.row),
            "title": ~entries.column.isin(ours.column),
        }
        plain = entries[[*italic]].map(escaped)
        marked = plain.mask(pd.DataFrame(italic), "*" + plain + "*")
        marked["text"] = marked.text.mask(entries.bold, "**" + plain.text + "**")
        table = _wide(entries.assign(**marked)).to_markdown(
            index=False, disable_numparse=True, tablefmt="github"
        )
        caption = f"{mark}{escaped(self.caption)}\n\n" if self.caption else ""
        return caption + "\n".join([table, "", *lines]).rstrip() + "\n"

    def csv(self) -> str:
        """Numbers as they are: a column for each, and standard deviation and seeds beside ours."""
        entries, four = self.entries, "{:.4f}".format
        ours = entries.column.isin(entries.column[entries.kind == OURS])
        columns = {
            "": entries.value.map(four).where(
                entries.value.notna(), entries.text.replace(MISSING, "")
            ),
            ": deviation": entries.deviation.map(four).where(entries.deviation.notna(), "")[ours],
            ": seeds": entries.seeds.map("{:.0f}".format).where(entries.seeds > 0, "")[ours],
        }
        parts = [
            entries.loc[text.index].assign(
                text=text, title=entries.title + ending, column=3 * entries.column + place
            )
            for place, (ending, text) in enumerate(columns.items())
        ]
        return _wide(pd.concat(parts), "").to_csv(index=False, lineterminator="\n")

    def tex(self) -> str:
        r"""A ``tabular`` for ``\usepackage{booktabs}``, with the notes as comments above."""
        texts = self.entries[["text", "label", "title"]].map(lambda text: text.translate(_TEX))
        texts["text"] = texts.text.mask(self.entries.bold, r"\textbf{" + texts.text + "}")
        wide = _wide(self.entries.assign(**texts))
        form = "l" + "r" * (wide.shape[1] - 1)
        notes = "".join(f"% {' '.join(note.split())}\n" for note in self.notes)
        return notes + wide.to_latex(index=False, escape=False, column_format=form)


def escaped(text: str) -> str:
    """Nothing in ``text`` is markup."""
    return re.sub(r"([\\|*_`\[\]<>]|^#)", r"\\\1", " ".join(text.split()))


_TEX = str.maketrans(
    {
        **{mark: "\\" + mark for mark in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}"},
    }
)


def _wide(entries: Frame, missing: str = MISSING) -> Frame:
    """Rows and columns in their order, with their heads."""
    wide = entries.pivot(index="row", columns="column", values="text").fillna(missing)
    labels, titles = (
        entries.drop_duplicates(by).set_index(by)[name][order].tolist()
        for by, name, order in (("row", "label", wide.index), ("column", "title", wide.columns))
    )
    wide = wide.set_axis(titles, axis=1)
    wide.insert(0, "system", labels, allow_duplicates=True)
    return wide


def tables(findings: Findings) -> list[Table]:
    """The tables of a recipe; none for the measure "cost", or where nothing is to compare."""
    recipe, cells, result = findings.recipe, findings.cells, list[Table]()
    keys, parts = LAYOUTS.get(recipe.columns, ([], ["dataset", "backbone", "shots"]))
    if recipe.columns != "shift":
        cells = cells.query("test_set == dataset")
    cells = cells.assign(
        name=cells.label,
        label=cells.label.map(findings.shown_as),
        row=3 * cells.label.map([system.label for system in findings.systems].index),
        kind=OURS,
        bold=False,
    )
    for key, own in cells.groupby(keys, sort=False) if keys else [((), cells)]:
        if own.label.nunique() < min(2, len(recipe.systems)) or recipe.costs:
            continue
        several = cells.drop_duplicates(keys) if keys else cells[:0]
        caption = _varying(several, dict(zip(keys, key, strict=True)), keys)
        titles = [
            ", ".join(_varying(own, cell, parts)) or cell["test_set"]
            for cell in own[CELL[1:]].to_dict("records")
        ]
        own = own.assign(title=titles, column=3 * own.groupby(CELL[1:], sort=False).ngroup())
        entries, name = _entries(findings, own), "-".join([recipe.name, *caption])
        chosen = own.assign(text=own.chosen.replace("", MISSING))[
            own.chosen.groupby(own.row).transform("any")
            & (own.test_set == own.dataset)
            & (recipe.measure != "tsne")
        ]
        result.append(Table(name, ", ".join(caption), entries, _notes(findings, own), chosen))
    return result


def _varying(among: Frame, place: Any, names: Sequence[str]) -> list[str]:
    """The parts of ``place`` that differ ``among`` places; the first where there is only one."""
    several = [name for name in names if among[name].nunique() > 1]
    kept = several or names[: len(among[names].drop_duplicates()) == 1]
    return [counted(place[name], "shot") if name == "shots" else str(place[name]) for name in kept]


def _reasons(cells: Frame) -> dict[str, int]:
    """Why runs failed, each once, with a number."""
    lines = cells.failures.explode().dropna().unique()
    return {line: number for number, line in enumerate(lines, start=1)}


def _texts(cells: Frame) -> list[str]:
    """Accuracies, or why there is none."""
    texts, numbers = [], _reasons(cells)
    for cell in cells.itertuples():
        text = "failed" if cell.failures else MISSING
        if cell.seeds:
            text = f"{cell.value:.2f}" + f" ± {cell.deviation:.2f}" * (cell.deviation >= 0)
            text += f" ({cell.seeds} of {cell.wanted} seeds)" * (cell.seeds < cell.wanted)
            text += f" ({cell.best_of} of {cell.settings} settings)" * (
                cell.best_of < cell.settings
            )
        texts.append(text + "".join(f" [{numbers[line]}]" for line in cell.failures))
    return texts


def _entries(findings: Findings, cells: Frame) -> Frame:
    """Ours, and beside it published numbers and differences, or how far the classes lie apart.

    Where shots are the columns, the published stand below.
    """
    below, same = findings.recipe.columns == "shots", cells.why == ""
    line = cells.row if below else cells.column
    heads = (cells.source + ": " + cells["where"]).groupby(line).transform("first")
    some, ours = same.groupby(line).transform("any"), cells.assign(text=_texts(cells))
    # (kind, numbers, head, where there are any, how they are written)
    further: list[tuple[str, Frame, Any, Frame, str]] = [
        (PAPER, cells.theirs, heads, heads.notna(), "{:.2f}"),
        (DIFFERENCE, (cells.value - cells.theirs).where(same), DIFFERENCE, some, "{:+.2f}"),
    ]
    if findings.recipe.measure == "tsne":
        silhouettes = findings.numbers["silhouette"].value[cells.index]
        further = [(OURS, silhouettes, "silhouette", cells.row >= 0, "{:.3f}")]
        ours = ours.assign(title=cells.title + ": right (%)")
    parts = [bold(ours)]
    for number, (kind, values, head, kept, form) in enumerate(further, start=1):
        text = values.map(form.format).where(values.notna(), MISSING)
        part = cells.assign(
            kind=kind, value=values, deviation=float("nan"), seeds=0, text=text, head=head
        )[kept]
        if below:
            part = part.assign(label=part.name + ", " + part["head"], row=part.row + 1000 + number)
        else:
            part = part.assign(title=part["head"], column=part.column + number)
        ranked = kind != DIFFERENCE and not below
        parts.append(bold(part, digits=3 if kind == OURS else 2) if ranked else part)
    return pd.concat(parts, ignore_index=True)


def bold(entries: Frame, digits: int = 2) -> Frame:
    """Mark the highest of each column, and all that are shown as the same number."""
    shown: Frame = pd.Series([round(value, digits) for value in entries.value], entries.index)
    columns = shown.groupby(entries.column)
    return entries.assign(
        bold=(columns.transform("count") > 1) & (columns.transform("max") == shown)
    )


def _notes(findings: Findings, cells: Frame) -> list[str]:
    """What is to be said below a table."""
    whys, recipe = set(cells.why), findings.recipe
    searched = recipe.protocol == "ours" and any(system.search for system in recipe.systems)
    names = {s.label: s.of or s.label for s in findings.systems}
    odd = [
        f"Published {cell.theirs:.2f} of {names[cell.name]!r}: {cell.note}."
        for cell in cells[cells.note.fillna("") != ""].itertuples()
    ]
    said = {
        **{f"[{number}] {line}": True for line, number in _reasons(cells).items()},
        SAME: "" in whys,
        CHOSEN: "" in whys and searched,
        **{note: why in whys for why, note in NOTES.items()},
        "No ± where all seeds had the same shots and came to the same: "
        "nothing was redrawn.": cells.repeated.any(),
        "Where all seeds had the same shots, ± is the spread of the method's own "
        "randomness, not of draws.": (cells.same_shots & (cells.deviation > 0)).any(),
        "The published numbers were read off a plot, to 0.2 points.": True in set(cells.digitised),
        **dict.fromkeys(odd, True),
    }
    return [note for note, holds in said.items() if holds]


def cost_tables(findings: Findings, every: Sequence[Findings]) -> list[Table]:
    """A table for each data set and backbone, at the most shots; none where costs are not asked.

    Args:
        findings: of a recipe.
        every: of all recipes of the profile, for the accuracies beside measured costs.
    """
    recipe, cells, result = findings.recipe, findings.cells, list[Table]()
    if findings.few or not (recipe.costs or recipe.name in COSTED):
        return []
    cells = cells.query("test_set == dataset")
    most = cells.groupby(["dataset", "backbone"]).shots.transform("max")
    groups = cells[cells.shots == most].groupby(["dataset", "backbone", "shots"], sort=False)
    for (name, _, shots), own in groups:
        on = f"{recipe.cost.backbone}, {recipe.cost.classes} classes" if recipe.costs else name
        parts = [
            numbers.assign(
                row=range(len(own)), label=own.label.tolist(), column=place, title=title, bold=False
            ).assign(kind=PAPER if title.startswith(PAPER) else OURS)
            for place, (title, numbers) in enumerate(_cost_columns(findings, own, every).items())
            if numbers.value.notna().any()
        ]
        if parts:
            entries = pd.concat(parts, ignore_index=True).fillna({"text": MISSING})
            caption = f"{on}, {shots} shots"
            result.append(Table(f"{recipe.name}-costs-{name}", caption, entries, _how(own)))
    return result


def _cost_columns(findings: Findings, cells: Frame, every: Sequence[Findings]) -> dict[str, Frame]:
    """Value, deviation, seeds and text of each row by the head of their column."""
    recipe, table, columns = findings.recipe, table_number(findings.recipe), dict[str, Frame]()
    published = load_published().query("table == @table")
    names = [row_of(s, table) for s in findings.systems if s.label in set(cells.label)]
    failed = cells.failures.astype(bool).map({True: "failed", False: MISSING})

    def paper(metric: str) -> Frame:
        own = published[published.metric == metric].drop_duplicates("row").set_index("row")
        return own[["value", "text"]].reindex(names)

    for head, number, write, metric, word in ALONE if recipe.costs else BESIDE:
        ours = findings.numbers[number].loc[cells.index]
        columns[head] = ours.assign(text=ours.value.map(write).where(ours.seeds > 0, failed))
        if table and metric and ours.seeds.any():
            columns[f"paper: {word}"] = paper(metric)
    if recipe.costs:
        on, known = _accuracies(findings, every)
        columns[f"right on {on} (%)"] = known.reindex(cells.label)
        if table:
            columns[f"paper: right on {published.dataset.iloc[0]} (%)"] = paper("top1")
    return columns


def _accuracies(findings: Findings, every: Sequence[Findings]) -> tuple[str, Frame]:
    """A data set, and by label the accuracy on it of the systems in other recipes, at one shots.

    They are known by method and training recipe; a ratio is free. On the data set of ``findings``
    if there is a result, else on the first that has one.
    """
    here, rows = findings.cells, list[tuple[Any, ...]]()
    for other in (other for other in every if other.recipe.measure == "accuracy"):
        # At the defaults, but for the training recipe.
        usual = {
            _training(s): s.label
            for s in reversed(other.systems)
            if not s.prompts and set(s.options) <= {"recipe"}
        }
        cells = other.cells.query("test_set == dataset and seeds > 0")
        rows += [
            (cell.dataset, system.label, cell.value, cell.deviation, cell.seeds)
            for cell in cells[cells.shots.isin(here.shots)].itertuples()
            for system in findings.systems
            if usual.get(_training(system)) == cell.label
        ]
    names = ["dataset", "label", "value", "deviation", "seeds"]
    known = pd.DataFrame(rows, columns=names).drop_duplicates(names[:2])
    known["text"] = known.value.map("{:.2f}".format)
    name = next((n for n in [*here.dataset, *known.dataset] if n in set(known.dataset)), "")
    return name, known[known.dataset == name].set_index("label")


def _training(system: System) -> tuple[str, str]:
    return system.method, vars(make_method(system.method, system.options)).get("recipe", "")


def _how(cells: Frame) -> list[str]:
    """How a training was timed, failures, and the machine."""
    records = [(cell.label, record) for cell in cells.itertuples() for record in cell.records]
    timed = [(label, record.get("train_how", WHOLE)) for label, record in records]
    lines = [
        *(f"{label}: {how}, and multiplied." for label, how in timed if how != WHOLE),
        *(f"{cell.label} failed: {why}" for cell in cells.itertuples() for why in cell.failures),
        *(
            f"Measured on {name}, {machine.get('threads')} thread"
            f"{'s' * (machine.get('threads') != 1)}."
            for _, record in records
            for machine in [record.get("hardware", {})]
            if (name := machine.get("accelerator") or machine.get("processor"))
        ),
    ]
    return list(dict.fromkeys(lines))
