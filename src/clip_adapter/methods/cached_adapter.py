"""CLIP-Adapter with a cache: the adapter moves the feature, the shots have their say beside it.

    f' = r A_v(f) + (1 - r) f          A_v(f) = ReLU(f W1) W2
    logits = logit_scale * normalize(f') @ normalize(W).T + a exp(-b (1 - f F^T)) L

Source: Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024
(arXiv 2110.04544): section 5 names the combination as future work and gives no recipe; the cache
is that of Tip-Adapter (Zhang et al. 2022, arXiv 2111.03930). Ours: the adapter trains as it does
alone, for in training each shot would find itself in the cache; the cache holds the features as
they were before the adapter, so both terms are known apart; and r, a and b are chosen together on
held-out shots, with zero-shot (r = 0, a = 0) among the candidates.
"""

import dataclasses
from typing import Annotated, Literal

import torch
from torch import Tensor

from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Sizes, register
from clip_adapter.methods.cache import CacheMethod, Part, balanced, unit_keys
from clip_adapter.nn import Activation, ResidualAdapter, affinity, cosine_logits
from clip_adapter.training import (
    Fold,
    Schedule,
    fast_schedule,
    folds_of,
    hidden_units,
    passes,
    train_on,
    training_device,
)
from clip_adapter.training.recipes import CANDIDATES, ONE_SHOT_RATIO

# Cross-validation ranks the ratios at half the steps of "fast", for half the time.
SHORTER = 2


@register(
    name="clip-adapter-cache",
    summary="a residual bottleneck on image features, and a cache of the shots",
    citation="Gao et al. 2024, arXiv 2110.04544",
    trains="a bottleneck on image features",
)
class CachedAdapter(CacheMethod):
    """The visual adapter is trained; its ratio and the cache's two numbers are chosen together.

    Attributes:
        visual_ratio: r, the share of the new image feature: 0 to 1, or "auto" (cross-validation on
            the shots, 0 included).
        cache_weight: a: 0 or more, or "auto", 0 included.
        cache_sharpness: b: above 0, or "auto".
        activation: "official" ends the bottleneck in a second ReLU, "paper" does not.
        reduction: D / H; the paper takes 4 (Table 5).
    """

    visual_ratio: Annotated[float | Literal["auto"], Bounds(least=0, most=1)] = "auto"
    activation: Activation = "official"
    reduction: Annotated[int, Bounds(least=1)] = 4

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return 2 * sizes.dim * (sizes.dim // self.reduction)

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        classes, train = len(task.require_text(self.name)), task.train
        keys, auto = unit_keys(train.features), self.visual_ratio == "auto"
        ratios = list(CANDIDATES) if auto else [float(self.visual_ratio)]
        folds = folds_of(train, task.seed)
        schedule = fast_schedule(task.mean_shots, len(train))
        base = self._held_out(task, folds, ratios, schedule)
        caches = [
            (
                affinity(train.plain_view[f.held_out], keys[f.fit]),
                balanced(train.labels[f.fit], classes, task.mean_shots),
            )
            for f in folds
        ]
        pairs = self.grid(task.logit_scale, coarse=auto)
        choice = self.choose(
            task,
            folds,
            lambda fold, c: Part(base[c["visual_ratio"], fold], *caches[fold]),
            [{"visual_ratio": r, **p} for r in ratios for p in pairs],
            {"visual_ratio": ONE_SHOT_RATIO if auto else ratios[0], **self.mild(task)},
        )
        ratio, adapter = choice.value["visual_ratio"], None
        if ratio > 0:
            adapter = self._train(task, [torch.arange(len(train))], [ratio], schedule).take(0)
        return self.fitted(
            task,
            choice,
            keys,
            balanced(train.labels, classes, task.mean_shots),
            image_map=adapter,
            trained=sum(p.numel() for p in adapter.parameters()) if adapter else 0,
            activation=self.activation,
            reduction=self.reduction,
            **schedule.record,
        )

    def _train(
        self, task: FewShotTask, rows: list[Tensor], ratios: list[float], schedule: Schedule
    ) -> ResidualAdapter:
        """R adapters, one for each of ``rows`` and ``ratios``, trained without the cache."""
        weights, dim = task.require_text(self.name), task.train.dim
        hidden = hidden_units(dim, self.reduction)
        generator = torch.Generator().manual_seed(task.seed)
        adapter = ResidualAdapter.build(
            dim, hidden, self.activation, torch.tensor(ratios), (len(rows),), generator
        )

        head = Head(weights, adapter, logit_scale=task.logit_scale)
        per_picture = dim * (2 * hidden + len(weights))
        work = len(rows) * min(schedule.batch_size, len(task.train)) * per_picture
        head.to(training_device(task, work))
        train_on(task, head, rows, schedule, work=work, logits=head, generator=generator)
        return adapter.cpu()

    def _held_out(
        self, task: FewShotTask, folds: list[Fold], ratios: list[float], schedule: Schedule
    ) -> dict[tuple[float, int], Tensor]:
        """For each ratio and fold the held-out logits (m, C), without the cache."""
        weights, scale = task.require_text(self.name), task.logit_scale
        rows = [task.train.plain_view[f.held_out] for f in folds]
        jobs = [(r, k) for r in ratios for k in range(len(folds))]
        base = {(r, k): cosine_logits(rows[k], weights, scale) for r, k in jobs}
        shorter = dataclasses.replace(schedule, steps=max((schedule.steps or 0) // SHORTER, 1))
        for some in passes([job for job in jobs if job[0] > 0], task, schedule):
            own_ratios, numbers = zip(*some, strict=True)
            adapters = self._train(task, [folds[k].fit for k in numbers], [*own_ratios], shorter)
            with torch.no_grad():
                for run, job in enumerate(some):
                    base[job] = cosine_logits(adapters.take(run)(rows[job[1]]), weights, scale)
        return base
