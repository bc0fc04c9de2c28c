"""``write_page``: the results as pages, TABLES.md and COSTS.md, with a file for each table.

Every recipe has a section, which is kept in ``tables/PROFILE/RECIPE.md``; the pages are all
sections that are there. So what was run before with another recipe or profile stays on them.
TABLES.md depends on accuracies alone, to the byte; what differs between machines is in COSTS.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from clip_adapter.bench.cost_tables import accuracies, cost_tables
from clip_adapter.bench.figures import draw
from clip_adapter.bench.formats import csv_text, latex, markdown
from clip_adapter.bench.published import load_published
from clip_adapter.bench.recipe import recipe_names
from clip_adapter.bench.results import Results
from clip_adapter.bench.runs import Plan
from clip_adapter.bench.section import costs_text, same_runs, section_text
from clip_adapter.bench.tables import tables
from clip_adapter.bench.values import Findings
from clip_adapter.files import write_file

TABLES, COSTS = "TABLES.md", "COSTS.md"
SECTION, COST_SECTION = ".md", ".costs.md"
PROFILES = {
    "demo": "Drawn pictures and the small CLIP of the package, offline: "
    "`clip-adapter bench run --profile demo`",
    "features": "Ready-made features: `clip-adapter bench run --profile features --features DIR`",
    "paper": "The paper's data sets: `clip-adapter bench run --profile paper --root DIR`",
}
HEAD = """# Tables and figures

<!-- Written by 'clip-adapter bench'; change nothing here. -->

The tables and figures of CLIP-Adapter (arXiv 2110.04544), measured anew. A number is the share of
test pictures that are right, in percent: the mean over seeds ± the standard deviation of the
sample. Each seed draws other shots, but for ready-made features, which come with their shots. The
best of a column is bold. Published numbers are in *italics*. "-" was not run or cannot be.

Seconds and memory are in [COSTS.md](COSTS.md).
"""
COST_HEAD = """# Costs

<!-- Written by 'clip-adapter bench'; change nothing here. -->

Seconds, memory and trained parameters behind [TABLES.md](TABLES.md). Runs go side by side, so
take the seconds beside accuracies as an order of magnitude; where a recipe measures costs, each
run has the machine to itself. What the paper measured, on an A100, is in *italics*.
"""


@dataclass
class Page:
    """What was written: ``path`` is the page to open, ``files`` are all of them."""

    path: Path
    files: list[Path] = field(default_factory=list)


def write_page(plans: Sequence[Plan], results: Results, out: Path) -> Page:
    """Writes the section, the files and the figure of every plan, and both pages.

    Args:
        plans: of one or several profiles.
        results: where the results are.
        out: folder to write to.

    Raises:
        DataError: a file cannot be written.
    """
    page = Page(out / TABLES)
    findings = [Findings(plan, results) for plan in plans]
    for number, found in enumerate(findings):
        page.files += _write_recipe(found, findings[:number], findings, out)
    for path, head, ending in ((page.path, HEAD, SECTION), (out / COSTS, COST_HEAD, COST_SECTION)):
        text = _assembled(out, head, ending)
        page.files.append(write_file(path, text.encode()))
    return page


def _write_recipe(
    found: Findings, before: Sequence[Findings], every: Sequence[Findings], out: Path
) -> list[Path]:
    recipe, published = found.recipe, load_published()
    folder = out / "tables" / recipe.profile
    figure = out / "figures" / recipe.profile / f"{recipe.name}.png"
    twin = same_runs(found, before)
    made = [] if twin is not None or len(found.systems) < 2 else tables(found, published)
    files = [write_file(folder / f"{plain(t.name)}.csv", csv_text(t).encode()) for t in made]
    files += [write_file(folder / f"{plain(t.name)}.tex", latex(t).encode()) for t in made]
    text = section_text(found, made, published, twin)
    drawn = draw(found, published, figure) if made else []
    if not drawn:
        figure.unlink(missing_ok=True)
    files += [*drawn, write_file(folder / f"{recipe.name}{SECTION}", text.encode())]
    costs = cost_tables(found, published, accuracies(found, every))
    if costs and found.any():
        told = costs_text(found, [(t, markdown(t)) for t in costs])
        files.append(write_file(folder / f"{recipe.name}{COST_SECTION}", told.encode()))
        files += [write_file(folder / f"{plain(t.name)}.csv", csv_text(t).encode()) for t in costs]
    return files


def _assembled(out: Path, head: str, ending: str) -> str:
    """``head`` and all sections that are there, by profile and in the paper's order."""
    parts = [head]
    for profile, told in PROFILES.items():
        sections = _sections(out / "tables" / profile, ending)
        if sections:
            parts.append(f"## Profile {profile}\n\n{told}\n")
        for name, path in sections:
            parts.append(path.read_text("utf-8"))
            if ending == SECTION:
                parts += _links(out, profile, name)
    return "\n".join(parts)


def _sections(folder: Path, ending: str) -> list[tuple[str, Path]]:
    found = {
        path.name.removesuffix(ending): path
        for path in folder.glob(f"*{ending}")
        if ending == COST_SECTION or not path.name.endswith(COST_SECTION)
    }
    known = [name for name in recipe_names() if name in found]
    return [(name, found[name]) for name in (*known, *sorted(set(found) - set(known)))]


def _links(out: Path, profile: str, name: str) -> list[str]:
    figure = f"figures/{profile}/{name}.png"
    return [f"![{name}, {profile}]({quote(figure)})\n"] if (out / figure).is_file() else []


def plain(name: str) -> str:
    """``name`` as that of a file: backbones and data sets may have slashes in theirs."""
    return re.sub(r"[^\w.+-]", "-", name)
