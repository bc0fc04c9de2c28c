"""Data sets as the benchmark sees them: pictures by name, or ready-made features in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from clip_adapter.backbones import load_backbone, resolve_device
from clip_adapter.bench.results import Run
from clip_adapter.classifier import Classifier
from clip_adapter.datasets.open import DataSpec, feature_spec, load_dataset, parse_spec
from clip_adapter.demo.sets import DEMO_SETS, demo_set, demo_templates
from clip_adapter.errors import DataError
from clip_adapter.evaluation import held_out_features
from clip_adapter.features.embed import embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import sets_of
from clip_adapter.features.formats import FORMATS
from clip_adapter.features.store import content_digest
from clip_adapter.files import file_digest
from clip_adapter.fitting import make_task
from clip_adapter.methods import FewShotTask, Method
from clip_adapter.options import Dtype, SourceOptions
from clip_adapter.sources import FeatureSource, PictureSource

TEST, ALL = "test", "all"  # "all" data sets of the profile "features" are the files of the folder


@dataclass(frozen=True)
class Environment:
    """Where data is and how it is computed.

    Attributes:
        out: folder of the benchmark; the demo's pictures are drawn below it.
        root: folder of the paper's data sets.
        features: folder of feature files.
        cache: of the feature store; None is the user's.
        device: as in ``--device``.
        dtype: of the backbone.
        threads: of each process that runs.

    Raises:
        UsageError: the device cannot be used here.
    """

    out: str
    root: str | None = None
    features: str | None = None
    cache: str | None = None
    device: str = "auto"
    dtype: Dtype = "float32"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.device != "auto":
            resolve_device(self.device)


class Named:
    """A data set of which only the name is known: to measure costs, or to count runs."""

    identity = ""  # digest of what it holds
    copy_of = ""  # the copy on the hub that stands in for the original

    def __init__(self, name: str) -> None:
        self.name = name

    def has_shots(self, shots: int) -> bool:
        """Whether it can give K shots: where a class has fewer pictures, those are taken."""
        return True

    def lacks(self, method: Method, prompts: Sequence[str] = ()) -> str:
        """Why ``method`` with ``prompts`` of its own cannot run on it; "" where it can."""
        return ""


# Kept open for the next run: the last backbone, and a set with its shifted ones.
_backbone = lru_cache(maxsize=1)(load_backbone)
_test_features = lru_cache(maxsize=6)(held_out_features)


@lru_cache(maxsize=6)
def _pictures(spec: DataSpec, options: SourceOptions) -> PictureSource:
    source = PictureSource(spec, options)
    source.use(_backbone(options.backbone, device=options.device, dtype=options.dtype))
    return source


@lru_cache(maxsize=2)
def _features(path: Path, name: str) -> FeatureSource:
    return FeatureSource(parse_spec(f"{path}#{name}"), SourceOptions())


class PictureSet(Named):
    """A data set of pictures: one of the demo's or of the paper's, by name."""

    def __init__(self, name: str, environment: Environment) -> None:
        super().__init__(name)
        self._environment, demo = environment, name in DEMO_SETS
        self._templates = demo_templates(name) if demo else ()
        data = demo_set(name, Path(environment.out) / "data") if demo else name
        self._spec = parse_spec(data, environment.root)
        # A folder of one's own is no set below the root.
        self._root = environment.root if self._spec.takes_root else None
        self._dataset = load_dataset(self._spec, root=self._root)
        self.copy_of = self._dataset.copy_of

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Digest of the names, labels and classes of all pictures, wherever they lie."""
        splits = self._dataset.splits
        rows: dict[str, Any] = {k: [(s.name, s.label) for s in v] for k, v in splits.items()}
        absent = [
            sample.name
            for split in splits.values()
            for sample in split
            if isinstance(sample.source, Path) and not sample.source.exists()
        ]
        rows |= {"absent": absent} if absent else {}  # a set that was mended is another one
        return content_digest(json.dumps([self._dataset.class_names, rows]).encode())

    def task(self, run: Run, method: Method) -> tuple[FewShotTask, dict[str, Any]]:
        """The shots of ``run``, and facts to record."""
        return make_task(
            self._open(run), shots=run.shots, seed=run.seed, views=run.views, method=method
        )

    def test(self, run: Run, classifier: Classifier) -> tuple[FeatureSet, int]:
        """Features of the test pictures for ``classifier``, and how many cannot be read."""
        source = self._open(run)
        if classifier.tower_adapter is None:
            features = _test_features(source)
            return features, len(source.labels(TEST)) - len(features)
        # Of a tower that nobody will see again: nothing is kept.
        features, bad = embed(
            classifier.encoder(self._environment.device),
            self._dataset.pool(TEST),
            source.class_names,
            preprocess=run.style,
        )
        return features, len(bad)

    def _open(self, run: Run) -> PictureSource:
        return _pictures(
            self._spec,
            SourceOptions(
                backbone=run.backbone,
                device=self._environment.device,
                dtype=self._environment.dtype,
                prompts=run.prompts or self._templates,
                root=self._root,
                preprocess="coop" if run.style == "coop" else "clip",
                decode="exact",
                cache=self._environment.cache,
            ),
        )


