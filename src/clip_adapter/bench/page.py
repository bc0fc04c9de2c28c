"""``write_page``: the results as pages, TABLES.md and COSTS.md, with a file for each table.

TABLES.md depends on accuracies alone, to the byte; what differs between machines is in COSTS.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from clip_adapter.bench.cost_tables import cost_tables
from clip_adapter.bench.figures import make_figure
from clip_adapter.bench.frame import Findings
from clip_adapter.bench.plan import Plan
from clip_adapter.bench.results import Results
from clip_adapter.bench.tables import Table, csv_text, escaped, latex, markdown, tables
from clip_adapter.evaluation.plots import save
from clip_adapter.files import write_file

TABLES, COSTS = "TABLES.md", "COSTS.md"
SELECTION = {
    "ours": "hyper-parameters chosen on the shots",
    "paper": "what is searched is the best on the TEST set, as the paper reports it",
}
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
    """Write the tables and the figure of every plan, and both pages.

    Args:
        plans: all that the pages shall show, see :func:`~clip_adapter.bench.plan.load_plans`.
        results: where the results are.
        out: folder to write to.

    Raises:
        DataError: a file cannot be written.
    """
    page = Page(out / TABLES)
    accuracies, costs = [HEAD], [COST_HEAD]
    for profile, words in PROFILES.items():
        own = [Findings(plan, results) for plan in plans if plan.recipe.profile == profile]
        head = f"## Profile {profile}\n\n{words}\n"
        sections = [_section(f, own[:number], page, out) for number, f in enumerate(own)]
        accuracies += [head, *sections] if own else []
        sections = [text for f in own if (text := _costs(f, own, page, out))]
        costs += [head, *sections] if sections else []
    for path, parts in ((page.path, accuracies), (out / COSTS, costs)):
        page.files.append(write_file(path, "\n".join(parts).encode()))
    return page


def _section(findings: Findings, before: Sequence[Findings], page: Page, out: Path) -> str:
    """What was measured how, the tables and the figure of a recipe, and what was left out."""
    recipe = findings.recipe
    twin = next((other.recipe for other in before if _shows(other, findings)), None)
    own = tables(findings) if twin is None else []
    for ending in ("csv", "tex"):
        _write(findings, own, ending, page, out)
    parts = [f"### {escaped(recipe.heading)}\n"]
    parts += [f"{escaped(recipe.note)}\n"] if recipe.note else []
    if twin is not None:
        parts.append(f"On this data these are the runs of: {escaped(twin.heading)}.\n")
    elif recipe.measure == "cost":
        any_result = findings.runs.record.notna().any()
        parts.append(
            f"Seconds and memory: [{COSTS}]({COSTS}).\n" if any_result else "No results.\n"
        )
    elif len(findings.systems) < 2:
        parts.append("Nothing to compare on this data.\n")
    else:
        parts.append(f"{escaped(_how(findings))}.\n")
        parts += [_captioned(t.caption, "#### ", markdown(t.entries, t.notes)) for t in own]
        if chosen := [_captioned(t.caption, "", markdown(t.chosen)) for t in own if len(t.chosen)]:
            summary = "What was chosen (by seed where they differ)"
            parts += [f"<details><summary>{summary}</summary>\n", *chosen, "</details>\n"]
    parts += [f"Left out:\n\n{lines}\n"] if (lines := _left_out(findings.plan)) else []
    path = out / "figures" / _folder(findings) / f"{recipe.name}.png"
    path.unlink(missing_ok=True)
    if own and (figure := make_figure(findings)):
        page.files.append(save(figure, path))
        rule = "" if recipe.protocol == "ours" else f", {SELECTION[recipe.protocol]}"
        link = quote(path.relative_to(out).as_posix())
        parts.append(f"![{escaped(f'{recipe.name}, {recipe.profile}{rule}')}]({link})\n")
    return "\n".join(parts)


def _shows(other: Findings, findings: Findings) -> bool:
    """Whether ``other`` shows all runs of ``findings`` in the same way."""
    names = ("columns", "figure", "measure")
    alike = all(getattr(findings.recipe, n) == getattr(other.recipe, n) for n in names)
    own, theirs = (set(zip(f.runs.label, f.runs.key, strict=True)) for f in (findings, other))
    return alike and bool(own) and own <= theirs


def _how(findings: Findings) -> str:
    """Backbone, preprocessing, shots, seeds, selection, and how many pictures were asked."""
    recipe, columns = findings.recipe, findings.columns
    data, plain = "Features as the files hold them", [s.label for s in findings.systems if s.plain]
    if recipe.profile != "features":
        data = (
            f"Backbone {', '.join(columns.backbone.unique())}, {recipe.style}-style preprocessing"
        )
        data += f", {recipe.views} views of each shot" if recipe.views > 1 else ""
        data += f" (the plain one for {', '.join(plain)})" if plain and recipe.views > 1 else ""
    shots = ", ".join(map(str, columns.shots.unique())) + " shots"
    seeds = f"seed{'s' if len(recipe.seeds) > 1 else ''} {', '.join(map(str, recipe.seeds))}"
    first = findings.runs.dropna(subset="record").drop_duplicates("dataset").record
    pictures = [
        f"{record['run']['dataset']} {record['n']:,}"
        + (f" (the copy {copy}, split its own way)" if (copy := record.get("copy_of")) else "")
        for record in first
        if record.get("n")
    ]
    words = [data, "1 shot" if shots == "1 shots" else shots, seeds, SELECTION[recipe.protocol]]
    return "; ".join(words) + (f". Test pictures: {', '.join(pictures)}" if pictures else "")


def _captioned(caption: str, mark: str, text: str) -> str:
    return f"{mark}{escaped(caption)}\n\n{text}" if caption else text


def _left_out(plan: Plan) -> str:
    """Reasons, each with the rows and data sets it holds for."""
    out = pd.DataFrame(
        [(o.dataset, o.reason, o.system) for o in plan.left_out], columns=list("drs")
    )
    rows = out.groupby(["s", "r"], sort=False).d.agg(", ".join).reset_index()
    lines = []
    for (reason, names), labels in rows.groupby(["r", "d"], sort=False).s:
        every = 1 < len(labels) == len(plan.recipe.systems)
        who = "all rows" if every else ", ".join(labels)
        lines.append(f"{reason} ({names})" + (f": {who}" if who else ""))
    lines += [f"not there: {', '.join(sorted(plan.missing))}"] if plan.missing else []
    return "\n".join(f"- {escaped(line)}" for line in lines)


def _costs(findings: Findings, every: Sequence[Findings], page: Page, out: Path) -> str:
    """The section of a recipe on the other page, where it has one."""
    own = cost_tables(findings, every) if findings.runs.record.notna().any() else []
    _write(findings, own, "csv", page, out)
    texts = [_captioned(t.caption, "#### ", markdown(t.entries, t.notes)) for t in own]
    return "\n".join([f"### {escaped(findings.recipe.heading)}\n", *texts]) if own else ""


def _write(findings: Findings, own: Sequence[Table], ending: str, page: Page, out: Path) -> None:
    for table in own:
        text = latex(table.entries, table.notes) if ending == "tex" else csv_text(table.entries)
        # Backbones and data sets may have slashes in their names.
        name = re.sub(r"[^\w.+-]", "-", table.name)
        path = out / "tables" / _folder(findings) / f"{name}.{ending}"
        page.files.append(write_file(path, text.encode()))


def _folder(findings: Findings) -> str:
    """Of the files of a recipe: what was chosen on the test set stands apart."""
    recipe = findings.recipe
    return recipe.profile + ("" if recipe.protocol == "ours" else f"-{recipe.protocol}-protocol")
