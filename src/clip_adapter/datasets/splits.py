"""``FewShotSplit`` and the few-shot sampler of CoOp, draw for draw.

Source: CLIP-Adapter (arXiv 2110.04544), section 4.1, follows the sampling of CoOp
(arXiv 2109.01134, section 4.1), whose lists are the reference of most few-shot papers on CLIP.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from clip_adapter.errors import DataError, UsageError
from clip_adapter.files import replacing

# CoOp validates on at most four pictures a class, however many shots it trains on.
MAX_VAL_SHOTS = 4
_FORMAT = "clip-adapter few-shot split, version 1"


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

    def save(self, path: str | Path) -> None:
        """Writes JSON to ``path``, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": _FORMAT, **asdict(self)})
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> FewShotSplit:
        """Reads what :meth:`save` wrote.

        Raises:
            DataError: the file is missing or is no such file.
        """
        try:
            found = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"The split file {path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise DataError(f"The split file {path} is no JSON: {error}.") from error
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise DataError(
                f"{path} is no few-shot split.",
                allowed=f'a JSON object with "format": "{_FORMAT}"',
                hint="Name a file that FewShotSplit.save wrote.",
            )
        shots, seed = found.get("shots"), found.get("seed")
        if not (shots is None or _is_index(shots)) or seed is None or not _is_index(seed):
            raise DataError(
                f"{path} has shots {shots!r} and seed {seed!r}.", allowed="whole numbers"
            )
        return cls(shots, seed, _indices(found, "train", path), _indices(found, "val", path))


def _is_index(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _indices(found: dict[str, Any], key: str, path: str | Path) -> list[int]:
    values = found.get(key)
    if not isinstance(values, list) or not all(map(_is_index, values)):
        raise DataError(f"{path} has no list of indices under {key!r}.", allowed="0, 1, 2, ...")
    if len(set(values)) != len(values):
        raise DataError(f"{path} names a picture twice under {key!r}.")
    return values


def sample_few_shot(
    train_labels: Sequence[int],
    val_labels: Sequence[int] | None = None,
    *,
    shots: int | None,
    seed: int = 1,
) -> FewShotSplit:
    """Draws K pictures of each class, exactly as CoOp does at the same seed.

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


def _draw(labels: Sequence[int], shots: int | None, generator: random.Random) -> list[int]:
    if shots is None:
        return list(range(len(labels)))
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(int(label), []).append(index)
    drawn: list[int] = []
    for indices in by_class.values():
        drawn += generator.sample(indices, shots) if len(indices) >= shots else indices
    return drawn
