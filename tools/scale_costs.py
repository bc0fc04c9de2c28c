"""What very many pictures cost, from rates that were measured: a table in ``docs/scale.md``.

    python tools/scale_costs.py                                   writes the table anew
    python tools/scale_costs.py --check                           compares it
    python tools/scale_costs.py --pictures 5e8 --hour 3.2 --machines 16    prints another one

Prices are yours to fill in: ``--hour`` is that of one machine for an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
MEASURED = ROOT / "benchmarks" / "speed" / "results" / "h100.json"
OPEN, CLOSE = "<!-- Written by tools/scale_costs.py. -->\n", "<!-- Until here. -->\n"
PICTURES = 10**9
# The files of the measurement, in bytes, and the size of a feature: docs/speed.md has both.
FILE_BYTES, HOURS = 61_000, 3600
DIMENSIONS = {"ViT-B-32": 512, "RN50": 1024, "ViT-L-14": 768}
READ = "500 px, the pipeline alone"


def rates() -> tuple[str, dict[tuple[str, str], float]]:
    """The machine, and pictures a second by row and what was measured in it."""
    measured = json.loads(MEASURED.read_text("utf-8"))
    machine = measured["machine"]
    name = f"one {machine['gpu']} with {machine['cores']} cores"
    return name, {(row["row"], row["what"]): row["per_second"] for row in measured["rows"]}


def table(pictures: float, price: float | None, machines: int) -> str:
    """Decode, encode and both together: machine hours, days of so many machines, and money."""
    name, rate = rates()
    money = price is not None
    head = ["what", "pictures a second", "machine hours", f"days of {machines} machines"]
    lines = [head + ["cost"] * money, ["---"] + ["---:"] * (3 + money)]

    def row(what: str, per_second: float) -> None:
        hours = pictures / per_second / HOURS
        cells = [what, f"{per_second:,.0f}", f"{hours:,.1f}", f"{hours / machines / 24:,.2f}"]
        lines.append(cells + [f"{hours * (price or 0):,.0f}"] * money)

    row("decode alone: reading, nvJPEG", rate[READ, "reading and decoding"])
    row("decode and cut to size, as `embed` does it", rate[READ, "pipeline"])
    for model in DIMENSIONS:
        title = f"{model}/random, float16"
        row(f"encode alone, {model}", rate[title, "bare encoder"])
        row(f"both, as `embed` does it, {model}", rate[title, "embed"])
    row("both, `--decode exact`, ViT-B-32", rate["ViT-B-32/random, float16, exact", "embed, exact"])
    sizes = ", ".join(f"{d * 4 * pictures / 1e12:,.1f} TB for {m}" for m, d in DIMENSIONS.items())
    return (
        f"For {pictures:,.0f} JPEG files of 500 x 375 pixels and {FILE_BYTES / 1000:.0f} kB, by "
        f"what was measured on {name}:\n\n"
        + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        + f"\nRead: {FILE_BYTES * pictures / 1e12:,.0f} TB. Written (float32): {sizes}.\n"
    )


def main(arguments: list[str]) -> int:
    """0 when the page is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument("--pictures", type=float, help="how many")
    parser.add_argument("--hour", type=float, help="price of one machine for an hour")
    parser.add_argument("--machines", type=int, default=8, help="that work at once")
    given = parser.parse_args(arguments)
    if given.pictures or given.hour or given.machines != parser.get_default("machines"):
        print(table(given.pictures or PICTURES, given.hour, given.machines))
        return 0
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(OPEN)
    _, _, after = rest.partition(CLOSE)
    new = f"{before}{OPEN}\n{table(PICTURES, None, given.machines)}\n{CLOSE}{after}"
    if new == page:
        return 0
    if given.check:
        print(f"{PAGE.name} is not what was measured. Next: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(new, "utf-8")
    print(f"Written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
