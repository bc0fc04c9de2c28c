"""``Run``: one training and its scores, told by all that decides them."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clip_adapter.bench.recipe import Measure, SelectionRule
from clip_adapter.features.store import content_digest
from clip_adapter.methods import Method, make_method
from clip_adapter.options import Dtype

ZERO_SHOT = "zero-shot"
# Runs that are trained in one pass: bounds what a kill can cost, and the memory.
MOST_TOGETHER = 24


@dataclass(frozen=True)
class Run:
    """What is done once.

    Attributes:
        profile: of the recipe.
        measure: what is measured.
        dataset: its name.
        data: digest of what it holds, as far as it is cheap to know.
        backbone: name; "" where ready-made features tell it.
        style: preprocessing.
        views: augmented views of each shot.
        prompts: templates in place of the data set's; () are its own.
        method: its name.
        options: of the method, as the recipe gives them.
        shots: K.
        seed: of draw and training.
        shifts: further test sets.
        protocol: how what is reported was chosen.
        cost: settings of the measure "cost".
        dtype: of the backbone.
        weights: digest of the backbone's files, where its name is a path; else "".
    """

    profile: str
    measure: Measure
    dataset: str
    data: str
    backbone: str
    style: str
    views: int
    prompts: tuple[str, ...]
    method: str
    options: Mapping[str, Any]
    shots: int
    seed: int
    shifts: tuple[str, ...] = ()
    protocol: SelectionRule = "ours"
    cost: Mapping[str, Any] = field(default_factory=dict)
    dtype: Dtype = "float32"
    weights: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; without ``dtype`` and ``weights`` where they are the usual ones."""
        content = dataclasses.asdict(self)
        for name, usual in (("dtype", "float32"), ("weights", "")):
            if content[name] == usual:
                del content[name]
        return content | {k: list(content[k]) for k in ("prompts", "shifts")}

    @functools.cached_property
    def key(self) -> str:
        """A digest of everything in it."""
        return content_digest(json.dumps(self.to_dict(), sort_keys=True).encode())

    @property
    def title(self) -> str:
        """For people."""
        options = ", ".join(f"{k}={v}" for k, v in self.options.items())
        named = f"{self.method} ({options})" if options else self.method
        words = [f"{self.dataset} ({self.backbone}, {self.style})", named]
        words += [f"{self.shots} shots", f"seed {self.seed}"]
        if self.prompts:
            words.append(f"prompts {' / '.join(self.prompts)}")
        words += [] if self.views == 1 else [f"{self.views} views"]
        words += [] if self.protocol == "ours" else [f"protocol {self.protocol}"]
        return ", ".join(words)

    @property
    def path(self) -> str:
        """Of its result, below the folder of results; readable, and its own."""
        words = [self.method, *(f"{k}-{v}" for k, v in self.options.items())]
        words += [f"{self.shots}shot", f"seed{self.seed}", self.key[:12]]
        dataset, *parts = (re.sub(r"[^\w.+-]", "-", str(word)) for word in (self.dataset, *words))
        name = "_".join(part[:40] for part in parts)
        return f"{self.profile}/{dataset}/{name}.json"

    def instance(self) -> Method:
        """The method with its options."""
        return make_method(self.method, self.options)


def units(runs: Iterable[Run]) -> list[list[Run]]:
    """``runs`` in groups that are trained in one pass; most are alone."""
    groups: dict[Hashable, list[Run]] = {}
    for number, run in enumerate(runs):
        own = run.instance().together_key() if run.measure == "accuracy" else None
        shared = {k: v for k, v in run.to_dict().items() if k not in ("options", "seed")}
        # Methods of one name are of one class.
        key = number if own is None else (json.dumps(shared, sort_keys=True), own)
        groups.setdefault(key, []).append(run)
    return [
        group[start : start + MOST_TOGETHER]
        for group in groups.values()
        for start in range(0, len(group), MOST_TOGETHER)
    ]
