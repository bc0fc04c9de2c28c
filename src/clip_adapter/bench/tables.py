"""Tables: what was found beside the published numbers, as entries of a frame, and its pivots.

An entry of ours is the mean over seeds and their standard deviation. The best of a column is bold,
in ours and in the published ones each for itself. Nothing that differs between two machines is in
it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clip_adapter.bench.compare import INCOMPLETE, METHOD, SETTING, compared
from clip_adapter.bench.frame import CELL, Findings, Frame, mean_of

MISSING = "-"
OURS, PAPER, DIFFERENCE = "ours", "paper", "difference"
# Of an entry: the places and heads of its row and column, and what is in it.
ENTRY = ["row", "label", "column", "title", "kind", "text", "value", "deviation", "seeds"]
SAME = "The difference is ours minus the published number."
CHOSEN = "The paper names no validation data for its ratios; ours are chosen on the shots."
DIGITISED = "The published numbers were read off a plot, to 0.2 points."
NOTES = {
    SETTING: "The published numbers are of another data set, backbone, preprocessing or number of "
    "shots: they show the shape of the finding, and no difference is given.",
    INCOMPLETE: "Published numbers without a difference stand beside results of another or an "
    "incomplete data set (ready-made features, a copy split its own way, other classes or other "
    "test pictures): they show the shape alone.",
    METHOD: "Published numbers without a difference stand beside another method, or prompts of "
    "one's own: they show the shape alone.",
}


@dataclass(frozen=True)
class Table:
    """Entries, and what is said of them.

    Attributes:
        name: of its files.
        caption: above it; "" where it is the only one of its recipe.
        entries: rows with the columns ``ENTRY`` and ``bold``.
        notes: sentences below.
        chosen: what was chosen, as entries; none where nothing was.
    """

    name: str
    caption: str
    entries: Frame
    notes: list[str]
    chosen: Frame = field(default_factory=pd.DataFrame)


def tables(findings: Findings) -> list[Table]:
    """The tables of a recipe; none for the measure "cost", or where nothing is to compare."""
    recipe, result = findings.recipe, []
    keys, parts = {
        "shots": (["dataset", "backbone"], ["shots"]),
        "backbone": (["dataset", "shots"], ["backbone"]),
        "shift": (["dataset", "backbone", "shots"], ["test_set"]),
    }.get(recipe.columns, ([], ["dataset", "backbone", "shots"]))
    cells = compared(findings)
    if recipe.columns != "shift":
        cells = cells[cells.test_set == cells.dataset]
    groups = cells.groupby(keys, sort=False) if keys else [((), cells)]
    heads = cells.drop_duplicates(keys) if keys else cells[:0]
    for key, own in groups:
        if own.label.nunique() < 2 or recipe.measure == "cost":
            continue
        caption = _varying(heads, dict(zip(keys, key, strict=True)), keys)
        titles = [
            ", ".join(_varying(own, cell, parts)) or cell["test_set"]
            for cell in own[CELL[1:]].to_dict("records")
        ]
        order = {label: number for number, label in enumerate(s.label for s in findings.systems)}
        own = own.assign(title=titles, row=3 * own.label.map(order))
        own["column"] = 3 * own.groupby(CELL[1:], sort=False).ngroup()
        own["label"] = own.label.map(
            {s.label: findings.shown_as(s.label) for s in findings.systems}
        )
        plane = recipe.measure == "tsne"
        chosen = own[
            (not plane)
            & own.chosen.groupby(own.row).transform("any")
            & (own.test_set == own.dataset)
        ]
        chosen = chosen.assign(text=chosen.chosen.replace("", MISSING), kind=OURS, bold=False)
        name, notes = "-".join([recipe.name, *caption]), _notes(findings, own)
        make = _silhouettes if plane else _entries
        result.append(Table(name, ", ".join(caption), make(findings, own), notes, chosen))
    return result


def _varying(among: Frame, place: Any, names: Sequence[str]) -> list[str]:
    """The parts of ``place`` that differ ``among`` places; the first where there is only one."""
    kept = [name for name in names if among[name].nunique() > 1]
    kept = kept or list(names[: len(among[names].drop_duplicates()) == 1])
    return [shots_word(place[name]) if name == "shots" else str(place[name]) for name in kept]


def shots_word(shots: int) -> str:
    """``1 shot``, ``2 shots``."""
    return "1 shot" if shots == 1 else f"{shots} shots"


def reasons(cells: Frame) -> dict[str, int]:
    """The first line of why runs failed, each once, with a number."""
    lines = dict.fromkeys(line for own in cells.failures for line in _first_lines(own))
    return {line: number for number, line in enumerate(lines, start=1)}


def _first_lines(failures: Sequence[str]) -> list[str]:
    return [(reason.splitlines() or ["unknown"])[0] for reason in failures]


def _text(cell: Any, numbers: dict[str, int]) -> str:
    """An accuracy, or why there is none."""
    lines = _first_lines(cell.failures)
    text = "failed" if lines else MISSING
    if cell.seeds:
        text = f"{cell.value:.2f}" + (f" ± {cell.deviation:.2f}" if cell.seeds > 1 else "")
        few = cell.seeds < cell.wanted
        text += f" ({cell.seeds} of {cell.wanted} seeds)" if few else ""
        few = cell.best_of < cell.settings
        text += f" ({cell.best_of} of {cell.settings} settings)" if few else ""
    return text + "".join(f" [{numbers[line]}]" for line in lines)


def _entries(findings: Findings, cells: Frame) -> Frame:
    """Published numbers and differences as columns; below ours where shots are the columns."""
    numbers, below = reasons(cells), findings.recipe.columns == "shots"
    ours = cells.assign(text=[_text(cell, numbers) for cell in cells.itertuples()], kind=OURS)
    line = cells.row if below else cells.column
    heads = (cells.source + ": " + cells["where"]).groupby(line).transform("first")
    theirs = cells.assign(value=cells.theirs, kind=PAPER, head=heads)[heads.notna()]
    apart = cells.assign(value=(cells.value - cells.theirs).where(cells.why == ""))
    some = (cells.why == "").groupby(line).transform("any")
    apart = apart.assign(kind=DIFFERENCE, head=DIFFERENCE)[some]
    parts = [bold(ours)]
    for number, (part, form) in enumerate(((theirs, "{:.2f}"), (apart, "{:+.2f}")), start=1):
        text = part.value.map(form.format).where(part.value.notna(), MISSING)
        part = part.assign(text=text, deviation=float("nan"), seeds=0)
        names = part.row.floordiv(3).map(dict(enumerate(s.label for s in findings.systems)))
        if below:
            label, row = names + ", " + part["head"], part.row + 1000 + number
            parts.append(part.assign(label=label, row=row, bold=False))
        else:
            part = part.assign(title=part["head"], column=part.column + number)
            parts.append(bold(part) if number == 1 else part.assign(bold=False))
    return pd.concat(parts)


def bold(entries: Frame, digits: int = 2) -> Frame:
    """Mark the highest of each column, and all that are shown as the same number."""
    shown: Frame = pd.Series([round(value, digits) for value in entries.value], entries.index)
    columns = shown.groupby(entries.column)
    highest = (columns.transform("max") == shown) & (columns.transform("count") > 1)
    return entries.assign(bold=highest)


def _silhouettes(findings: Findings, cells: Frame) -> Frame:
    """How far the classes lie apart, beside the accuracy of the same classifiers."""
    numbers = reasons(cells)
    texts = [_text(cell, numbers) for cell in cells.itertuples()]
    right = cells.assign(text=texts, title=cells.title + ": right (%)", kind=OURS)
    values = pd.Series([mean_of(r, "silhouette")["value"] for r in cells.runs], cells.index)
    texts = values.map("{:.3f}".format).where(values.notna(), MISSING)
    apart = right.assign(text=texts, value=values, deviation=float("nan"), seeds=0)
    apart = apart.assign(title="silhouette", column=cells.column + 1)
    return pd.concat([bold(right), bold(apart, 3)])


def _notes(findings: Findings, cells: Frame) -> list[str]:
    """What is to be said below a table."""
    recipe, whys = findings.recipe, set(cells.why)
    searches = recipe.protocol == "ours" and any(s.search for s in recipe.systems)
    names = [s.of or s.label for s in findings.systems]
    odd = [
        f"Published {cell.theirs:.2f} of {names[cell.row // 3]!r}: {cell.note}."
        for cell in cells.itertuples()
        if cell.note and cell.note == cell.note
    ]
    return [
        *(f"[{number}] {line}" for line, number in reasons(cells).items()),
        *([SAME, *([CHOSEN] if searches else [])] if "" in whys else []),
        *(note for why, note in NOTES.items() if why in whys),
        *([DIGITISED] if cells.digitised.eq(True).any() else []),
        *dict.fromkeys(odd),
    ]


def markdown(entries: Frame, notes: Sequence[str] = ()) -> str:
    """A pipe table, with its notes below; published numbers are in italics."""
    ours = entries[entries.kind == OURS]
    theirs = {
        "text": (entries.kind != OURS) & (entries.text != MISSING),
        "label": ~entries.row.isin(ours.row),
        "title": ~entries.column.isin(ours.column),
    }
    plain = {name: entries[name].map(escaped) for name in theirs}
    texts = {
        name: plain[name].mask(where, "*" + plain[name] + "*") for name, where in theirs.items()
    }
    texts["text"] = texts["text"].mask(entries.bold, "**" + plain["text"] + "**")
    wide = _wide(entries.assign(**texts))
    table = wide.to_markdown(index=False, disable_numparse=True, tablefmt="github")
    return "\n".join([table, "", *(f"{escaped(note)}  " for note in notes)]).rstrip() + "\n"


def escaped(text: str) -> str:
    """Nothing in ``text`` is markup."""
    return re.sub(r"([\\|*_`\[\]<>]|^#)", r"\\\1", " ".join(text.split()))


def csv_text(entries: Frame) -> str:
    """Numbers as they are: a column for each, and standard deviation and seeds beside ours."""
    four, words = "{:.4f}".format, entries.text.where(entries.text != MISSING, "")
    texts = {
        "": entries.value.map(four).where(entries.value.notna(), words),
        ": deviation": entries.deviation.map(four).where(entries.deviation.notna(), ""),
        ": seeds": entries.seeds.map("{:.0f}".format).where(entries.seeds > 0, ""),
    }
    ours = entries.column.isin(entries.column[entries.kind == OURS])
    parts = []
    for number, (ending, text) in enumerate(texts.items()):
        part = entries.assign(text=text, title=entries.title + ending)
        parts.append(part.assign(column=part.column * 3 + number)[ours | (number == 0)])
    return _wide(pd.concat(parts), "").to_csv(index=False, lineterminator="\n")


def latex(entries: Frame, notes: Sequence[str] = ()) -> str:
    r"""A ``tabular`` for ``\usepackage{booktabs}``, with the notes as comments above."""
    texts = {name: entries[name].str.translate(_TEX) for name in ("text", "label", "title")}
    texts["text"] = texts["text"].mask(entries.bold, r"\textbf{" + texts["text"] + "}")
    wide = _wide(entries.assign(**texts))
    body = wide.to_latex(index=False, escape=False, column_format="l" + "r" * (wide.shape[1] - 1))
    return "".join(f"% {' '.join(note.split())}\n" for note in notes) + body


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
    labels = entries.drop_duplicates("row").set_index("row").label
    titles = entries.drop_duplicates("column").set_index("column").title
    wide = wide.sort_index().sort_index(axis=1)
    wide.columns = titles[wide.columns].tolist()
    wide.insert(0, "system", labels[wide.index].tolist(), allow_duplicates=True)
    return wide
