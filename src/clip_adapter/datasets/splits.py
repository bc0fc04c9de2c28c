"""The few-shot sampler of CoOp, draw for draw.

Source: CLIP-Adapter (arXiv 2110.04544), section 4.1, follows the sampling of CoOp
(arXiv 2109.01134, section 4.1), whose lists are the reference of most few-shot papers on CLIP.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from numbers import Integral

from clip_adapter.errors import UsageError


def sample_few_shot(labels: Sequence[int], shots: int, seed: int = 1) -> list[int]:
    """Draw K pictures of each class, exactly as CoOp does at the same seed.

    One generator ``random.Random(seed)``; classes in the order of their first picture; for each,
    ``sample(indices, K)``, or all of them in order where there are fewer. The order of the
    pictures matters: it is that of CoOp's split files, or sorted paths. (CoOp goes on with
    min(K, 4) pictures per class of its validation split, which nothing here reads.)

    Args:
        labels: label of each picture of the training pool, (N,).
        shots: K of at least 1.
        seed: 0 or more. CoOp's own are 1, 2 and 3.

    Returns:
        Indices into the pool, in drawing order.

    Raises:
        UsageError: ``shots`` or ``seed`` is out of range.
    """
    if not _is_index(shots) or shots < 1:
        raise UsageError(
            f"{shots!r} shots.",
            allowed="a whole number of at least 1, or none given for all pictures",
        )
    if not _is_index(seed):
        # Python seeds with the absolute value: -1 would silently repeat the draw of 1.
        raise UsageError(f"Seed {seed!r}.", allowed="a whole number of at least 0")
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[int(label)].append(index)
    generator = random.Random(int(seed))
    drawn: list[int] = []
    for indices in by_class.values():
        drawn += generator.sample(indices, int(shots)) if len(indices) >= shots else indices
    return drawn


def _is_index(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0
