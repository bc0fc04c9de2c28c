"""CLIP-Adapter: a bottleneck on the image feature, on the class weights or on both, blended in.

    f' = a A_v(f) + (1 - a) f          A_v(f) = ReLU(f W1) W2      (visual branch)
    W' = b A_t(W) + (1 - b) W          A_t(W) = ReLU(W W1) W2      (text branch)
    logits = logit_scale * normalize(f') @ normalize(W').T

Source: Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024
(arXiv 2110.04544), sections 3.2 and 3.3. Details that the paper leaves out (the second ReLU, SGD
2e-3 and its schedule) are taken from the released code and the one that it runs under.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.heads import Head
from clip_adapter.methods.base import Method, register
from clip_adapter.nn import Activation, ResidualAdapter, normalize
from clip_adapter.nn.residual import RATIO_START, stacked
from clip_adapter.task import FewShotTask, Sizes
from clip_adapter.training.folds import Fold, folds_of
from clip_adapter.training.loop import Schedule, official_schedule, train
from clip_adapter.training.recipes import (
    CANDIDATES,
    MAX_SCORES,
    ONE_SHOT_RATIO,
    STRENGTHS,
    fast_schedule,
    mild_share,
)
from clip_adapter.training.selection import Choice, Evaluate, choose
from clip_adapter.training.threads import suited_threads

# Multiply-adds of a step above which one pass over several runs is no faster than one by one:
# 0.5 of the time at 5 million, 0.9 at 9, 1.0 to 1.4 at 20 (benchmarks/together.py).
TOGETHER = 15_000_000

RatioOption = float | Literal["auto", "learnable", "hypernetwork"]
Branch = Literal["visual", "text"]


class Branches(nn.Module):
    """Both adapters of R runs; an absent one leaves its branch as it is."""

    def __init__(
        self, visual: ResidualAdapter | None, text: ResidualAdapter | None, weights: Tensor
    ) -> None:
        super().__init__()
        self.visual, self.text = visual, text
        self._weights = weights
        self._unit_weights = normalize(weights)

    def class_weights(self) -> Tensor:
        """(C, D), or (R, C, D) where the text branch is adapted; not normalised."""
        return self._weights if self.text is None else self.text(self._weights)

    def take(self, run: int) -> Branches:
        """Run number ``run`` alone, for features (B, D)."""
        visual = None if self.visual is None else self.visual.take(run)
        return Branches(visual, None if self.text is None else self.text.take(run), self._weights)

    def forward(self, features: Tensor) -> Tensor:
        """(R, B, D) -> cosines (R, B, C)."""
        mapped = features if self.visual is None else self.visual(features)
        unit = self._unit_weights if self.text is None else normalize(self.class_weights())
        return normalize(mapped) @ unit.transpose(-1, -2)


@register
@dataclass
class CLIPAdapter(Method):
    """The paper's method, whole.

    Attributes:
        branch: where the adapter sits.
        visual_ratio: a, the share of the new image feature: 0 to 1, "auto" (cross-validation on
            the shots, 0 included), "learnable", or "hypernetwork" (predicted for each image).
        text_ratio: b, the same for the class weights.
        activation: "official" ends the bottleneck in a second ReLU, "paper" does not.
        reduction: D / H; the paper takes 4 (Table 5).
        recipe: "fast", or "official" (SGD, CoOp's epochs).
        lr: learning rate, instead of the recipe's.
        batch_size: pictures per step, instead of the recipe's.
        steps: steps of "fast", instead of its own, which are chosen together with the first
            ratio that is "auto".
        epochs: epochs of "official", instead of its own.
    """

    name: ClassVar[str] = "clip-adapter"
    summary: ClassVar[str] = "a residual bottleneck on image features, class weights or both"
    citation: ClassVar[str] = "Gao et al. 2024, arXiv 2110.04544"
    trains: ClassVar[str] = "a bottleneck on image features, class weights or both"

    branch: Literal["visual", "text", "both"] = "visual"
    visual_ratio: RatioOption = "auto"
    text_ratio: RatioOption = "auto"
    activation: Activation = "official"
    reduction: int = 4
    recipe: Literal["fast", "official"] = "fast"
    lr: float | None = None
    batch_size: int | None = None
    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        for name in ("visual_ratio", "text_ratio"):
            value = getattr(self, name)
            if not isinstance(value, str) and not 0 <= value <= 1:
                raise UsageError(
                    f"{name} = {value}.", allowed="0 to 1, auto, learnable, hypernetwork"
                )
        for name in ("reduction", "lr", "batch_size", "steps", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} = {value}.", allowed="a number above 0")
        for unused, branch in (("text_ratio", "visual"), ("visual_ratio", "text")):
            if self.branch == branch and getattr(self, unused) != "auto":
                raise UsageError(
                    f"{unused} says nothing with branch={branch}.", allowed="branch=both for both"
                )
        other = "epochs" if self.recipe == "fast" else "steps"
        if getattr(self, other) is not None:
            raise UsageError(
                f"The {self.recipe} recipe does not take {other}.",
                allowed="steps with recipe=fast; epochs with recipe=official",
            )

    def parameters(self, sizes: Sizes) -> int:  # noqa: D102
        hidden, count = sizes.dim // self.reduction, 0
        for ratio in self._ratios().values():
            learnt = ratio if ratio in ("learnable", "hypernetwork") else RATIO_START
            with torch.device("meta"):  # counted, never filled
                adapter = ResidualAdapter.build(sizes.dim, hidden, self.activation, learnt)
            count += sum(p.numel() for p in adapter.parameters())
        return count

    def fit(self, task: FewShotTask) -> Classifier:  # noqa: D102
        weights, ratios = task.require_text(self.name), self._ratios()
        choices, recipe = self._choose(task, weights, ratios)
        rows = [torch.arange(len(task.train))]
        run: dict[Branch, Any] = {
            b: r if isinstance(r, str) else torch.tensor([float(r)]) for b, r in ratios.items()
        }
        branches = self._train(task, weights, run, rows, recipe).take(0)
        classifier = self._classifier(task, weights, ratios, branches, recipe)
        classifier.info["selection"] = [entry for c in choices for entry in c.record]
        classifier.held_out = choices[-1].held_out if choices else None
        return classifier

    def together_key(self) -> Hashable:  # noqa: D102
        ratios = self._ratios()
        # A ratio that is chosen takes a cross-validation of its own; one of 0 trains nothing.
        if "auto" in ratios.values() or not any(ratios.values()):
            return None
        fixed = {f"{b}_ratio": 0.0 for b, r in ratios.items() if not isinstance(r, str)}
        zero = tuple(bool(r) for r in ratios.values())
        return (zero, *dataclasses.astuple(dataclasses.replace(self, **fixed)))

    @classmethod
    def fit_together(  # noqa: D102
        cls,
        methods: Sequence[Any],
        tasks: Sequence[FewShotTask],
    ) -> list[Classifier]:
        one, own = methods[0], [m._ratios() for m in methods]
        weights = tasks[0].require_text(cls.name)
        if one._work(tasks[0], one._recipe(tasks[0])) > TOGETHER:
            return super().fit_together(methods, tasks)
        different = {id(task): task for task in tasks}
        starts, start = {}, 0
        for key, task in different.items():
            starts[key], start = start, start + len(task.train)
        rows = [torch.arange(len(t.train)) + starts[id(t)] for t in tasks]
        run: dict[Branch, Any] = {
            b: r if isinstance(r, str) else torch.tensor([float(other[b]) for other in own])
            for b, r in own[0].items()
        }
        pool = FewShotTask(
            FeatureSet(
                torch.cat([t.train.features for t in different.values()], 1),
                torch.cat([t.train.labels for t in different.values()]),
                tasks[0].class_names,
            ),
            weights,
            tasks[0].logit_scale,
        )
        seeds = [task.seed for task in tasks]
        branches = one._train(pool, weights, run, rows, one._recipe(tasks[0]), seeds)
        return [
            m._classifier(task, weights, ratios, branches.take(r), m._recipe(task))
            for r, (m, task, ratios) in enumerate(zip(methods, tasks, own, strict=True))
        ]

    def _ratios(self) -> dict[Branch, RatioOption]:
        ratios: dict[Branch, RatioOption] = {}
        if self.branch in ("visual", "both"):
            ratios["visual"] = self.visual_ratio
        if self.branch in ("text", "both"):
            ratios["text"] = self.text_ratio
        return ratios

    def _classifier(
        self,
        task: FewShotTask,
        weights: Tensor,
        ratios: Mapping[Branch, RatioOption],
        branches: Branches,
        recipe: Schedule,
    ) -> Classifier:
        with torch.no_grad():
            adapted = branches.class_weights()
        told = dataclasses.asdict(recipe)
        return Classifier(
            Head(adapted, branches.visual, logit_scale=task.logit_scale),
            task.class_names,
            feature_norm=task.train.feature_norm,
            text_weights=weights,
            info={
                "hyperparameters": {
                    "branch": self.branch,
                    **{f"{b}_ratio": r for b, r in ratios.items()},
                    "activation": self.activation,
                    "reduction": self.reduction,
                    "recipe": self.recipe,
                    **{k: v for k, v in told.items() if v is not None},
                },
                "selection": [],
                "trained_parameters": sum(p.numel() for p in branches.parameters()),
            },
        )

    def _recipe(self, task: FewShotTask) -> Schedule:
        if self.recipe == "official":
            base = official_schedule(task.mean_shots, len(task.class_names))
        else:
            base = fast_schedule(task.mean_shots, len(task.train))
        names = ("lr", "batch_size", "steps", "epochs")
        own = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        return dataclasses.replace(base, **own)

    def _work(self, task: FewShotTask, recipe: Schedule) -> int:
        """Multiply-adds of one step of one run."""
        branches = 2 if self.branch == "both" else 1
        hidden = task.train.dim // self.reduction
        per_picture = task.train.dim * (2 * hidden * branches + len(task.class_names))
        return min(recipe.batch_size, len(task.train)) * per_picture

    def _train(
        self,
        task: FewShotTask,
        weights: Tensor,
        ratios: dict[Branch, Any],
        rows: list[Tensor],
        recipe: Schedule,
        seeds: Sequence[int] = (),
    ) -> Branches:
        """R runs, one for each tensor of ``rows``; a ratio is a word or a tensor (R,).

        A branch whose ratios are all 0 would never change anything: it gets no adapter. With
        ``seeds``, R of them, each run starts and draws as it would alone; else all start alike.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds or [task.seed]]
        dim = task.train.dim
        hidden = dim // self.reduction
        if hidden < 1:
            raise UsageError(
                f"reduction = {self.reduction} leaves no hidden unit.",
                allowed=f"1 to {dim}, the size of a feature",
            )
        runs = len(rows) // len(generators)  # for each generator
        made: dict[Branch, ResidualAdapter] = {}
        for branch, ratio in ratios.items():
            if isinstance(ratio, str) or bool(ratio.any()):
                shape = (dim, hidden, self.activation, ratio)
                made[branch] = stacked(
                    [ResidualAdapter.build(*shape, (runs,), g) for g in generators]
                )
        branches = Branches(made.get("visual"), made.get("text"), weights)

        def logits(features: Tensor) -> Tensor:
            return task.logit_scale * branches(features)

        if made:
            random = generators if seeds else generators[0]
            data = (task.train.features, task.train.labels)
            with suited_threads(len(rows) * self._work(task, recipe)):
                train(branches, logits, *data, rows, recipe, random)
        return branches

    def _choose(
        self,
        task: FewShotTask,
        weights: Tensor,
        ratios: dict[Branch, RatioOption],
    ) -> tuple[list[Choice], Schedule]:
        """Replaces every "auto" in ``ratios`` by a number, one branch after the other.

        With the first of them, the number of steps is chosen, where it is not given.
        """
        recipe, choices = self._recipe(task), []
        folds: list[Fold] = []
        auto: list[Branch] = [b for b, r in ratios.items() if r == "auto"]
        for branch in auto:
            folds = folds or folds_of(task.train, task.seed)
            # A branch still to be chosen stays as it is while this one is.
            known: dict[Branch, RatioOption] = {
                b: r for b, r in ratios.items() if r != "auto" and b != branch
            }
            pictures = 0 if choices else len(task.train)
            name, among, mild = self._candidates(branch, recipe, pictures)
            choice = choose(
                name,
                "auto",
                among,
                one_shot=mild,
                folds=lambda found=folds: found,
                labels=task.train.labels,
                evaluate=self._evaluator(task, weights, branch, known, recipe),
            )
            choices.append(choice)
            ratios[branch], recipe = self._read(choice.value, branch, recipe)
        return choices, recipe

    def _candidates(
        self, branch: Branch, recipe: Schedule, pictures: int
    ) -> tuple[str, list[Any], Any]:
        """(what is chosen, its candidates, what is taken in doubt); no steps for 0 pictures."""
        name = f"{branch}_ratio"
        if not pictures or recipe.steps is None or self.steps is not None:
            return name, list(CANDIDATES), ONE_SHOT_RATIO

        def pair(share: float, ratio: float) -> dict[str, float]:
            return {name: ratio, "steps": max(round(share * (recipe.steps or 0)), 1)}

        # Without a ratio nothing is trained: one such candidate is enough.
        some = [pair(1.0, 0.0), *(pair(share, ratio) for share, ratio in STRENGTHS)]
        return f"{name}, steps", some, pair(mild_share(pictures), ONE_SHOT_RATIO)

    def _read(self, value: Any, branch: Branch, recipe: Schedule) -> tuple[float, Schedule]:
        """(ratio, recipe) of a candidate."""
        if not isinstance(value, dict):
            return float(value), recipe
        return value[f"{branch}_ratio"], dataclasses.replace(recipe, steps=int(value["steps"]))

    def _evaluator(
        self,
        task: FewShotTask,
        weights: Tensor,
        branch: Branch,
        known: dict[Branch, RatioOption],
        recipe: Schedule,
    ) -> Evaluate:
        """Trains every (fold, candidate) in batched passes and scores its held-out rows."""
        per_run = min(recipe.batch_size, len(task.train)) * len(task.class_names)
        limit = max(MAX_SCORES // per_run, 1)

        def batch(jobs: list[tuple[Fold, float]], recipe: Schedule) -> list[Tensor]:
            run: dict[Branch, Any] = {
                b: r if isinstance(r, str) else torch.full((len(jobs),), float(r))
                for b, r in known.items()
            }
            run[branch] = torch.tensor([r for _, r in jobs])
            rows = [f.fit for f, _ in jobs]
            branches = self._train(task, weights, run, rows, recipe)
            with torch.no_grad():
                return [
                    task.logit_scale * branches.take(r)(task.train.plain_view[fold.held_out])
                    for r, (fold, _) in enumerate(jobs)
                ]

        def evaluate(jobs: list[tuple[Fold, Any]]) -> list[Tensor]:
            # Ratio 0 needs no adapter, so those runs are kept apart from the ones that train one;
            # runs of one pass take equally many steps.
            read = [(fold, *self._read(value, branch, recipe)) for fold, value in jobs]
            results: dict[int, Tensor] = {}
            for kind in dict.fromkeys((ratio == 0, own) for _, ratio, own in read):
                chosen = [i for i, (_, r, own) in enumerate(read) if (r == 0, own) == kind]
                for start in range(0, len(chosen), limit):
                    part = chosen[start : start + limit]
                    found = batch([read[i][:2] for i in part], kind[1])
                    results.update(zip(part, found, strict=True))
            return [results[i] for i in range(len(jobs))]

        return evaluate
