"""The zoo: every method on many small tasks, even and uneven, against zero-shot.

    python benchmarks/zoo --features FOLDER --out FOLDER [--profile small] [--methods a b]

Needs the extra ``dev`` (pandas). Writes one JSON file per run into OUT, skips those that are there,
and prints per method: the mean gain over zero-shot, the regret, the cells significantly under
zero-shot, the worst cell, seconds.
The profiles: small (minutes), tune, confirm (sets on which nothing was chosen), blind (no text).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pandas as pd
from cells import profile
from report import ZERO_SHOT, by_departure, compared, load, summary, table
from run import run_all

from clip_adapter.files import write_file

WITH_TEXT = (
    "auto", "ape", "ape-t", "clap", "clip-adapter", "clip-adapter-cache", "gda", "l-2p", "lp++",
    "taskres", "tip-adapter", "tip-adapter-f", "wise-ft", ZERO_SHOT,
)  # fmt: skip
BLIND = ("auto", "gda", "linear-probe", "r-2p")

EXPLAINED = """# The zoo

<!-- Written by `{command} --features FOLDER --out FOLDER --page FILE`. -->

Few-shot tasks drawn from feature sets: a cell is a set, a number of classes and shots, and one
departure from the even folder; it pools disjoint class subsets and ten draws or more. Differences
are paired over test pictures, averaged over draws, in points. *mean gain* is over `{base}`; *mean
regret* is to the best single method of each cell, found on one half of the test pictures and
compared on the other, both ways; *cells under*: by over two standard errors; *under by 1*: those
that with two standard errors added are still under by one point. The second table has mean gains
by departure, the last what `{default}`'s gain is above that of each method, with its standard
error over the cells. Seconds are of `fit`, on a machine that was busy."""


def main() -> None:
    """Runs, then prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", default="small")
    parser.add_argument("--methods", nargs="*", default=None)
    parser.add_argument("--cells", default="", help="a regular expression on the cells' names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--default", default="auto")
    parser.add_argument("--page", type=Path, help="a file that gets the tables too")
    parser.add_argument("--permuted", action="store_true", help="permuted text, in the summary too")
    given = parser.parse_args()
    blind = given.profile == "blind"
    methods = list(given.methods or (BLIND if blind else WITH_TEXT))
    cells = [c for c in profile(given.profile) if re.search(given.cells, c.name)]
    if not given.report:
        run_all(given.features, given.out, cells, methods, given.jobs)
    runs = load(given.out, cells, methods)
    base = "gda" if blind else ZERO_SHOT
    frame = table(runs, cells, methods, base, given.default)
    if frame.empty:
        print("No cell has a run of every method.")
        return
    pd.set_option("display.width", 250, "display.max_columns", 30, "display.precision", 2)
    counted = frame if given.permuted else frame[frame.departure != "permuted-text"]
    parts = [summary(counted), by_departure(frame)]
    if given.default in methods and len(methods) > 1:
        parts.append(compared(counted, given.default))
    text = "\n\n".join(part.to_string() for part in parts)
    print(text)
    if given.page is not None:
        command = f"python benchmarks/zoo --profile {given.profile}"
        command += f" --cells '{given.cells}'" if given.cells else ""
        command += f" --methods {' '.join(given.methods)}" if given.methods else ""
        words = f"{EXPLAINED.format(base=base, default=given.default, command=command)}\n"
        write_file(given.page, f"{words}\n```text\n{text}\n```\n".encode())


if __name__ == "__main__":
    main()
