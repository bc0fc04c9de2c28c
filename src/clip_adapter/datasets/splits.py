"""``FewShotSplit`` and the few-shot sampler of CoOp, draw for draw.

Source: CLIP-Adapter (arXiv 2110.04544), section 4.1, follows the sampling of CoOp
(arXiv 2109.01134, section 4.1), whose lists are the reference of most few-shot papers on CLIP.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from clip_adapter.errors import UsageError

# CoOp validates on at most four pictures a class, however many shots it trains on.
MAX_VAL_SHOTS = 4


@dataclass(frozen=True)
class FewShotSplit:
    """Which pictures were drawn: K shots per class by one seed.

    Attributes:
        shots: K, or None where every picture is used.
        seed: what the draw was seeded with.
        train: indices into the training pool, in drawing order.
        val: indices into the validation pool, in drawing order; empty without such a pool.
    """

    shots: int | None
    seed: int
    train: list[int]
    val: list[int]


def sample_few_shot(
    train_labels: Sequence[int],
    val_labels: Sequence[int] | None = None,
    *,
    shots: int | None,
    seed: int = 1,
) -> FewShotSplit:
    """Draw K pictures of each class, exactly as CoOp does at the same seed.

    One generator ``random.Random(seed)``; classes in the order of their first picture; for each,
    ``sample(indices, K)``, or all of them in order where there are fewer; the training pool first,
    then min(K, 4) per class of the validation pool. The order of the pools matters: it is that of
    CoOp's split files, or sorted paths.

    Args:
        train_labels: label of each picture of the training pool, (N,).
        val_labels: the same for the validation pool, or None where there is none.
        shots: K of at least 1, or None for all pictures.
        seed: 0 or more. CoOp's own are 1, 2 and 3.

    Raises:
        UsageError: ``shots`` or ``seed`` is out of range.
    """
    if shots is not None and (not _is_index(shots) or shots < 1):
        raise UsageError(
            f"{shots!r} shots.",
            allowed="a whole number of at least 1, or none given for all pictures",
        )
    if not _is_index(seed):
        # Python seeds with the absolute value: -1 would silently repeat the draw of 1.
        raise UsageError(f"Seed {seed!r}.", allowed="a whole number of at least 0")
    shots, seed = None if shots is None else int(shots), int(seed)
    generator = random.Random(seed)
    train = _draw(train_labels, shots, generator)
    val_shots = None if shots is None else min(shots, MAX_VAL_SHOTS)
    return FewShotSplit(shots, seed, train, _draw(val_labels or (), val_shots, generator))


def _is_index(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _draw(labels: Sequence[int], shots: int | None, generator: random.Random) -> list[int]:
    if shots is None:
        return list(range(len(labels)))
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[int(label)].append(index)
    drawn: list[int] = []
    for indices in by_class.values():
        drawn += generator.sample(indices, shots) if len(indices) >= shots else indices
    return drawn
