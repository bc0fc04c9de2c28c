"""``auto``: the backbone for so many pictures on this machine, and why.

Of the recommended ones (:mod:`.table`) that the memory holds and whose texts the installed packages
can read, it is the most accurate one that encodes the pictures in at most a minute; where none
does, the quickest. Rates are those of :mod:`.rates`: an architecture that was not measured is
scaled by its multiply-adds from one that was. Without an answer of the hub, all of a licence for
all uses that were fetched before are looked at in their place.
"""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import Any

from clip_adapter.backbones.base import resolve_device, resolve_dtype
from clip_adapter.backbones.names import AUTO, origin_of
from clip_adapter.backbones.rates import fits, measure, rates
from clip_adapter.backbones.table import Row, recommended, rows
from clip_adapter.backbones.weights import check_reach, is_here
from clip_adapter.errors import BackboneError
from clip_adapter.reporting import log
from clip_adapter.wording import counted

SECONDS = 60.0  # that the pictures may take
REFERENCE = "ViT-B-32"  # what is measured where nothing is known


def resolve(options: Any, pictures: int) -> Any:
    """``options`` with the name of a backbone where they say "auto"; the choice is told.

    Args:
        options: a dataclass with ``backbone``, ``device`` and ``dtype``.
        pictures: how many are to be encoded.
    """
    if not isinstance(options.backbone, str) or options.backbone != AUTO:
        return options
    device = resolve_device(options.device)
    name, reason = choose(pictures, device, resolve_dtype(options.dtype, device))
    log.info(f"Backbone: {name}, {reason}.")
    return dataclasses.replace(options, backbone=name, device=device)


def choose(pictures: int, device: str, dtype: str) -> tuple[str, str]:
    """The name of the backbone for so many ``pictures``, and why it is the one.

    Args:
        pictures: how many.
        device: a resolved one.
        dtype: of weights and computation.
    """
    known = rates(device, dtype)
    if REFERENCE not in known:
        log.info(f"Measuring once how fast {REFERENCE} is on this machine ...")
        reference = next(row for row in rows() if row.arch == REFERENCE)
        known = measure([reference], device, dtype)
    # What cuts the texts of some into tokens may not be installed.
    extras = ("", "siglip" if find_spec("transformers") else "")
    usable = [r for r in rows() if r.commercial and r.extra in extras and fits(r, device)]
    pool = [row for row in usable if row in recommended()]
    chosen, reason = _best(pool, pictures, known)
    try:
        check_reach(origin_of(chosen.name))
    except BackboneError:
        if here := [row for row in usable if is_here(origin_of(row.name))]:
            chosen, reason = _best(here, pictures, known)
            reason += "; the hub gives no answer, so those fetched before were looked at"
    return chosen.name, reason


def _best(pool: list[Row], pictures: int, known: dict[str, float]) -> tuple[Row, str]:
    reference = next(row for row in rows() if row.arch == REFERENCE)

    def rate(row: Row) -> float:
        scaled = known[REFERENCE] * reference.multiply_adds / row.multiply_adds
        return known.get(row.arch, scaled)

    quick = [row for row in pool if pictures / rate(row) <= SECONDS]
    number = counted(pictures, "picture")
    if quick:
        chosen = max(quick, key=lambda row: row.imagenet)
        why = f"the most accurate one that encodes {number} in at most a minute here"
    else:
        chosen = max(pool, key=lambda row: (rate(row), row.imagenet))
        minutes = counted(round(pictures / rate(chosen) / 60), "minute")
        why = f"the quickest one: {number} take about {minutes} here"
    how = "measured" if chosen.arch in known else f"as scaled from {REFERENCE}"
    return chosen, f"{why} ({rate(chosen):.3g} a second, {how})"
