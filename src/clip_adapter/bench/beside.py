"""``Beside``: the published number that stands beside one of ours, and whether they compare.

A difference is told only where data set, backbone, preprocessing and shots are the same. Where one
of them is another, the published number shows the shape of the finding and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clip_adapter.bench.published import FewShotFigure, Published, TableFigure, paper_backbone
from clip_adapter.bench.recipe import Recipe, System
from clip_adapter.bench.values import Place

# Most of the published numbers are of this one.
USUAL_BACKBONE = "RN50"


@dataclass(frozen=True)
class Beside:
    """A published number.

    Attributes:
        value: in percent.
        dataset: what it was measured on.
        backbone: as the paper writes it.
        same: whether ours was measured on the same.
        digitised: read off a plot, to 0.2 points.
        note: what is odd about it.
        source: "paper" for a table of CLIP-Adapter's, else "published".
    """

    value: float
    dataset: str
    backbone: str
    same: bool
    digitised: bool = False
    note: str = ""
    source: str = "published"

    @property
    def where(self) -> str:
        """For the title of a panel."""
        return f"{self.dataset}, {self.backbone}"

    @property
    def head(self) -> str:
        """For the head of a column or row."""
        return f"{self.source}: {self.where}"


def table_number(recipe: Recipe) -> int | None:
    """5 for a recipe of "Table 5"."""
    found = re.fullmatch(r"Table (\d+)", recipe.source)
    return int(found[1]) if found else None


def beside(recipe: Recipe, system: System, place: Place, published: Published) -> Beside | None:
    """The published accuracy for ``system`` at ``place``; None where there is none."""
    number = table_number(recipe)
    if number is not None:
        return _of_table(recipe, system, place, published.table(number))
    return _few_shot(recipe, system.of, place, published) if system.of else None


def row_of(system: System, rows: set[str]) -> str:
    """The name of ``system`` in a table of the paper."""
    return system.of if system.of in rows else system.label


def theirs(recipe: Recipe, dataset: str) -> str:
    """The paper's data set beside which ``dataset`` is shown."""
    return recipe.like.get(dataset, dataset)


def _of_table(
    recipe: Recipe, system: System, place: Place, figures: list[TableFigure]
) -> Beside | None:
    row, dataset = row_of(system, {f.row for f in figures}), theirs(recipe, place.test_set)
    fitting = [f for f in figures if (f.row, f.dataset, f.metric) == (row, dataset, "top1")]
    if not fitting:
        return None
    backbone = paper_backbone(place.backbone)
    exact = [f for f in fitting if f.backbone == backbone]
    taken = (exact or fitting)[0]
    same = bool(exact) and dataset == place.test_set
    same = same and (taken.style, taken.shots) == (recipe.style, place.shots)
    return Beside(taken.value, taken.dataset, taken.backbone, same, note=taken.note, source="paper")


def _few_shot(recipe: Recipe, method: str, place: Place, published: Published) -> Beside | None:
    dataset = theirs(recipe, place.test_set)
    own = paper_backbone(place.backbone)
    for backbone in dict.fromkeys((own, USUAL_BACKBONE)):
        found: FewShotFigure | None = published.accuracy(
            method, dataset, backbone, recipe.style, place.shots
        )
        if found is not None:
            same = backbone == own and dataset == place.test_set
            return Beside(found.accuracy, dataset, backbone, same, found.digitised)
    return None
