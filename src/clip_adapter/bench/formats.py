"""Writers of a :class:`~clip_adapter.bench.layout.Table`: Markdown, CSV and LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
import re

from clip_adapter.bench.layout import Cell, Row, Table

OURS = "ours"
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def markdown(table: Table) -> str:
    """A pipe table, with its notes below; published rows and columns are in italics."""
    titles = [(escaped(column.title), column.kind) for column in table.columns]
    heads = [title if kind == OURS else f"*{title}*" for title, kind in titles]
    lines = [_line([table.corner, *heads]), _line(["---"] * (len(heads) + 1))]
    for row in table.rows:
        kinds = [c.kind if row.kind == OURS else row.kind for c in table.columns]
        cells = [_markdown_cell(c, k) for c, k in zip(row.cells, kinds, strict=True)]
        label = escaped(row.label)
        lines.append(_line([label if row.kind == OURS else f"*{label}*", *cells]))
    text = "\n".join(lines) + "\n"
    if table.notes:
        text += "\n" + "\n".join(f"{escaped(note)}  " for note in table.notes).rstrip() + "\n"
    return text


def _markdown_cell(cell: Cell, kind: str) -> str:
    text = escaped(cell.text)
    if cell.bold:
        return f"**{text}**"
    return text if kind == OURS or cell.value is None else f"*{text}*"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Nothing in ``text`` is markup."""
    return re.sub(r"([\\|*_`\[\]<>]|^#)", r"\\\1", " ".join(text.split()))


def csv_text(table: Table) -> str:
    """Numbers as they are: a column for each, and standard deviation and seeds beside ours."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ours = [c.kind == OURS for c in table.columns]
    heads = [table.corner]
    for column, own in zip(table.columns, ours, strict=True):
        heads += [column.title]
        heads += [f"{column.title}: deviation", f"{column.title}: seeds"] if own else []
    writer.writerow(heads)
    for row in table.rows:
        fields = [row.label]
        for cell, own in zip(row.cells, ours, strict=True):
            fields += [_csv_cell(cell)]
            fields += [_number(cell.deviation), str(cell.seeds or "")] if own else []
        writer.writerow(fields)
    return out.getvalue()


def _csv_cell(cell: Cell) -> str:
    return cell.text if cell.value is None and cell.text != "-" else _number(cell.value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def latex(table: Table) -> str:
    r"""A ``tabular`` for ``\usepackage{booktabs}``, with the notes as comments above."""
    lines = [f"% {' '.join(note.split())}" for note in table.notes]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines += [_latex_line([table.corner, *(c.title for c in table.columns)]), r"\midrule"]
    lines += [_latex_row(row) for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(row: Row) -> str:
    cells = [_tex(row.label)]
    cells += [rf"\textbf{{{_tex(c.text)}}}" if c.bold else _tex(c.text) for c in row.cells]
    return " & ".join(cells) + r" \\"


def _latex_line(words: list[str]) -> str:
    return " & ".join(map(_tex, words)) + r" \\"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
