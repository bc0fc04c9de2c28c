"""Data sets as the benchmark sees them: pictures by name, or ready-made features in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from clip_adapter.backbones import Backbone, load_backbone
from clip_adapter.backbones.memory import silent
from clip_adapter.bench.recipe import ALL
from clip_adapter.bench.runs import Run
from clip_adapter.classifier import Classifier
from clip_adapter.datasets.dataset import Dataset
from clip_adapter.datasets.open import load_dataset, takes_root
from clip_adapter.demo.sets import DEMO_SETS, demo_set, demo_templates
from clip_adapter.errors import DataError, UsageError
from clip_adapter.evaluation import held_out_features
from clip_adapter.features.embed import embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import sets_of
from clip_adapter.features.store import content_digest
from clip_adapter.files import file_digest
from clip_adapter.fitting import make_task
from clip_adapter.methods import FewShotTask, Method
from clip_adapter.options import Dtype, SourceOptions
from clip_adapter.sources import FeatureSource, PictureSource, open_source

TEST = "test"


@dataclass(frozen=True)
class Place:
    """Where data is and how it is computed; JSON types, for other processes.

    Attributes:
        out: folder of the benchmark; the demo's pictures are drawn below it.
        root: folder of the paper's data sets.
        features: folder of feature files.
        cache: of the feature store; None is the user's.
        device: as in ``--device``.
        dtype: of the backbone.
        threads: of each process that runs.
    """

    out: str
    root: str | None = None
    features: str | None = None
    cache: str | None = None
    device: str = "auto"
    dtype: Dtype = "float32"
    threads: int = 1


class PictureSet:
    """A data set of pictures: one of the demo's or of the paper's, by name."""

    takes_prompts = True

    def __init__(self, name: str, place: Place, say: Callable[[str], None]) -> None:
        # Of pictures that were drawn here there is nothing to say.
        self.name, self._place, self._say = name, place, silent if name in DEMO_SETS else say
        self._source: tuple[Any, PictureSource] | None = None
        self._test: dict[str, tuple[FeatureSet, int]] = {}
        self._shifts: dict[str, PictureSet] = {}
        self._backbone: Backbone | None = None
        self._digest = ""
        self._listed: Dataset | None = None

    def identity(self) -> str:
        """Digest of the names, labels and classes of all pictures, wherever they lie."""
        if not self._digest:
            data = self._dataset()
            rows: dict[str, Any] = {
                k: [(s.name, s.label) for s in v] for k, v in data.splits.items()
            }
            files = [s for v in data.splits.values() for s in v if isinstance(s.source, Path)]
            # A set that was mended is another one.
            if absent := [s.name for s in files if not cast("Path", s.source).exists()]:
                rows["absent"] = absent
            self._digest = content_digest(json.dumps([data.class_names, rows]).encode())
        return self._digest

    @property
    def copy_of(self) -> str:
        """The copy on the hub that stands in for the original; "" for the original."""
        return self._dataset().copy_of

    def shots(self, wanted: Iterable[int]) -> list[int]:
        """All of them: where a class has fewer pictures, those are taken."""
        return list(wanted)

    def lacks(self, method: Method) -> str:
        """Nothing: pictures serve every method."""
        return ""

    def task(self, run: Run, method: Method) -> tuple[FewShotTask, dict[str, Any]]:
        """The shots of ``run``, and facts to record."""
        source = self._open(run)
        return make_task(source, shots=run.shots, seed=run.seed, views=run.views, method=method)

    def test(
        self, run: Run, classifier: Classifier, shift: str | None = None
    ) -> tuple[FeatureSet, int]:
        """Features of the test pictures, or of those of ``shift``, for ``classifier``.

        And how many pictures could not be read.
        """
        if shift is not None:
            if shift not in self._shifts:
                self._shifts[shift] = PictureSet(shift, self._place, self._say)
            other = self._shifts[shift]
            other._backbone = self._backbone
            return other.test(run, classifier)
        source = self._open(run)
        if classifier.tower_adapter is not None:
            # Of a tower that nobody will see again: nothing is kept.
            samples = self._dataset().pool(TEST)
            encoder = classifier.encoder(self._place.device)
            found, bad = embed(encoder, samples, source.class_names, preprocess=run.style)
            return found, len(bad)
        if TEST not in self._test:
            found = held_out_features(source)
            self._test[TEST] = found, len(source.labels(TEST)) - len(found)
        return self._test[TEST]

    def _open(self, run: Run) -> PictureSource:
        key = (run.backbone, run.style, run.prompts)
        if self._source is None or self._source[0] != key:
            own = demo_templates(self.name) if self.name in DEMO_SETS else ()
            options = SourceOptions(
                backbone=run.backbone,
                device=self._place.device,
                dtype=self._place.dtype,
                prompts=run.prompts or own,
                root=self._root(),
                preprocess="coop" if run.style == "coop" else "clip",
                cache=self._place.cache,
                say=self._say,
            )
            source = PictureSource(self._spec(), options)
            if self._backbone is None or self._backbone.name != run.backbone:
                loaded = load_backbone(run.backbone, device=options.device, dtype=options.dtype)
                self._backbone = loaded
            source.use(self._backbone)
            self._source, self._test = (key, source), {}
        return self._source[1]

    def _dataset(self) -> Dataset:
        """Its lists, read once."""
        if self._listed is None:
            self._listed = load_dataset(self._spec(), root=self._root())
        return self._listed

    def _spec(self) -> str:
        if self.name in DEMO_SETS:
            return str(demo_set(self.name, Path(self._place.out) / "data"))
        return self.name

    def _root(self) -> str | None:
        """Where it says something: a folder of one's own is no set below the root."""
        return self._place.root if takes_root(self._spec(), self._place.root) else None


