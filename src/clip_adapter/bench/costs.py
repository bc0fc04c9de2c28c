"""Seconds and memory of a method on a true architecture: Table 1 of the paper, measured here.

Weights and features are random: neither changes what a step costs. A training that takes longer
than ``seconds`` is timed for that long and multiplied by the steps that are left, which the record
says. Everything is measured in a process of its own, with all threads of the machine.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from clip_adapter.backbones import Backbone, load_backbone
from clip_adapter.bench.environment import peak_mib, reset_peak
from clip_adapter.bench.recipe import CostSettings, checked
from clip_adapter.bench.run import Run
from clip_adapter.classifier import Classifier
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import fit_task, make_classifier
from clip_adapter.methods import FewShotTask, Method, make_method
from clip_adapter.nn import normalize
from clip_adapter.reporting import Stage, listening
from clip_adapter.task import Sizes

# Spread of the pictures of a class around its mean: a probe then neither fits at once nor never.
SPREAD = 1.0


class _EnoughError(Exception):
    """Raised out of a training that was timed long enough."""


def measure_cost(run: Run, device: str = "auto") -> dict[str, Any]:
    """Training and answering of the method of ``run``.

    Returns:
        train_seconds, train_how, train_peak_mib, trained_parameters, embed_seconds (the features
        of all shots, once), infer_ms (a picture through backbone and classifier), infer_peak_mib.

    Raises:
        UsageError: settings that are not those of :class:`CostSettings`.
    """
    settings = checked(CostSettings, run.cost, "cost")
    backbone = load_backbone(settings.backbone, device=device)
    method, task = run.instance(), _task(backbone, settings, run.seed)
    reset_peak()
    seconds, how, classifier = _train(method, task, settings)
    train_peak = peak_mib()
    reset_peak()
    embed, answer = _answer(backbone, classifier, settings)
    return {
        "train_seconds": seconds,
        "train_how": how,
        "train_peak_mib": round(train_peak, 1),
        "trained_parameters": classifier.parameters or _counted(method, task),
        "embed_seconds": embed / 1000 * len(task.train),
        "infer_ms": embed + answer,
        "infer_peak_mib": round(peak_mib(), 1),
        "settings": settings.model_dump(),
        "device": backbone.device,
    }


def _task(backbone: Backbone, settings: CostSettings, seed: int) -> FewShotTask:
    draw = torch.Generator().manual_seed(seed)
    means = torch.randn(settings.classes, backbone.embed_dim, generator=draw)
    labels = torch.arange(settings.classes).repeat(settings.shots)
    noise = torch.randn(len(labels), backbone.embed_dim, generator=draw)
    names = [f"class {i}" for i in range(settings.classes)]
    return FewShotTask(
        FeatureSet(means[labels] + SPREAD * noise, labels, names),
        normalize(means),
        seed=seed,
        backbone=backbone,
        templates=("a photo of a {}.",),
    )


def _train(
    method: Method, task: FewShotTask, settings: CostSettings
) -> tuple[float, str, Classifier]:
    """(seconds, how they were measured, a classifier of that shape)."""
    start = time.perf_counter()

    def watch(stage: Stage) -> None:
        taken = time.perf_counter() - start
        if taken > settings.seconds and stage.done < stage.total:
            words = f"{stage.done:,} of {stage.total:,} steps timed"
            raise _EnoughError(taken / stage.done * stage.total, words)

    try:
        with listening(watch):
            fitted = method.fit(task)
    except _EnoughError as enough:
        # Zero-shot answers at the cost of any classifier with class weights alone.
        return *enough.args, fit_task(make_method("zero-shot"), task, {})
    seconds = time.perf_counter() - start
    return seconds, "timed whole", make_classifier(fitted, method, task, {}, seconds)


def _counted(method: Method, task: FewShotTask) -> int:
    """The parameters that ``method`` would have trained."""
    width = 0
    if method.runs_text_tower:
        tower = task.require_backbone(method.name)
        width = int(tower.embed_tokens(tower.tokenize([""])).shape[-1])
    sizes = Sizes(task.train.dim, len(task.class_names), task.shots, text_width=width)
    return method.parameters(sizes) or 0


def _answer(
    backbone: Backbone, classifier: Classifier, settings: CostSettings
) -> tuple[float, float]:
    """Milliseconds a picture: through the backbone, and through the classifier; the fastest."""
    size = backbone.preprocess.image_size
    pictures = torch.zeros(settings.batch, 3, size, size)
    times = []
    for _ in range(settings.repeats):
        start = time.perf_counter()
        features = backbone.encode_images(pictures)
        middle = time.perf_counter()
        classifier.logits(features)
        times.append((middle - start, time.perf_counter() - middle))
    embed, answer = (1000 * min(kind) / settings.batch for kind in zip(*times, strict=True))
    return embed, answer
