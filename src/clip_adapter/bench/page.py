"""``write_page``: the results as pages, TABLES.md and COSTS.md, with a file for each table.

TABLES.md depends on accuracies alone, to the byte; what differs between machines is in COSTS.md.
"""

from __future__ import annotations

import clip_adapter.bench.extra  # noqa: F401

# isort: split

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from clip_adapter.bench.figures import make_figure
from clip_adapter.bench.frame import Findings
from clip_adapter.bench.plan import FOLDER, Plan
from clip_adapter.bench.recipe import Recipe
from clip_adapter.bench.results import Results
from clip_adapter.bench.tables import Table, cost_tables, escaped, tables
from clip_adapter.errors import UsageError
from clip_adapter.evaluation.plots import save
from clip_adapter.files import check_file, write_file
from clip_adapter.wording import listed

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
    "mine": "Data sets of one's own: `clip-adapter bench run RECIPE.toml`",
    "paper": "The paper's data sets: `clip-adapter bench run --profile paper --root DIR`",
}
CHOSEN = "<details><summary>What was chosen (by seed where they differ)</summary>\n"
MARK = "<!-- Written by 'clip-adapter bench'; change nothing here. -->"
HEAD = f"""# Tables and figures

{MARK}

The tables and figures of CLIP-Adapter (arXiv 2110.04544), measured anew. A number is the share of
test pictures that are right, in percent: the mean over seeds ± the standard deviation of the
sample. Each seed draws other shots, but for ready-made features, which come with their shots. The
best of a column is bold. Published numbers are in *italics*. "-" was not run or cannot be.

Seconds and memory are in [COSTS.md](COSTS.md).
"""
COST_HEAD = f"""# Costs

{MARK}

Seconds, memory and trained parameters behind [TABLES.md](TABLES.md). Runs go side by side, so
take the seconds beside accuracies as an order of magnitude; where a recipe measures costs, each
run has the machine to itself. What the paper measured, on an A100, is in *italics*.
"""


def check_page(out: Path) -> None:
    """Check that no file of somebody else is written over: to be asked before the runs.

    Raises:
        UsageError: ``out`` holds one that would be.
        DataError: a page may not be written.
    """
    pages = [page for page in (out / TABLES, out / COSTS) if page.exists()]
    for page in pages:
        check_file(page)
    others = [page for page in pages if MARK.encode() not in page.read_bytes()]
    if not (pages or (out / FOLDER).is_dir()):
        others = [folder for folder in (out / "tables", out / "figures") if folder.exists()]
    if others:
        raise UsageError(
            f"{listed(map(str, others))} would be written over, and 'clip-adapter bench' did not "
            "write it.",
            hint="Name another folder with --out, or move it away.",
        )


def write_page(plans: Sequence[Plan], results: Results, out: Path) -> list[Path]:
    """Write the tables and the figure of every plan, and both pages.

    Args:
        plans: all that the pages shall show, see :func:`~clip_adapter.bench.plan.load_plans`.
        results: where the results are.
        out: folder to write to.

    Returns:
        All files; the last two are the pages of accuracies and of costs.

    Raises:
        UsageError: a page of somebody else is there.
        DataError: a file cannot be written.
    """
    check_page(out)
    files: list[Path] = []
    accuracies, costs = [HEAD], [COST_HEAD]
    for profile, words in PROFILES.items():
        own = [Findings(plan, results) for plan in plans if plan.recipe.profile == profile]
        head = [f"## Profile {profile}\n\n{words}\n"] if own else []
        accuracies += head
        for number, findings in enumerate(own):
            recipe, protocol = findings.recipe, findings.recipe.protocol
            # What was chosen on the test set stands apart.
            folder = profile if protocol == "ours" else f"{profile}-{protocol}-protocol"
            twin = next((f.recipe for f in own[:number] if _shows(f, findings)), None)
            shown = tables(findings) if twin is None else []
            files += _write(shown, out / "tables" / folder, "csv", "tex")
            parts = [*_section(findings, shown, twin), *_left_out(findings.plan)]
            path = out / "figures" / folder / f"{recipe.name}.png"
            path.unlink(missing_ok=True)
            if shown and (figure := make_figure(findings)):
                files.append(save(figure, path))
                rule = "" if protocol == "ours" else f", {SELECTION[protocol]}"
                parts.append(
                    f"![{escaped(f'{recipe.name}, {profile}{rule}')}]"
                    f"({quote(path.relative_to(out).as_posix())})\n"
                )
            accuracies.append("\n".join(parts))
            shown = cost_tables(findings, own) if findings.runs.record.notna().any() else []
            files += _write(shown, out / "tables" / folder, "csv")
            if shown:
                costs += [*head, f"### {escaped(recipe.heading)}\n", *(t.markdown() for t in shown)]
                head = []
    for name, parts in ((TABLES, accuracies), (COSTS, costs)):
        files.append(write_file(out / name, "\n".join(parts).encode()))
    return files


