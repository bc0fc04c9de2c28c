"""What a table shows, in sentences made from its numbers, beside what the paper's shows.

They compare means and nothing else; how far seeds lie apart is in the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from clip_adapter.bench.beside import beside, table_number, theirs
from clip_adapter.bench.gains import gains
from clip_adapter.bench.layout import groups, shots_word
from clip_adapter.bench.published import Published
from clip_adapter.bench.values import Findings, Place, field_of

OURS = "CLIP-Adapter"
CHOSEN = "protocol paper: what is searched is the best on the test set"
Means = Mapping[str, float]
# Of an accuracy in a table.
DIGITS = 2


def sentences(findings: Findings, published: Published) -> list[str]:
    """Sentences for below the tables; none where there is nothing to compare."""
    recipe = findings.recipe
    if recipe.measure == "cost":
        return []
    write = _WRITERS.get(recipe.source) or (_leaders if recipe.columns == "shots" else _order)
    end = f" ({CHOSEN})." if findings.chosen_on_test() else "."
    return [line.removesuffix(".") + end for line in write(findings, published) if line]


def means_at(findings: Findings, place: Place) -> dict[str, float]:
    """{label: mean accuracy} of the systems that have one, as the tables show it."""
    found = {s.label: findings.accuracy(s.label, place) for s in findings.systems}
    return {
        label: round(number.mean, DIGITS) for label, number in found.items() if number is not None
    }


def published_at(
    findings: Findings, place: Place, published: Published
) -> tuple[dict[str, float], str]:
    """{row: published accuracy} of what stands beside ``place``, and where they are from.

    All rows of a table of the paper, and of figures those that have a system here.
    """
    recipe, number = findings.recipe, table_number(findings.recipe)
    found = {s.label: beside(findings, s, place, published) for s in findings.systems}
    known = [b for b in found.values() if b is not None]
    words = {"paper": "in the paper on", "published": "published on"}
    told = " and ".join(dict.fromkeys(f"{words[b.source]} {b.where}" for b in known))
    if number is None or not known:
        values = {label: round(b.value, DIGITS) for label, b in found.items() if b is not None}
        return values, told
    where = (theirs(recipe, place.test_set), known[0].backbone, "top1")
    figures = published.table(number)
    values = {f.row: f.value for f in figures if (f.dataset, f.backbone, f.metric) == where}
    return values, f"in the paper on {known[0].where}"


def best(means: Means) -> list[str]:
    """All that are shown as the highest number."""
    top = max(means.values())
    return [label for label, v in means.items() if v == top]


def _best_row(findings: Findings, published: Published) -> Iterable[str]:
    for place, title in _every_place(findings):
        ours = means_at(findings, place)
        if len(ours) > 1:
            top = best(ours)
            verb = "is" if len(top) == 1 else "are"
            line = f"{title}: {_and(top)} {verb} highest ({max(ours.values()):.2f})"
            paper, where = published_at(findings, place, published)
            if paper:
                line += f"; {where}: {_and(best(paper))} ({max(paper.values()):.2f})"
            yield f"{line}."


def _order(findings: Findings, published: Published) -> Iterable[str]:
    for place, title in _every_place(findings):
        ours = means_at(findings, place)
        if len(ours) > 1:
            line = f"{title}, from low to high: {_ranked(ours)}"
            paper, where = published_at(findings, place, published)
            if paper:
                line += f"; {where}: {_ranked(paper)}"
            yield f"{line}."


def _ratios(findings: Findings, published: Published) -> Iterable[str]:
    for place, title in _every_place(findings):
        ours = {float(k): v for k, v in means_at(findings, place).items() if _is_number(k)}
        if len(ours) < 3:
            continue
        line = f"{title}: {_inside(ours)}"
        values, where = published_at(findings, place, published)
        if paper := {float(k): v for k, v in values.items() if _is_number(k)}:
            line += f"; {where}: {_inside(paper)}"
        yield f"{line}."


def _inside(means: Mapping[float, float]) -> str:
    """Whether the best ratio is a blend, and what the ends lose."""
    top = max(means.values())
    first = sorted(r for r, v in means.items() if v == top)
    inner = [r for r in first if 0 < r < 1]
    where = "strictly between 0 and 1" if inner else "not strictly between 0 and 1"
    if inner and inner != first:
        where = "not only strictly between 0 and 1"
    if len(first) > 1:
        told = f"the best ratios are {_and([f'{r:g}' for r in first])}, a tie, {where}"
    else:
        told = f"the best ratio is {first[0]:g}, {where}"
    lower = [end for end in (0, 1) if end in means and end not in first]
    ends = [f"ratio {end} is {top - means[end]:.2f} lower" for end in lower]
    return f"{told} ({', '.join(ends)})" if ends else told


def _above(findings: Findings, published: Published) -> Iterable[str]:
    """At which shots CLIP-Adapter is above each other system."""
    for group in groups(findings):
        rows = {p.shots: means_at(findings, p) for p in group.places}
        told = []
        for other in (s.label for s in findings.systems if s.label != OURS):
            both = [k for k, m in rows.items() if OURS in m and other in m]
            higher = [k for k in both if rows[k][OURS] > rows[k][other]]
            if both:
                told.append(f"above {other} {_at_shots(higher, both)}")
        if told:
            yield f"{group.caption}: {OURS} is {', '.join(told)}."


def _at_shots(higher: list[int], both: list[int]) -> str:
    if not higher:
        return "nowhere"
    if higher == both:
        return f"at all of {', '.join(map(str, both))} shots"
    return f"at {', '.join(map(str, higher))} of {', '.join(map(str, both))} shots"


def _gains(findings: Findings, published: Published) -> Iterable[str]:
    for shots, found in gains(findings, published).items():
        if found:
            # Adding zero takes the sign from a zero.
            shown = [(g.dataset, round(g.gain, DIGITS) + 0.0) for g in found]
            ranked = ", ".join(f"{dataset} {gain:+.2f}" for dataset, gain in shown)
            below = [dataset for dataset, gain in shown if gain <= 0]
            end = f"not above zero: {', '.join(below)}" if below else "all are above zero"
            yield f"{shots_word(shots)}, gain over zero-shot in points: {ranked}; {end}."


def _counts(findings: Findings, published: Published) -> Iterable[str]:
    """On how many test sets or backbones CLIP-Adapter is highest."""
    every = [(p, means_at(findings, p)) for p, _ in _every_place(findings)]
    here = [(p, m) for p, m in every if len(m) > 1 and OURS in m]
    if not here:
        return
    won = [p for p, m in here if best(m) == [OURS]]
    line = f"{OURS} is highest in {len(won)} of {len(here)} columns"
    if lost := [p for p, _ in here if p not in won]:
        line += f" (not on {', '.join(dict.fromkeys(p.test_set for p in lost))})"
    paper: dict[tuple[str, str], dict[str, float]] = {}
    for f in published.table(table_number(findings.recipe) or 0):
        if f.metric == "top1":
            paper.setdefault((f.dataset, f.backbone), {})[f.row] = f.value
    if paper:
        line += (
            f"; in the paper in {sum(best(m) == [OURS] for m in paper.values())} of {len(paper)}"
        )
    yield f"{line}."


def _branches(findings: Findings, published: Published) -> Iterable[str]:
    """The order at the most shots."""
    for group in groups(findings):
        place = max(group.places, key=lambda p: p.shots)
        ours = means_at(findings, place)
        if len(ours) > 1:
            yield f"{group.caption}, {shots_word(place.shots)}, from low to high: {_ranked(ours)}."


def _silhouettes(findings: Findings, published: Published) -> Iterable[str]:
    for place in findings.places():
        read = field_of("silhouette")
        found = {s.label: findings.at(s.label, place).number(read) for s in findings.systems}
        known = {label: round(n.mean, 3) for label, n in found.items() if n is not None}
        if len(known) > 1:
            ranked = ", ".join(f"{k} {known[k]:.3f}" for k in sorted(known, key=lambda k: known[k]))
            yield (
                f"{place.dataset}: how far the classes lie apart (silhouette, before t-SNE), from "
                f"low to high: {ranked}."
            )


def _leaders(findings: Findings, published: Published) -> Iterable[str]:
    """Who is highest how often, and where CLIP-Adapter stands."""
    rows = [m for p in findings.places() if len(m := means_at(findings, p)) > 1]
    if not rows:
        return
    first = Counter(label for m in rows for label in best(m))
    told = ", ".join(f"{label} in {count}" for label, count in first.most_common())
    with_ours = [m for m in rows if OURS in m]
    ranks = [1 + sum(v > m[OURS] for v in m.values()) for m in with_ours]
    if ranks:
        leads = "leads everywhere" if max(ranks) == 1 else "does not lead everywhere"
        sizes = _range([len(m) for m in with_ours])
        yield f"{OURS} {leads}: its rank is {_range(ranks)} of {sizes}."
    columns = "1 column" if len(rows) == 1 else f"{len(rows)} columns"
    yield f"Of {columns}, the highest is {told}; a tie counts for each."


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _every_place(findings: Findings) -> list[tuple[Place, str]]:
    """Each column of each table, with what people call it."""
    return [
        (place, ": ".join(filter(None, dict.fromkeys((group.caption, title)))))
        for group in groups(findings)
        for place, title in zip(group.places, group.titles, strict=True)
    ]


def _ranked(means: Means) -> str:
    return ", ".join(
        f"{label} {means[label]:.2f}" for label in sorted(means, key=lambda k: means[k])
    )


def _and(labels: list[str]) -> str:
    return " and ".join(labels)


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit()


_WRITERS: Mapping[str, Callable[[Findings, Published], Iterable[str]]] = {
    "Table 2": _best_row,
    "Table 5": _best_row,
    "Table 6": _ratios,
    "Table 8": _counts,
    "Table 9": _counts,
    "Figure 3": _above,
    "Figure 4": _gains,
    "Figure 5": _branches,
    "Figure 6": _silhouettes,
    "Figure 7": _above,
}
