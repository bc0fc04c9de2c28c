"""``Beside``: the published number that stands beside one of ours, and whether they compare.

A difference is told only where data set, backbone, preprocessing, shots and method are the same,
and where ours was measured on the whole data set. Where one of them is another, the published
number shows the shape of the finding and nothing else.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from clip_adapter.bench.published import FewShotFigure, Published, TableFigure, paper_backbone
from clip_adapter.bench.recipe import Recipe, System
from clip_adapter.bench.results import Record
from clip_adapter.bench.values import Findings, Place
from clip_adapter.datasets.catalog import Benchmark, get_benchmark, known_benchmark

# Most of the published numbers are of this one.
USUAL_BACKBONE = "RN50"
# Why there is no difference; "" where there is one.
SETTING, METHOD, INCOMPLETE = "setting", "method", "incomplete"
# Published name -> our method.
METHODS = {
    "zero-shot": "zero-shot",
    "Zero-shot CLIP": "zero-shot",
    "linear-probe": "linear-probe",
    "Linear probe CLIP": "linear-probe",
    "CoOp": "coop",
    "CLIP-Adapter": "clip-adapter",
    "Tip-Adapter": "tip-adapter",
    "Tip-Adapter-F": "tip-adapter-f",
    "APE": "ape",
    "APE-T": "ape-t",
    "GDA": "gda",
}


@dataclass(frozen=True)
class Beside:
    """A published number.

    Attributes:
        value: in percent.
        dataset: what it was measured on.
        backbone: as the paper writes it.
        why: "" where ours was measured on the same, so that a difference means something; else
            SETTING (another data set, backbone, preprocessing or number of shots), METHOD (another
            method, or prompts of its own) or INCOMPLETE (not known to be of the whole data set).
        digitised: read off a plot, to 0.2 points.
        note: what is odd about it.
        source: "paper" for a table of CLIP-Adapter's, else "published".
    """

    value: float
    dataset: str
    backbone: str
    why: str = ""
    digitised: bool = False
    note: str = ""
    source: str = "published"

    @property
    def same(self) -> bool:
        """Whether a difference may be given."""
        return not self.why

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


def beside(findings: Findings, system: System, place: Place, published: Published) -> Beside | None:
    """The published accuracy for ``system`` at ``place``; None where there is none."""
    recipe = findings.recipe
    number = table_number(recipe)
    if number is not None:
        name = row_of(system, {f.row for f in published.table(number)})
        found = _of_table(recipe, name, place, published.table(number))
        # The table says which rows have prompts of their own, but not what others call a row.
        other = bool(system.prompts) and name == system.of
    else:
        name, other = system.of, bool(system.prompts)
        found = _few_shot(recipe, name, place, published) if name else None
        other = other or name not in METHODS
    if found is None or found.why:
        return found
    if other or METHODS.get(name, system.method) != system.method:
        return dataclasses.replace(found, why=METHOD)
    if recipe.profile != "paper" or not _whole(findings.at(system.label, place).records, place):
        return dataclasses.replace(found, why=INCOMPLETE)
    return found


def _whole(records: Sequence[Record], place: Place) -> bool:
    """Whether all records are of all classes and of all test pictures of the paper's data set."""
    trained, tested = _benchmark(place.dataset), _benchmark(place.test_set)
    if trained is None or tested is None:
        return not records
    for record in records:
        part = record.get("shifts", {}).get(place.shift, {}) if place.shift else record
        unread = record.get("skipped", 0), part.get("test_skipped", 0)
        # A copy is split its own way, so its shots are others.
        if any(unread) or record.get("copy_of") or record.get("classes") != trained.classes:
            return False
        if part.get("n") != tested.sizes.get("test"):
            return False
    return True


def _benchmark(name: str) -> Benchmark | None:
    return get_benchmark(name) if known_benchmark(name) == name else None


def row_of(system: System, rows: set[str]) -> str:
    """The name of ``system`` in a table of the paper."""
    return system.of if system.of in rows else system.label


def theirs(recipe: Recipe, dataset: str) -> str:
    """The paper's data set beside which ``dataset`` is shown."""
    return recipe.like.get(dataset, dataset)


def _of_table(recipe: Recipe, row: str, place: Place, figures: list[TableFigure]) -> Beside | None:
    dataset = theirs(recipe, place.test_set)
    fitting = [f for f in figures if (f.row, f.dataset, f.metric) == (row, dataset, "top1")]
    if not fitting:
        return None
    backbone = paper_backbone(place.backbone)
    exact = [f for f in fitting if f.backbone == backbone]
    taken = (exact or fitting)[0]
    same = bool(exact) and dataset == place.test_set
    same = same and (taken.style, taken.shots) == (recipe.style, place.shots)
    why = "" if same else SETTING
    return Beside(taken.value, taken.dataset, taken.backbone, why, note=taken.note, source="paper")


def _few_shot(recipe: Recipe, method: str, place: Place, published: Published) -> Beside | None:
    dataset = theirs(recipe, place.test_set)
    own = paper_backbone(place.backbone)
    for backbone in dict.fromkeys((own, USUAL_BACKBONE)):
        found: FewShotFigure | None = published.accuracy(
            method, dataset, backbone, recipe.style, place.shots
        )
        if found is not None:
            why = "" if backbone == own and dataset == place.test_set else SETTING
            return Beside(found.accuracy, dataset, backbone, why, found.digitised)
    return None