def _section(findings: Findings, own: Sequence[Table], twin: Recipe | None) -> list[str]:
    """What was measured how, and the tables of a recipe; or the ``twin`` that shows the same."""
    recipe = findings.recipe
    parts = [f"### {escaped(recipe.heading)}\n"]
    parts += [f"{escaped(recipe.note)}\n"] if recipe.note else []
    if twin is not None:
        return [*parts, f"On this data these are the runs of: {escaped(twin.heading)}.\n"]
    if recipe.costs:
        known = findings.runs.record.notna().any()
        return [*parts, f"Seconds and memory: [{COSTS}]({COSTS}).\n" if known else "No results.\n"]
    if findings.few:
        return [*parts, "Nothing to compare on this data.\n"]
    parts += [f"{escaped(_how(findings))}.\n", *(table.markdown() for table in own)]
    if chosen := [Table("", t.caption, t.chosen).markdown("") for t in own if len(t.chosen)]:
        parts += [CHOSEN, *chosen, "</details>\n"]
    return parts


def _shows(other: Findings, findings: Findings) -> bool:
    """Whether ``other`` shows all runs of ``findings`` in the same way."""
    forms = {(f.recipe.columns, f.recipe.figure, f.recipe.measure) for f in (findings, other)}
    own, theirs = (set(zip(f.runs.label, f.runs.key, strict=True)) for f in (findings, other))
    return len(forms) == 1 and bool(own) and own <= theirs


def _how(findings: Findings) -> str:
    """Backbone, preprocessing, shots, seeds, selection, and how many pictures were asked."""
    recipe, columns = findings.recipe, findings.columns
    data, plain = "Features as the files hold them", [s.label for s in findings.systems if s.plain]
    if recipe.profile != "features":
        data = (
            f"Backbone {', '.join(columns.backbone.unique())}, {recipe.style}-style preprocessing"
        )
    if recipe.profile != "features" and recipe.views > 1:
        data += f", {recipe.views} views of each shot"
        data += f" (the plain one for {', '.join(plain)})" if plain else ""
    shots = ", ".join(map(str, columns.shots.unique()))
    words = [
        data,
        f"{shots} shot{'s' * (shots != '1')}",
        f"seed{'s' * (len(recipe.seeds) > 1)} {', '.join(map(str, recipe.seeds))}",
        SELECTION[recipe.protocol],
    ]
    pictures = [
        f"{recipe.labels.get(name := record['run']['dataset'], name)} {record['n']:,}"
        + (f" (the copy {copy}, split its own way)" if (copy := record.get("copy_of")) else "")
        for record in findings.runs.dropna(subset="record").drop_duplicates("dataset").record
        if record.get("n")
    ]
    return "; ".join(words) + (f". Test pictures: {', '.join(pictures)}" if pictures else "")


def _left_out(plan: Plan) -> list[str]:
    """Reasons, each with the rows and data sets it holds for."""
    out = pd.DataFrame(map(dict, plan.left_out), columns=["system", "reason", "dataset"])
    rows = out.groupby(["system", "reason"], sort=False).dataset.agg(", ".join).reset_index()
    lines = [
        f"{reason} ({names})" + (f": {who}" if who else "")
        for (reason, names), labels in rows.groupby(["reason", "dataset"], sort=False).system
        for who in [
            "all rows" if 1 < len(labels) == len(plan.recipe.systems) else ", ".join(labels)
        ]
    ]
    lines += [f"cannot be read: {', '.join(sorted(plan.missing))}"] if plan.missing else []
    return ["Left out:\n", *(f"- {escaped(line)}" for line in lines), ""] if lines else []


def _write(own: Sequence[Table], folder: Path, *endings: str) -> list[Path]:
    return [
        # Backbones and data sets may have slashes in their names.
        write_file(folder / re.sub(r"[^\w.+-]", "-", f"{table.name}.{ending}"), text.encode())
        for table in own
        for ending in endings
        for text in [table.tex() if ending == "tex" else table.csv()]
    ]
