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

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.heads import Head
from clip_adapter.methods.base import Method, register
from clip_adapter.nn import Activation, Cache, ResidualAdapter, cosine_logits
from clip_adapter.nn.cache import affinity, nearness
from clip_adapter.task import FewShotTask, Sizes
from clip_adapter.training.cache_search import (
    Auto,
    Candidate,
    balanced,
    check_cache_options,
    grid,
    in_grid,
    scores_of,
    unit_keys,
    unsearched,
)
from clip_adapter.training.folds import Fold, folds_of
from clip_adapter.training.loop import Schedule, train
from clip_adapter.training.recipes import (
    CANDIDATES,
    MAX_SCORES,
    ONE_SHOT_RATIO,
    fast_schedule,
    shorter,
)
from clip_adapter.training.selection import choose
from clip_adapter.training.threads import suited_threads


@register
@dataclass
class CachedAdapter(Method):
    """The visual adapter is trained; its ratio and the cache's two numbers are chosen together.

    Attributes:
        visual_ratio: r, the share of the new image feature: 0 to 1, or "auto" (cross-validation on
            the shots, 0 included).
        cache_weight: a: 0 or more, or "auto", 0 included.
        cache_sharpness: b: above 0, or "auto".
        activation: "official" ends the bottleneck in a second ReLU, "paper" does not.
        reduction: D / H; the paper takes 4 (Table 5).
    """

    name: ClassVar[str] = "clip-adapter-cache"
    summary: ClassVar[str] = "a residual bottleneck on image features, and a cache of the shots"
    citation: ClassVar[str] = "Gao et al. 2024, arXiv 2110.04544"
    trains: ClassVar[str] = "a bottleneck on image features"

    visual_ratio: float | Auto = "auto"
    cache_weight: float | Auto = "auto"
    cache_sharpness: float | Auto = "auto"
    activation: Activation = "official"
    reduction: int = 4

    def __post_init__(self) -> None:
        check_cache_options(self.cache_weight, self.cache_sharpness)
        if not isinstance(self.visual_ratio, str) and not 0 <= self.visual_ratio <= 1:
            raise UsageError(f"visual_ratio = {self.visual_ratio}.", allowed="0 to 1, or auto")
        if self.reduction < 1:
            raise UsageError(f"reduction = {self.reduction}.", allowed="1 or more")

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        return 2 * sizes.dim * (sizes.dim // self.reduction)

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        weights, labels = task.require_text(self.name), task.train.labels
        keys, classes = unit_keys(task.train.features), len(task.class_names)
        hidden = task.train.dim // self.reduction
        if hidden < 1:
            raise UsageError(
                f"reduction = {self.reduction} leaves no hidden unit.",
                allowed=f"1 to {task.train.dim}, the size of a feature",
            )
        options = (self.cache_weight, self.cache_sharpness)
        auto = self.visual_ratio == "auto"
        ratios = list(CANDIDATES) if auto else [float(self.visual_ratio)]
        pairs = grid(*options, task.logit_scale, coarse=auto)
        folds = folds_of(task.train, task.seed)
        recipe = fast_schedule(task.mean_shots, len(task.train))
        base = self._held_out(task, weights, folds, ratios, shorter(recipe))
        cosines = [affinity(task.train.plain_view[f.held_out], keys[f.fit]) for f in folds]
        values = [balanced(labels[f.fit], classes, task.mean_shots) for f in folds]

        def scores(fold: int, candidate: Candidate) -> Tensor:
            return scores_of(nearness(cosines[fold], candidate["cache_sharpness"]), values[fold])

        mild = {
            "visual_ratio": ONE_SHOT_RATIO if auto else ratios[0],
            **unsearched(*options, task.mean_shots, task.logit_scale),
        }
        choice = choose(
            "visual_ratio, cache_weight, cache_sharpness",
            "auto",
            [{"visual_ratio": r, **p} for r in ratios for p in pairs],
            one_shot=mild,
            folds=lambda: folds,
            labels=labels,
            evaluate=in_grid(len(folds), lambda fold, c: base[c["visual_ratio"]][fold], scores),
        )
        chosen, adapter = choice.value, None
        if chosen["visual_ratio"] > 0:
            rows, ratio = [torch.arange(len(labels))], [chosen["visual_ratio"]]
            adapter = self._train(task, weights, rows, ratio, recipe).take(0)
        values = balanced(labels, classes, task.mean_shots)
        cache = Cache(keys, values, chosen["cache_weight"], chosen["cache_sharpness"])
        trained = 0 if adapter is None else sum(p.numel() for p in adapter.parameters())
        told = {k: v for k, v in dataclasses.asdict(recipe).items() if v is not None}
        classifier = Classifier(
            Head(weights, adapter, logit_scale=task.logit_scale, cache=cache),
            task.class_names,
            feature_norm=task.train.feature_norm,
            text_weights=weights,
            info={
                "hyperparameters": {
                    **chosen,
                    "activation": self.activation,
                    "reduction": self.reduction,
                    **told,
                },
                "selection": choice.record,
                "trained_parameters": trained,
            },
        )
        classifier.held_out = choice.held_out
        return classifier

    def _train(
        self,
        task: FewShotTask,
        weights: Tensor,
        rows: list[Tensor],
        ratios: list[float],
        recipe: Schedule,
    ) -> ResidualAdapter:
        """R adapters, one for each of ``rows`` and ``ratios``, trained without the cache."""
        dim, hidden = task.train.dim, task.train.dim // self.reduction
        generator = torch.Generator().manual_seed(task.seed)
        ratio = torch.tensor(ratios)
        adapter = ResidualAdapter.build(
            dim, hidden, self.activation, ratio, (len(rows),), generator
        )

        def logits(features: Tensor) -> Tensor:
            return cosine_logits(adapter(features), weights, task.logit_scale)

        per_picture = dim * (2 * hidden + len(weights))
        data = (task.train.features, task.train.labels)
        with suited_threads(len(rows) * min(recipe.batch_size, len(data[1])) * per_picture):
            train(adapter, logits, *data, rows, recipe, generator)
        return adapter

    def _held_out(
        self,
        task: FewShotTask,
        weights: Tensor,
        folds: list[Fold],
        ratios: list[float],
        recipe: Schedule,
    ) -> dict[float, list[Tensor]]:
        """For each ratio the held-out logits (m, C) of every fold, without the cache."""
        rows = [task.train.plain_view[f.held_out] for f in folds]
        zero_shot = [cosine_logits(x, weights, task.logit_scale) for x in rows]
        base = {r: list(zero_shot) for r in ratios}
        jobs = [(r, k) for r in ratios for k in range(len(folds)) if r > 0]
        per_run = min(recipe.batch_size, len(task.train)) * len(weights)
        limit = max(MAX_SCORES // per_run, 1)
        for start in range(0, len(jobs), limit):
            part = jobs[start : start + limit]
            fit = [folds[k].fit for _, k in part]
            adapters = self._train(task, weights, fit, [r for r, _ in part], recipe)
            with torch.no_grad():
                for run, (ratio, fold) in enumerate(part):
                    mapped = adapters.take(run)(rows[fold])
                    base[ratio][fold] = cosine_logits(mapped, weights, task.logit_scale)
        return base
