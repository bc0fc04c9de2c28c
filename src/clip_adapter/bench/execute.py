"""One unit of runs: fitted, scored, and told as records. Here the test set is opened."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from clip_adapter.bench.costs import commit, hardware, measure_cost, peak_mib, reset_peak
from clip_adapter.bench.data import Environment, FeatureFile, PictureSet, open_set
from clip_adapter.bench.results import Record, Run
from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.evaluation import evaluate
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import fit_task, fit_tasks, versions
from clip_adapter.heads import Head
from clip_adapter.nn import normalize

# More points in the plane hide each other.
MOST = 1000
PERPLEXITY = 30.0


class Worker:
    """Does units of runs one after the other, and keeps the last data sets open.

    Args:
        environment: where data is.
    """

    def __init__(self, environment: Environment) -> None:
        self._device, self._commit, self._hardware = environment.device, commit(), hardware()
        # A set and its shifted ones.
        self._open = functools.lru_cache(6)(lambda name: open_set(name, environment))

    def do(self, unit: Sequence[Run]) -> list[Record]:
        """A record for each run of ``unit``, which are of one data set.

        Raises:
            ClipAdapterError: data, backbone or method cannot do it.
        """
        reset = reset_peak()
        if unit[0].measure == "cost":
            records = [measure_cost(run, self._device) for run in unit]
        else:
            records = self._fit_and_score(unit)
        facts = {
            "versions": versions(),
            "commit": self._commit,
            "hardware": self._hardware,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "peak_memory_mib": round(peak_mib(), 1),
            # Without a new beginning it is that of all runs of this process so far.
            "peak_memory_is_its_own": reset,
        }
        return [record | facts for record in records]

    def _fit_and_score(self, unit: Sequence[Run]) -> list[Record]:
        data = self._open(unit[0].dataset)
        methods = [run.instance() for run in unit]
        # Runs of one seed share their task: its pictures are read, and lie in memory, once.
        by_seed = {run.seed: (run, method) for run, method in zip(unit, methods, strict=True)}
        drawn = {seed: data.task(*one) for seed, one in by_seed.items()}
        tasks, facts = zip(*(drawn[run.seed] for run in unit), strict=True)
        if len(unit) > 1 and len({len(task.train) for task in tasks}) == 1:
            classifiers = fit_tasks(methods, tasks, facts[0])
        else:  # alone, or a picture of one draw cannot be read: then they are of several sizes
            classifiers = list(map(fit_task, methods, tasks, facts))
        pairs = zip(unit, classifiers, strict=True)
        return [self._score(run, data, classifier) for run, classifier in pairs]

    def _score(self, run: Run, data: PictureSet | FeatureFile, classifier: Classifier) -> Record:
        features, unread = data.test(run, classifier)
        start = time.perf_counter()
        classifier.logits(features)
        seconds = time.perf_counter() - start
        report, info = evaluate(classifier, features), classifier.info
        return {
            "n": report.n,
            "top1": report.top1,
            "mean_per_class": report.mean_per_class,
            "zero_shot_top1": report.zero_shot_top1,
            "seen_in_training": report.seen_in_training,
            "shifts": {name: self._shift(run, classifier, name) for name in run.shifts},
            "chosen": {c["parameter"]: c["chosen"] for c in info.get("selection", [])},
            "hyperparameters": info["hyperparameters"],
            "options": info["options"],
            "classes": info["classes"],
            "train_pictures": info["train_pictures"],
            "trained_parameters": classifier.parameters,
            "train_seconds": info["seconds"],
            "embed_seconds": info["embed_seconds"],
            "score_ms": 1000 * seconds / len(features),
            "copy_of": data.copy_of,
            "skipped": len(info["skipped"]),
            "test_skipped": unread,
            "templates": info["templates"],
            "backbone": {
                "name": info["backbone"],
                "fingerprint": info["backbone_fingerprint"],
                "preprocess": info["preprocess"],
            },
            **(in_the_plane(classifier, features, run.seed) if run.measure == "tsne" else {}),
        }

    def _shift(self, run: Run, classifier: Classifier, name: str) -> dict[str, Any]:
        features, unread = self._open(name).test(run, classifier)
        report = dataclasses.asdict(evaluate(classifier, features, only_its_classes=True))
        kept = ("n", "top1", "zero_shot_top1", "mean_per_class")
        return {key: report[key] for key in kept} | {"test_skipped": unread}


def in_the_plane(classifier: Classifier, features: FeatureSet, seed: int) -> dict[str, Any]:
    """Points of the features as ``classifier`` compares them with its class weights, by t-SNE.

    Figure 6 of the paper shows them. Where only the class weights were learnt (CoOp), they are the
    features of CLIP.

    Args:
        classifier: with one cosine head.
        features: of the test pictures; ``MOST`` of them are drawn at random.
        seed: of the draw and of t-SNE.

    Returns:
        ``points`` (n, 2), ``labels`` (n,), ``class_names``, and ``silhouette``: how far the
        classes lie apart among the features before t-SNE, -1 to 1.

    Raises:
        UsageError: the classifier does not compare features with class weights.
    """
    head = classifier.head
    if not isinstance(head, Head) or head.kind != "cosine":
        raise UsageError(
            f"{classifier.info.get('method')} has no features to show.",
            allowed="methods that compare one feature with class weights",
        )
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(features), generator=draw)[:MOST].sort().values
    shown, labels = features.plain_view[rows], features.labels[rows].numpy()
    with torch.no_grad():
        unit = normalize(shown if head.image_map is None else head.image_map(shown)).numpy()
    with threadpool_limits(1):  # the order of sums decides where points end
        tsne = TSNE(perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), init="pca", random_state=seed)
        return {
            "points": [
                [round(float(x), 3), round(float(y), 3)] for x, y in tsne.fit_transform(unit)
            ],
            "labels": labels.tolist(),
            "class_names": features.class_names,
            "silhouette": float(silhouette_score(unit, labels, metric="cosine")),
        }
