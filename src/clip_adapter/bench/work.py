"""One unit of runs: fitted, scored, and told as records. Here the test set is opened."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from clip_adapter.bench.costs import measure_cost
from clip_adapter.bench.data import Place, SetOfData, open_set
from clip_adapter.bench.hardware import commit, hardware, peak_mib, reset_peak
from clip_adapter.bench.plane import in_the_plane
from clip_adapter.bench.results import Record
from clip_adapter.bench.runs import Run
from clip_adapter.classifier import Classifier
from clip_adapter.evaluation import evaluate
from clip_adapter.fitting import fit_task, fit_tasks, versions

Say = Callable[[str], None]


class Worker:
    """Does units of runs one after the other, and keeps the last data set open.

    Args:
        place: where data is.
        say: receives lines for the user.
    """

    def __init__(self, place: Place, say: Say) -> None:
        self._place, self._say = place, say
        self._data: SetOfData | None = None
        self._commit, self._hardware = commit(), hardware()

    def do(self, unit: Sequence[Run]) -> list[Record]:
        """A record for each run of ``unit``, which are of one data set.

        Raises:
            ClipAdapterError: data, backbone or method cannot do it.
        """
        reset = reset_peak()
        first = unit[0]
        if first.measure == "cost":
            records = [measure_cost(run, self._place.device) for run in unit]
        else:
            records = self._fit_and_score(unit)
        for record in records:
            record |= {
                "versions": versions(),
                "commit": self._commit,
                "hardware": self._hardware,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "peak_memory_mib": round(peak_mib(), 1),
                # Without a new beginning it is that of all runs of this process so far.
                "peak_memory_is_its_own": reset,
            }
        return records

    def _fit_and_score(self, unit: Sequence[Run]) -> list[Record]:
        data = self._open(unit[0].dataset)
        methods = [run.instance() for run in unit]
        # Runs of one seed share their task: its pictures are read, and lie in memory, once.
        by_seed = {run.seed: (run, method) for run, method in zip(unit, methods, strict=True)}
        made = {seed: data.task(*one) for seed, one in by_seed.items()}
        tasks = [made[run.seed][0] for run in unit]
        facts = [made[run.seed][1] for run in unit]
        if len(unit) > 1 and len({len(task.train) for task in tasks}) == 1:
            classifiers = fit_tasks(methods, tasks, facts[0])
        else:  # alone, or a picture of one draw cannot be read: then they are of several sizes
            classifiers = list(map(fit_task, methods, tasks, facts))
        return [
            self._score(run, data, classifier)
            for run, classifier in zip(unit, classifiers, strict=True)
        ]

    def _score(self, run: Run, data: SetOfData, classifier: Classifier) -> Record:
        features, unread = data.test(run, classifier)
        start = time.perf_counter()
        classifier.logits(features)
        seconds = time.perf_counter() - start
        report = evaluate(classifier, features)
        info = classifier.info
        record = {
            "n": report.n,
            "top1": report.top1,
            "mean_per_class": report.mean_per_class,
            "zero_shot_top1": report.zero_shot_top1,
            "seen_in_training": report.seen_in_training,
            "shifts": {name: self._shift(run, data, classifier, name) for name in run.shifts},
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
        }
        if run.measure == "tsne":
            record |= in_the_plane(classifier, features, run.seed)
        return record

    @staticmethod
    def _shift(run: Run, data: SetOfData, classifier: Classifier, name: str) -> dict[str, Any]:
        features, unread = data.test(run, classifier, name)
        report = evaluate(classifier, features, only_its_classes=True)
        kept = ("n", "top1", "zero_shot_top1", "mean_per_class")
        found = {k: v for k, v in dataclasses.asdict(report).items() if k in kept}
        return found | {"test_skipped": unread}

    def _open(self, name: str) -> SetOfData:
        if self._data is None or self._data.name != name:
            self._data = None  # let go of the other first
            self._data = open_set(name, self._place, self._say)
        return self._data
