"""The section of a recipe on a page: what was measured how, its tables, and what they show."""

from __future__ import annotations

from collections.abc import Sequence

from clip_adapter.bench.formats import escaped, markdown
from clip_adapter.bench.layout import Table
from clip_adapter.bench.published import Published
from clip_adapter.bench.shape import sentences
from clip_adapter.bench.values import Findings

PROTOCOLS = {
    "ours": "hyper-parameters chosen on the shots",
    "paper": "what is searched is the best on the TEST set, as the paper reports it",
}


def section_text(
    found: Findings, made: Sequence[Table], published: Published, twin: Findings | None
) -> str:
    """Markdown.

    Args:
        found: of the recipe.
        made: its tables.
        published: for the sentences.
        twin: a recipe before it whose runs include all of this one's and are shown alike.
    """
    recipe = found.recipe
    parts = [f"### {heading(found)}\n"]
    if recipe.note:
        parts.append(f"{escaped(recipe.note)}\n")
    if twin is not None:
        parts.append(f"On this data these are the runs of: {heading(twin)}.\n")
    elif recipe.measure == "cost":
        parts.append(
            "Seconds and memory: [COSTS.md](COSTS.md).\n" if found.any() else "No results.\n"
        )
    elif len(found.systems) < 2:
        parts.append("Nothing to compare on this data.\n")
    else:
        parts.append(f"{escaped(_how(found))}.\n")
        parts += [_table_text(table) for table in made]
        parts += [
            f"{line}\n" for line in _listed([escaped(s) for s in sentences(found, published)])
        ]
        parts += _chosen(made)
    if told := _left_out(found):
        parts.append(f"{told}\n")
    return "\n".join(parts)


def costs_text(found: Findings, made: Sequence[tuple[Table, str]]) -> str:
    """Markdown of the tables of costs."""
    parts = [f"### {heading(found)}\n"]
    parts += [f"#### {escaped(table.caption)}\n\n{text}" for table, text in made]
    return "\n".join(parts)


def heading(found: Findings) -> str:
    """Title and source, as Markdown."""
    recipe = found.recipe
    return escaped(f"{recipe.source}: {recipe.title}" if recipe.source else recipe.title)


def same_runs(found: Findings, before: Sequence[Findings]) -> Findings | None:
    """One of ``before`` that shows all runs of ``found`` in the same way."""
    keys = {run.key for run in found.plan.runs}
    recipe = found.recipe
    for other in before:
        alike = ("profile", "columns", "figure", "measure")
        if keys and all(getattr(recipe, a) == getattr(other.recipe, a) for a in alike):
            labels = {s.label for s in found.systems} <= {s.label for s in other.systems}
            if labels and keys <= {run.key for run in other.plan.runs}:
                return other
    return None


def _how(found: Findings) -> str:
    """Backbone, preprocessing, shots, seeds, protocol, and how many pictures were asked."""
    recipe, places = found.recipe, found.places()
    shots = ", ".join(map(str, dict.fromkeys(p.shots for p in places)))
    one = f"{shots} shot" if shots == "1" else f"{shots} shots"
    counts: dict[str, int] = {}
    copies: dict[str, str] = {}
    for key, measured in found.measured.items():
        for record in measured.records:
            counts.setdefault(key[1], int(record.get("n", 0)))
            copies.setdefault(key[1], str(record.get("copy_of", "")))
    pictures = ", ".join(
        f"{name} {count:,}"
        + (f" (the copy {copies[name]}, split its own way)" if copies[name] else "")
        for name, count in counts.items()
        if count
    )
    backbones = ", ".join(dict.fromkeys(p.backbone for p in places))
    if recipe.profile == "features":
        told = ["Features as the files hold them"]
    else:
        views = f", {recipe.views} views of each shot" if recipe.views > 1 else ""
        plain = [s.label for s in found.systems if s.plain]
        views += f" (the plain one for {', '.join(plain)})" if views and plain else ""
        told = [f"Backbone {backbones}, {recipe.style}-style preprocessing{views}"]
    told += [
        one,
        f"seed{'s' if len(recipe.seeds) > 1 else ''} {', '.join(map(str, recipe.seeds))}",
        PROTOCOLS[recipe.protocol],
    ]
    return "; ".join(told) + (f". Test pictures: {pictures}" if pictures else "")


def _table_text(table: Table) -> str:
    text = markdown(table)
    return f"#### {escaped(table.caption)}\n\n{text}" if table.caption else text


def _listed(lines: Sequence[str]) -> list[str]:
    if len(lines) < 2:
        return list(lines)
    return ["\n".join(f"- {line}" for line in lines)]


def _chosen(made: Sequence[Table]) -> list[str]:
    """What was chosen, folded away."""
    tables = [(t.caption, t.chosen) for t in made if t.chosen is not None]
    if not tables:
        return []
    texts = [
        f"{escaped(caption)}\n\n{markdown(t)}" if caption else markdown(t) for caption, t in tables
    ]
    summary = "What was chosen (by seed where they differ)"
    return [f"<details><summary>{summary}</summary>\n", *texts, "</details>\n"]


def _left_out(found: Findings) -> str:
    """Reasons, each with the rows and data sets it holds for."""
    sets: dict[tuple[str, str], list[str]] = {}  # by row and reason
    for line in found.plan.left_out:
        name, _, told = line.partition(": ")
        label, _, reason = told.rpartition(" left out, ")
        sets.setdefault((label, reason), []).append(name)
    rows: dict[tuple[str, str], list[str]] = {}  # by reason and data sets
    for (label, reason), names in sets.items():
        rows.setdefault((reason, ", ".join(names)), []).append(label)
    lines = []
    for (reason, names), labels in rows.items():
        every = len(labels) > 1 and len(labels) == len(found.recipe.systems)
        who = "" if labels == [""] else f": {'all rows' if every else ', '.join(labels)}"
        lines.append(f"{reason} ({names}){who}")
    if missing := sorted(found.plan.missing):
        lines.append(f"not there: {', '.join(missing)}")
    return "\n".join(["Left out:\n", *(f"- {escaped(line)}" for line in lines)]) if lines else ""
