"""``train_pixels``: the one training loop of methods that read pictures; ``fit_inside`` uses it.

Mixed precision, several devices, accumulated gradients, checkpoints and early stopping on
held-out shots are the loop's; a method brings a model from pictures to logits and a schedule.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from clip_adapter._version import __version__
from clip_adapter.finetuning.job import Job, PixelSchedule, Trained, trainable
from clip_adapter.finetuning.launch import run_on_several
from clip_adapter.finetuning.loop import run
from clip_adapter.heads import Head
from clip_adapter.nn import ResidualAdapter, cosine_logits, normalize
from clip_adapter.task import FewShotTask, Fitted
from clip_adapter.towers import TowerAdapter, adapted_copy
from clip_adapter.towers.text import TextTower
from clip_adapter.training.folds import stopping_fold


class Caller(Protocol):
    """A method: a dataclass of options with a name."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


class PixelModel(nn.Module):
    """``images (B, 3, S, S) -> logits (B, C)``: a tower, a map of its features, class weights.

    logits = logit_scale * normalize(image_map(tower(images))) @ normalize(W).T

    What asks for gradients in any of its parts is trained.

    Args:
        visual: ``(B, 3, S, S) -> (B, D)``, such as ``adapted_copy(backbone, adapter)``.
        weights: W (C, D), a trained parameter where it asks for gradients; or a module without
            arguments that computes it.
        logit_scale: 1/tau.
        image_map: changes the features first, or None.
        tower_adapter: in ``visual``; needed where its parameters are not the tower's.
        unit: scale the features to unit length before ``image_map``.
    """

    def __init__(
        self,
        visual: nn.Module,
        weights: Tensor | nn.Module,
        logit_scale: float,
        image_map: nn.Module | None = None,
        tower_adapter: nn.Module | None = None,
        unit: bool = False,
    ) -> None:
        super().__init__()
        self.visual, self.tower_adapter, self.image_map = visual, tower_adapter, image_map
        self.logit_scale, self.unit = float(logit_scale), unit
        trained = isinstance(weights, nn.Module | nn.Parameter)
        self.weights: Any = weights if trained else nn.Buffer(weights.detach().clone())

    def class_weights(self) -> Tensor:
        """W (C, D)."""
        return self.weights() if isinstance(self.weights, nn.Module) else self.weights

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C)."""
        features = self.visual(images)
        if self.unit:
            features = normalize(features)
        if self.image_map is not None:
            features = self.image_map(features)
        return cosine_logits(features, self.class_weights(), self.logit_scale)


def fit_inside(
    method: Caller,
    task: FewShotTask,
    schedule: PixelSchedule,
    *,
    adapter: TowerAdapter | None = None,
    text: TextTower | None = None,
    image_map: ResidualAdapter | None = None,
    **resolved: Any,
) -> Fitted:
    """Train what it is given inside a float32 copy of the backbone.

    Args:
        method: the caller; its options go into the record.
        task: with pictures, a backbone and text weights.
        schedule: optimiser and learning rate.
        adapter: what is trained of the visual tower; None leaves it as it is.
        text: a text tower, of which is trained what asks for gradients; its class weights of the
            end are kept. None keeps the text weights of the task.
        image_map: trained on top of the visual tower, or None.
        **resolved: hyper-parameters that differ from the options, for the record.

    Raises:
        BackboneError: the tower has no place for ``adapter``, or memory runs out.
        UsageError: the task has no pictures or no backbone.
        MissingTextError: it has no text weights.
    """
    task.require_pictures(method.name)
    weights = task.require_text(method.name)
    model = PixelModel(
        adapted_copy(task.require_backbone(method.name), adapter, torch.float32),
        text or weights,
        task.logit_scale,
        image_map,
        adapter,
        unit=task.train.feature_norm == "unit",
    )
    trained = train_pixels(model, task, schedule, method)
    with torch.no_grad():
        weights = model.class_weights().cpu()
    return Fitted(
        Head(weights, image_map and image_map.cpu(), logit_scale=task.logit_scale),
        hyperparameters={
            **dataclasses.asdict(method),
            **resolved,
            "steps": trained.steps,
            "best_step": trained.best_step,
        },
        trained_parameters=sum(p.numel() for p in trainable(model).values()),
        tower_adapter=adapter,
        details={"history": trained.history},
    )


def train_pixels(
    model: nn.Module,
    task: FewShotTask,
    schedule: PixelSchedule,
    method: Caller,
) -> Trained:
    """Train what asks for gradients in ``model``, in place; afterwards it is in eval mode.

    Modules in training mode (dropout) stay so while it trains; a tower from ``adapted_copy`` is
    in eval mode, so that BatchNorm keeps its statistics. With ``schedule.patience`` the first fold
    of the shots is held out; a task of one shot per class has none to spare, and trains to the
    last step. Parameters are restored to where the held-out accuracy was best, the start included
    (then the lower loss).

    With ``task.compute.checkpoint`` an interrupted training goes on where it was, to the bit on
    one CPU; a finished one is there at once. Either is logged.

    Args:
        model: pictures (B, 3, S, S) to logits (B, C), such as a :class:`PixelModel`. On several
            devices it is sent to other processes, so it must pickle: no lambdas, no local
            functions in hooks.
        task: with pictures; ``task.compute`` says where and how.
        schedule: optimiser and learning rate.
        method: the caller; its name and options are part of what a checkpoint is checked against.

    Raises:
        UsageError: no pictures, an unfinished checkpoint of another training, or devices that are
            not there.
        BackboneError: memory runs out.
        DecodeError: a picture cannot be read any more.
    """
    rows, held_out = torch.arange(len(task.train)), None
    if schedule.patience is not None and (fold := stopping_fold(task.train, task.seed)):
        rows, held_out = fold.fit, fold.held_out
    job = Job(
        pictures=task.require_pictures(method.name),
        labels=task.train.labels,
        rows=rows,
        held_out=held_out,
        schedule=schedule,
        seed=task.seed,
        compute=task.compute,
        digest=_digest(model, task, schedule, method, rows),
    )
    return run_on_several(model, job) if task.compute.devices > 1 else run(model, job)


def _digest(
    model: nn.Module, task: FewShotTask, schedule: PixelSchedule, method: Caller, rows: Tensor
) -> str:
    """SHA-256 (hex) over all that decides what a training comes to, but for the machine."""
    backbone, text = task.backbone, task.text_weights
    deciding = {
        # Another version may train otherwise.
        "version": __version__,
        "method": method.name,
        "options": dataclasses.asdict(method),
        "recipe": dataclasses.asdict(schedule),
        "seed": task.seed,
        "classes": task.class_names,
        "templates": list(task.templates),
        # What templates and descriptions of the classes come to.
        "text": None if text is None else hashlib.sha256(text.cpu().numpy().tobytes()).hexdigest(),
        "logit_scale": task.logit_scale,
        "feature_norm": task.train.feature_norm,
        "views": task.train.views,
        "labels": task.train.labels.tolist(),
        "digests": task.train.digests,
        "pictures": task.require_pictures(method.name).identity(),
        "rows": rows.tolist(),
        "precision": task.compute.precision,
        "backbone": None if backbone is None else backbone.fingerprint,
        "parameters": {name: list(p.shape) for name, p in trainable(model).items()},
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()
