"""Write ``benchmarks/SPEED.md`` from the results that are kept in ``benchmarks/speed/results``."""

from __future__ import annotations

import json
from pathlib import Path

from common import markdown

HERE = Path(__file__).parent
HEAD = """# Speed

Made by `python benchmarks/speed/report.py` from the JSON files in `benchmarks/speed/results`. A
ratio is the median of things measured in turns in one run, with its range; of rates, ours is faster
where it is above 1. What has no ratio is what the rows below it are compared with.
[docs/speed.md](../docs/speed.md) says more.
"""


def main() -> None:
    """One section for each file: the machine, and the rows."""
    parts = [HEAD]
    for path in sorted((HERE / "results").glob("*.json")):
        kept = json.loads(path.read_text())
        if "rows" not in kept:
            continue
        words = ", ".join(f"{k} {v}" for k, v in kept["machine"].items() if v is not None)
        note = f"\n{kept['note']}\n" if "note" in kept else ""
        parts.append(f"\n## {path.stem}\n\n{words}.\n{note}\n{markdown(kept['rows'])}")
    (HERE.parent / "SPEED.md").write_text("".join(parts))


if __name__ == "__main__":
    main()
