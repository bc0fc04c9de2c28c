"""Tables as files: the best in bold, deviations, Markdown, CSV and LaTeX."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from clip_adapter.bench.formats import csv_text, latex, markdown
from clip_adapter.bench.layout import Cell, Column, Row, Table, best_bold
from clip_adapter.bench.values import Measured, top1


@given(st.lists(st.floats(0, 100) | st.none(), min_size=1, max_size=8))
def test_the_best_of_a_column_is_bold(values):
    cells = best_bold([Cell("x", value) for value in values])
    known = [v for v in values if v is not None]
    bold = [c.value for c in cells if c.bold]
    if len(known) < 2:
        assert bold == []
    else:
        assert max(known) in bold
        assert all(round(v, 2) == round(max(known), 2) for v in bold)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=5))
def test_deviation_is_that_of_the_sample(values):
    number = Measured(tuple({"top1": v} for v in values)).number(top1())
    assert number.deviation == statistics.stdev(values)
    assert number.seeds == len(values)


ODD = Table(
    "odd",
    "",
    "system",
    (Column("a_b|c"), Column("paper: 50 %", "paper")),
    (
        Row("A & B", (Cell("61.00 ± 1.00", 61.0, 1.0, 3, True), Cell("60.00", 60.0))),
        Row("#2", (Cell("failed [1]"), Cell())),
    ),
    ("[1] it broke",),
)


def test_markdown_keeps_its_columns():
    lines = markdown(ODD).splitlines()
    assert lines[0] == r"| system | a\_b\|c | *paper: 50 %* |"
    assert lines[2] == "| A & B | **61.00 ± 1.00** | *60.00* |"
    assert lines[3] == r"| \#2 | failed \[1\] | - |"
    assert lines[-1] == r"\[1\] it broke"


def test_csv_holds_numbers():
    assert csv_text(ODD).splitlines() == [
        "system,a_b|c,a_b|c: deviation,a_b|c: seeds,paper: 50 %",
        "A & B,61.0000,1.0000,3,60.0000",
        "#2,failed [1],,,",
    ]


def test_latex_is_escaped():
    text = latex(ODD)
    assert r"system & a\_b|c & paper: 50 \% \\" in text
    assert r"A \& B & \textbf{61.00 $\pm$ 1.00} & 60.00 \\" in text
    assert text.startswith("% [1] it broke\n\\begin{tabular}{lrr}\n\\toprule\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
