"""``write_page``: the results as pages, TABLES.md and COSTS.md, with a file for each table.

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
from clip_adapter.bench.formats import csv_text, escaped, latex, markdown
from clip_adapter.bench.layout import Table
from clip_adapter.bench.published import Published, load_published
from clip_adapter.bench.results import Results
from clip_adapter.bench.runs import Plan
from clip_adapter.bench.section import PROTOCOLS, costs_text, same_runs, section_text
from clip_adapter.bench.tables import tables
from clip_adapter.bench.values import Findings
from clip_adapter.files import write_file

TABLES, COSTS = "TABLES.md", "COSTS.md"
PROFILES = {
    "demo": "Drawn pictures and the small CLIP of the package, offline: "
    "`clip-adapter bench run --profile demo`",
    "features": "Ready-made features: `clip-adapter bench run --profile features --features DIR`. "
    "Sets called `eval_{K}shot` in a file, as ImageNet's here, hold pictures of the training split "
    "that are not among the shots; such rows are no figures of the validation set.",
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
    """Writes the tables and the figure of every plan, and both pages.

    Args:
        plans: all that the pages shall show, see :func:`~clip_adapter.bench.plans.load_plans`.
        results: where the results are.
        out: folder to write to.

    Raises:
        DataError: a file cannot be written.
    """
    page, published = Page(out / TABLES), load_published()
    findings = [Findings(plan, results) for plan in plans]
    tables_page, costs_page = [HEAD], [COST_HEAD]
    for profile, told in PROFILES.items():
        head = f"## Profile {profile}\n\n{told}\n"
        own = [found for found in findings if found.recipe.profile == profile]
        sections, costs = [], []
        for number, found in enumerate(own):
            sections += _recipe(found, own[:number], published, page, out)
            costs += _costs(found, findings, published, page, out)
        tables_page += [head, *sections] if sections else []
        costs_page += [head, *costs] if costs else []
    for path, parts in ((page.path, tables_page), (out / COSTS, costs_page)):
        page.files.append(write_file(path, "\n".join(parts).encode()))
    return page


def _recipe(
    found: Findings, before: Sequence[Findings], published: Published, page: Page, out: Path
) -> list[str]:
    """The section of a recipe, and the link to its figure."""
    place = f"{_folder(found)}/{found.recipe.name}.png"
    figure = out / "figures" / place
    twin = same_runs(found, before)
    made = [] if twin is not None or len(found.systems) < 2 else tables(found, published)
    _write(found, made, page, out, ("csv", "tex"))
    drawn = draw(found, published, figure) if made else []
    if not drawn:
        figure.unlink(missing_ok=True)
    page.files += drawn
    name = f"{found.recipe.name}, {found.recipe.profile}"
    if found.recipe.protocol != "ours":
        name += f", {PROTOCOLS[found.recipe.protocol]}"
    link = [f"![{escaped(name)}]({quote(f'figures/{place}')})\n"] if drawn else []
    return [section_text(found, made, published, twin), *link]


def _costs(
    found: Findings, every: Sequence[Findings], published: Published, page: Page, out: Path
) -> list[str]:
    """The section of a recipe on the other page, where it has one."""
    made = cost_tables(found, published, accuracies(found, every))
    if not made or not found.any():
        return []
    _write(found, made, page, out, ("csv",))
    return [costs_text(found, [(table, markdown(table)) for table in made])]


def _write(
    found: Findings, made: Sequence[Table], page: Page, out: Path, forms: Sequence[str]
) -> None:
    """Each table as a file of each of ``forms``."""
    writers = {"csv": csv_text, "tex": latex}
    for table in made:
        for form in forms:
            path = out / "tables" / _folder(found) / f"{plain(table.name)}.{form}"
            page.files.append(write_file(path, writers[form](table).encode()))


def _folder(found: Findings) -> str:
    """Of the files of a recipe: what was chosen on the test set stands apart."""
    recipe = found.recipe
    return recipe.profile + ("" if recipe.protocol == "ours" else f"-{recipe.protocol}-protocol")


def plain(name: str) -> str:
    """``name`` as that of a file: backbones and data sets may have slashes in theirs."""
    return re.sub(r"[^\w.+-]", "-", name)