class FeatureFile:
    """A file of features with the sets ``train_{K}shot`` or ``train``, and a test set."""

    takes_prompts = False
    copy_of = ""  # nothing is known of the pictures

    def __init__(self, name: str, path: Path, say: Callable[[str], None]) -> None:
        self.name, self._path, self._say = name, path, say
        self._sources: dict[str, FeatureSource] = {}
        self._tests: dict[str, FeatureSet] = {}
        self._sets, self._has_text = sets_of(path)
        self._digest = file_digest(path)

    def identity(self) -> str:
        """Digest of the file."""
        return self._digest

    def shots(self, wanted: Iterable[int]) -> list[int]:
        """Those with a set of their own; all where there is a set "train"."""
        return [k for k in wanted if "train" in self._sets or f"train_{k}shot" in self._sets]

    def lacks(self, method: Method) -> str:
        """Why ``method`` cannot run on features, or on these."""
        if method.reads == "images":
            return "it reads pictures and there are features only"
        if method.runs_text_tower:
            return "it runs the text tower and there are features only"
        if method.needs_text and not self._has_text:
            return "it needs text weights and the file has none"
        return ""

    def task(self, run: Run, method: Method) -> tuple[FewShotTask, dict[str, Any]]:
        """The shots of ``run``, and facts to record."""
        own = f"train_{run.shots}shot"
        drawn = own not in self._sets
        source = self._open("train" if drawn else own)
        shots = run.shots if drawn else None
        task, facts = make_task(source, shots=shots, seed=run.seed, method=method)
        return task, facts | {"data": f"{self._path.name}#{source.set_name}"}

    def test(
        self, run: Run, classifier: Classifier, shift: str | None = None
    ) -> tuple[FeatureSet, int]:
        """The test set, or the one that goes with the shots; all of it can be read."""
        if shift is not None:
            raise UsageError(f"{self.name} holds no shifted set {shift!r}.")
        name = TEST if TEST in self._sets else f"eval_{run.shots}shot"
        if name not in self._tests:
            self._tests[name] = held_out_features(self._open(name))
        return self._tests[name], 0

    def _open(self, name: str) -> FeatureSource:
        if name not in self._sources:
            opened = open_source(f"{self._path}#{name}", SourceOptions())
            assert isinstance(opened, FeatureSource)  # noqa: S101 - a feature file is one
            self._sources[name] = opened
        return self._sources[name]


SetOfData = PictureSet | FeatureFile


def open_set(name: str, place: Place, say: Callable[[str], None]) -> SetOfData:
    """The data set ``name``.

    Raises:
        DataError: no such file among the features.
    """
    if place.features is None:
        return PictureSet(name, place, say)
    path = Path(place.features) / f"{name}.safetensors"
    if not path.is_file():
        raise DataError(
            f"There is no {path}.",
            allowed=", ".join(feature_files(place)) or "a folder with .safetensors files",
            hint="Name the folder of feature files with --features.",
        )
    return FeatureFile(name, path, say)


def feature_files(place: Place) -> list[str]:
    """Names of the feature files."""
    return sorted(path.stem for path in Path(place.features or ".").glob("*.safetensors"))


def every_set(names: Iterable[str], place: Place) -> tuple[str, ...]:
    """``names``, with every file of features in the place of "all".

    Raises:
        DataError: there is none.
    """
    names = tuple(names)
    if place.features and not feature_files(place):
        raise DataError(
            f"{place.features} is no folder with .safetensors files.",
            allowed="one file for each data set, with sets train_{K}shot or train, and test",
            hint="'clip-adapter embed' makes such files.",
        )
    return tuple(feature_files(place)) if names == (ALL,) and place.features else names