class FeatureFile(Named):
    """A file of features with the sets ``train_{K}shot`` or ``train``, and a test set."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self._path, self.identity = path, file_digest(path)
        self._sets, self._has_text = sets_of(path)

    def has_shots(self, shots: int) -> bool:
        """Whether K shots have a set of their own, or can be drawn from a set "train"."""
        return "train" in self._sets or f"train_{shots}shot" in self._sets

    def lacks(self, method: Method, prompts: Sequence[str] = ()) -> str:
        """Why ``method`` with ``prompts`` of its own cannot run on features, or on these."""
        reasons = {
            "its text weights are given, so other prompts would change nothing": bool(prompts),
            "it reads pictures and there are features only": method.reads == "images",
            "it runs the text tower and there are features only": method.runs_text_tower,
            "it needs text weights and the file has none": method.needs_text and not self._has_text,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def task(self, run: Run, method: Method) -> tuple[FewShotTask, dict[str, Any]]:
        """The shots of ``run``, and facts to record."""
        own = f"train_{run.shots}shot"
        name, shots = (own, None) if own in self._sets else ("train", run.shots)
        task, facts = make_task(
            _features(self._path, name), shots=shots, seed=run.seed, method=method
        )
        return task, facts | {"data": f"{self._path.name}#{name}"}

    def test(self, run: Run, classifier: Classifier) -> tuple[FeatureSet, int]:
        """The test set, or the one that goes with the shots; all of it can be read."""
        name = TEST if TEST in self._sets else f"eval_{run.shots}shot"
        return held_out_features(_features(self._path, name)), 0


def open_set(name: str, environment: Environment) -> PictureSet | FeatureFile:
    """The data set ``name``.

    Raises:
        DataError: no such file among the features.
    """
    if environment.features is None:
        return PictureSet(name, environment)
    files = _feature_files(environment.features)
    if name not in files:
        raise DataError(
            f"There is no file of features {name!r} in {environment.features}.",
            allowed=", ".join(files),
            hint="A file is named without its ending.",
        )
    return FeatureFile(name, files[name])


def every_set(names: Sequence[str], environment: Environment) -> tuple[str, ...]:
    """``names``, with every file of features in the place of "all".

    Raises:
        DataError: there is none.
    """
    if environment.features is None:
        return tuple(names)
    if files := _feature_files(environment.features):
        return tuple(files if list(names) == [ALL] else names)
    raise DataError(
        f"{environment.features} is no folder with files of features ({', '.join(FORMATS)}).",
        allowed="one file for each data set, with sets train_{K}shot or train, and test",
        hint="'clip-adapter embed' makes such files.",
    )


def _feature_files(folder: str) -> dict[str, Path]:
    """The files of features in ``folder`` by their names without the ending, in order.

    Raises:
        DataError: two have one name.
    """
    files = dict[str, Path]()
    for path in sorted(Path(folder).glob("*")):
        if path.suffix.lower() not in FORMATS or not path.is_file() or not feature_spec(path):
            continue
        if (other := files.setdefault(path.stem, path)) != path:
            raise DataError(
                f"{other} and {path.name} are both called {path.stem!r} in tables.",
                hint="Move one of them to another folder.",
            )
    return files
