"""Gains over zero-shot at a number of shots, ranked: what figure 4 of the paper shows."""

from __future__ import annotations

from dataclasses import dataclass

from clip_adapter.bench.beside import beside
from clip_adapter.bench.published import Published
from clip_adapter.bench.recipe import System
from clip_adapter.bench.runs import ZERO_SHOT
from clip_adapter.bench.values import Findings, Place


@dataclass(frozen=True)
class Gain:
    """Points above zero-shot.

    Attributes:
        dataset: of ours.
        gain: mean accuracy less that of zero-shot.
        deviation: of the accuracy, over seeds.
        published: the same from published numbers; None where one is missing.
        where: their data set and backbone.
        same: whether ours was measured on the same.
    """

    dataset: str
    gain: float
    deviation: float | None = None
    published: float | None = None
    where: str = ""
    same: bool = False


def compared(findings: Findings) -> tuple[System, System] | None:
    """Zero-shot and the first system that learns, if both are there."""
    zero = next((s for s in findings.systems if s.method == ZERO_SHOT), None)
    other = next((s for s in findings.systems if s.method != ZERO_SHOT), None)
    return None if zero is None or other is None else (zero, other)


def gains(findings: Findings, published: Published) -> dict[int, list[Gain]]:
    """{shots: gains of the first system that learns, the largest first}."""
    pair = compared(findings)
    if pair is None:
        return {}
    zero, other = pair
    found: dict[int, list[Gain]] = {}
    for place in findings.places():
        gain = _gain(findings, zero, other, place, published)
        if gain is not None:
            found.setdefault(place.shots, []).append(gain)
    return {k: sorted(v, key=lambda g: (-g.gain, g.dataset)) for k, v in sorted(found.items())}


def _gain(
    findings: Findings, zero: System, other: System, place: Place, published: Published
) -> Gain | None:
    base = findings.accuracy(zero.label, place)
    reached = findings.accuracy(other.label, place)
    if base is None or reached is None:
        return None
    theirs = [beside(findings, s, place, published) for s in (zero, other)]
    first, second = theirs
    if first is None or second is None or first.backbone != second.backbone:
        return Gain(place.dataset, reached.mean - base.mean, reached.deviation)
    return Gain(
        place.dataset,
        reached.mean - base.mean,
        reached.deviation,
        second.value - first.value,
        second.where,
        first.same and second.same,
    )
