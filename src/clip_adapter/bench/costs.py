"""Seconds and memory: of any work, on which machine, and of a method on a true architecture.

The last is Table 1 of the paper, measured here. Weights and features are random: neither changes
what a step costs. A training that takes longer than ``seconds`` is timed for that long and
multiplied by the steps that are left, which the record says. It is measured in a process of its
own, with all threads of the machine.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from clip_adapter.backbones import load_backbone
from clip_adapter.bench.recipe import CostSettings
from clip_adapter.bench.results import Run
from clip_adapter.classifier import Classifier
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import fit_task, make_classifier
from clip_adapter.methods import FewShotTask, Method, make_method
from clip_adapter.nn import normalize
from clip_adapter.reporting import Stage, listening
from clip_adapter.task import Sizes

# Spread of the pictures of a class around its mean: a probe then neither fits at once nor never.
SPREAD = 1.0
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerator of this machine, and torch's threads."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": name,
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The git commit of the code, with "+" where it was changed since; None outside a clone."""
    here = Path(__file__).resolve()
    # A package that lies inside somebody else's clone is not that clone's code.
    asked = (
        ["ls-files", "--error-unmatch", here.name],
        ["rev-parse", "--short=12", "HEAD"],
        ["status", "--porcelain", "--", "."],
    )
    try:
        _, head, changed = (
            subprocess.check_output(  # noqa: S603 - fixed words
                ["git", *words],  # noqa: S607
                cwd=here.parent,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=10,
            ).strip()
            for words in asked
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def reset_peak() -> bool:
    """Begin to measure the memory anew; whether this system can (Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_mib() -> float:
    """The most memory of this process since :func:`reset_peak`, or since its start, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (peaks[0] if peaks else most / (1024 if sys.platform == "darwin" else 1)) / 1024


class _EnoughError(Exception):
    """Raised out of a training that was timed long enough."""


def measure_cost(run: Run, device: str = "auto") -> dict[str, Any]:
    """Training and answering of the method of ``run``.

    Returns:
        train_seconds, train_how, train_peak_mib, trained_parameters, embed_seconds (the features
        of all shots, once), infer_ms (a picture through backbone and classifier; the fastest of
        some batches), infer_peak_mib.
    """
    settings = CostSettings(**run.cost)
    backbone = load_backbone(settings.backbone, device=device)
    draw = torch.Generator().manual_seed(run.seed)
    means = torch.randn(settings.classes, backbone.embed_dim, generator=draw)
    labels = torch.arange(settings.classes).repeat(settings.shots)
    noise = torch.randn(len(labels), backbone.embed_dim, generator=draw)
    names = [f"class {i}" for i in range(settings.classes)]
    task = FewShotTask(
        FeatureSet(means[labels] + SPREAD * noise, labels, names),
        normalize(means),
        seed=run.seed,
        backbone=backbone,
        templates=("a photo of a {}.",),
    )
    method = run.instance()
    reset_peak()
    seconds, how, classifier = _train(method, task, settings.seconds)
    train_peak = peak_mib()
    reset_peak()
    size = backbone.preprocess.image_size
    pictures = torch.zeros(settings.batch, 3, size, size)
    embed, answer = [], []
    for _ in range(settings.repeats):
        start = time.perf_counter()
        features = backbone.encode_images(pictures)
        middle = time.perf_counter()
        classifier.logits(features)
        embed.append(middle - start)
        answer.append(time.perf_counter() - middle)
    return {
        "train_seconds": seconds,
        "train_how": how,
        "train_peak_mib": round(train_peak, 1),
        "trained_parameters": classifier.parameters or _counted(method, task),
        "embed_seconds": min(embed) / settings.batch * len(labels),
        "infer_ms": 1000 * (min(embed) + min(answer)) / settings.batch,
        "infer_peak_mib": round(peak_mib(), 1),
        "settings": settings.model_dump(),
        "device": backbone.device,
    }


def _train(method: Method, task: FewShotTask, enough: float) -> tuple[float, str, Classifier]:
    """(seconds, how they were measured, a classifier of that shape)."""
    start = time.perf_counter()

    def watch(stage: Stage) -> None:
        taken = time.perf_counter() - start
        if taken > enough and stage.done < stage.total:
            how = f"{stage.done:,} of {stage.total:,} steps timed"
            raise _EnoughError(taken / stage.done * stage.total, how)

    try:
        with listening(watch):
            fitted = method.fit(task)
    except _EnoughError as stopped:
        # Zero-shot answers at the cost of any classifier with class weights alone.
        return *stopped.args, fit_task(make_method("zero-shot"), task, {})
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
