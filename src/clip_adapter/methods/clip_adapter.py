"""CLIP-Adapter: a bottleneck on the image feature, on the class weights or on both, blended in.

    f' = a A_v(f) + (1 - a) f          A_v(f) = ReLU(f W1) W2      (visual branch)
    W' = b A_t(W) + (1 - b) W          A_t(W) = ReLU(W W1) W2      (text branch)
    logits = logit_scale * normalize(f') @ normalize(W').T

Source: Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024
(arXiv 2110.04544), sections 3.2 and 3.3. Details that the paper leaves out (the second ReLU, SGD
2e-3 and its schedule) are taken from the released code and the one that it runs under.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import torch
from torch import Tensor, nn

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Method, Sizes, register
from clip_adapter.nn import RATIO_START, Activation, FixedRatio, ResidualAdapter, normalize, stacked
from clip_adapter.training import (
    Choice,
    Fold,
    Schedule,
    choose,
    fast_schedule,
    folds_of,
    for_large,
    hidden_units,
    is_large,
    official_schedule,
    passes,
    train_on,
    training_device,
)
from clip_adapter.training.recipes import CANDIDATES, ONE_SHOT_RATIO

# Few pictures of few classes are memorised by the full number of steps, so the ratio is tried at
# these shares of it: (share of the steps, ratio).
STRENGTHS = (
    (1 / 16, 0.2), (1 / 16, 0.4), (1 / 16, 0.8),
    (1 / 4, 0.1), (1 / 4, 0.2), (1 / 4, 0.4),
    (1.0, 0.2), (1.0, 0.6),
)  # fmt: skip
# All steps are for so many pictures; fewer take fewer, by the cube root, where nothing is chosen.
FULL_PICTURES = 1000
# Multiply-adds of a step above which one pass over several runs is no faster than one by one:
# 0.5 of the time at 5 million, 0.9 at 9, 1.0 to 1.4 at 20 (benchmarks/together.py).
TOGETHER = 15_000_000
# Of many shots near to CLIP: a short training, off which these ratios are read.
LARGE: dict[str, Any] = {"rate": 4.0, "epochs": 3}
READ = (0.0, 0.1, ONE_SHOT_RATIO)
# Where it takes nothing off the loss of zero-shot CLIP it failed, and where it takes more than this
# share the shots have more to teach; nor does it tell anything where a fold trains on few of them.
FAR, FOLD_AT_LEAST = 0.08, 0.5

RatioOption = float | Literal["auto", "learnable", "hypernetwork"]
Branch = Literal["visual", "text"]
Ratios = dict[Branch, RatioOption]


class Branches(nn.Module):
    """Both adapters of R runs beside text weights; an absent one leaves its branch as it is."""

    def __init__(
        self, visual: ResidualAdapter | None, text: ResidualAdapter | None, weights: Tensor
    ) -> None:
        super().__init__()
        self.visual, self.text = visual, text
        self.weights = nn.Buffer(weights, persistent=False)
        self._unit_weights = nn.Buffer(normalize(weights), persistent=False)

    def class_weights(self) -> Tensor:
        """(C, D), or (R, C, D) where the text branch is adapted; not normalised."""
        return self.weights if self.text is None else self.text(self.weights)

    def set_ratios(self, ratios: Mapping[Branch, float]) -> None:
        """Give the adapters fixed ratios, for R = 1."""
        for branch, ratio in ratios.items():
            adapter: ResidualAdapter | None = getattr(self, branch)
            if adapter is not None:
                adapter.ratio = FixedRatio(torch.full((1,), ratio, device=self.weights.device))

    def take(self, run: int) -> Self:
        """Run number ``run`` alone, for features (B, D) on the same device."""
        visual, text = (branch and branch.take(run) for branch in (self.visual, self.text))
        return type(self)(visual, text, self.weights).to(self.weights.device)

    def forward(self, features: Tensor) -> Tensor:
        """(R, B, D) -> cosines (R, B, C)."""
        mapped = features if self.visual is None else self.visual(features)
        unit = self._unit_weights if self.text is None else normalize(self.class_weights())
        return normalize(mapped) @ unit.transpose(-1, -2)


@register(
    name="clip-adapter",
    summary="a residual bottleneck on image features, class weights or both",
    citation="Gao et al. 2024, arXiv 2110.04544",
    trains="a bottleneck on image features, class weights or both",
)
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
            ratio that is "auto"; not in the short training of many shots near to CLIP, which has
            fixed ones (docs/decisions/0002-fast-recipe.md).
        epochs: epochs of "official", instead of its own.
    """

    symbols = {"alpha": "visual_ratio", "beta": "text_ratio"}  # noqa: RUF012

    branch: Literal["visual", "text", "both"] = "visual"
    visual_ratio: Annotated[RatioOption, Bounds(least=0, most=1)] = "auto"
    text_ratio: Annotated[RatioOption, Bounds(least=0, most=1)] = "auto"
    activation: Activation = "official"
    reduction: Annotated[int, Bounds(least=1)] = 4
    recipe: Literal["fast", "official"] = "fast"
    lr: Annotated[float | None, Bounds(above=0)] = None
    batch_size: Annotated[int | None, Bounds(least=1)] = None
    steps: Annotated[int | None, Bounds(least=1)] = None
    epochs: Annotated[int | None, Bounds(least=1)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
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
        count, hidden = 0, sizes.dim // self.reduction
        for ratio in self._ratios().values():
            shape = (sizes.dim, hidden, self.activation, RATIO_START if ratio == "auto" else ratio)
            with torch.device("meta"):  # counted, never filled
                count += _count(ResidualAdapter.build(*shape))
        return count

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        ratios, schedule, choices = self._ratios(), self._schedule(task), list[Choice]()
        auto: list[Branch] = [b for b, r in ratios.items() if r == "auto"]
        folds = folds_of(task.train, task.seed) if auto else []
        given = [v for v in (self.lr, self.batch_size, self.steps) if v is not None]
        free = not given and len(auto) == len(ratios) and self.recipe == "fast"
        least = FOLD_AT_LEAST * len(task.train)
        if folds and free and is_large(task.train) and len(folds[0].fit) >= least:
            near = self._fit_near(task, folds, auto, schedule)
            if near is not None:
                return near
        # One branch after the other; with the first, the number of steps is chosen too.
        for branch in auto:
            choices.append(self._choose(task, folds, branch, ratios, schedule, first=not choices))
            ratios[branch], schedule = _read(choices[-1].value, branch, schedule)
        runs = self._train(task, [ratios], [torch.arange(len(task.train))], schedule)
        return dataclasses.replace(
            self._fitted(task, ratios, runs.take(0), schedule),
            selection=[entry for choice in choices for entry in choice.record],
            held_out=choices[-1].held_out if choices else None,
        )

    def together_key(self) -> Hashable:  # noqa: D102
        ratios = self._ratios()
        # A ratio that is chosen takes a cross-validation of its own; one of 0 trains nothing.
        if "auto" in ratios.values() or not any(ratios.values()):
            return None
        fixed = {f"{b}_ratio": 0.0 for b, r in ratios.items() if not isinstance(r, str)}
        zero = [bool(r) for r in ratios.values()]
        return (*zero, *dataclasses.astuple(dataclasses.replace(self, **fixed)))

    @classmethod
    def fit_together(cls, methods: Sequence[Any], tasks: Sequence[FewShotTask]) -> list[Fitted]:  # noqa: D102
        one, first = methods[0], tasks[0]
        schedule = one._schedule(first)
        if one._work(first, schedule) > TOGETHER:
            return super().fit_together(methods, tasks)
        # One task may be that of several methods: its shots are there once.
        different, size = list({id(task): task for task in tasks}.values()), len(first.train)
        starts = {id(task): number * size for number, task in enumerate(different)}
        pool = FeatureSet(
            torch.cat([task.train.features for task in different], 1),
            torch.cat([task.train.labels for task in different]),
            first.class_names,
        )
        runs = one._train(
            FewShotTask(pool, first.require_text(cls.name), first.logit_scale),
            [m._ratios() for m in methods],
            [torch.arange(size) + starts[id(task)] for task in tasks],
            schedule,
            [task.seed for task in tasks],
        )
        return [
            m._fitted(task, m._ratios(), runs.take(run), m._schedule(task))
            for run, (m, task) in enumerate(zip(methods, tasks, strict=True))
        ]

    def _ratios(self) -> Ratios:
        """The option of each branch that is adapted."""
        ratios: Ratios = {"visual": self.visual_ratio, "text": self.text_ratio}
        return {b: r for b, r in ratios.items() if self.branch in (b, "both")}

    def _fitted(
        self,
        task: FewShotTask,
        ratios: Mapping[Branch, RatioOption],
        branches: Branches,
        schedule: Schedule,
    ) -> Fitted:
        return Fitted(
            Head(branches.class_weights(), branches.visual, logit_scale=task.logit_scale),
            {
                "branch": self.branch,
                **{f"{b}_ratio": r for b, r in ratios.items()},
                "activation": self.activation,
                "reduction": self.reduction,
                "recipe": self.recipe,
                **schedule.record,
            },
            trained_parameters=_count(branches),
        )

    def _schedule(self, task: FewShotTask) -> Schedule:
        official = official_schedule(task.mean_shots, len(task.class_names))
        fast = fast_schedule(task.mean_shots, len(task.train))
        base = official if self.recipe == "official" else fast
        options = {n: getattr(self, n) for n in ("lr", "batch_size", "steps", "epochs")}
        return dataclasses.replace(base, **{n: v for n, v in options.items() if v is not None})

    def _work(self, task: FewShotTask, schedule: Schedule) -> int:
        """Multiply-adds of one step of one run."""
        hidden = len(self._ratios()) * (task.train.dim // self.reduction)
        per_picture = task.train.dim * (2 * hidden + len(task.class_names))
        return min(schedule.batch_size, len(task.train)) * per_picture

    def _train(
        self,
        task: FewShotTask,
        ratios: Sequence[Mapping[Branch, RatioOption]],
        rows: list[Tensor],
        schedule: Schedule,
        seeds: Sequence[int] = (),
    ) -> Branches:
        """R runs, one for each of ``ratios`` and ``rows``; their words, if any, are the same.

        A branch whose ratios are all 0 would never change anything: it gets no adapter. With
        ``seeds``, R of them, each run starts and draws as it would alone; else all start alike.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds or [task.seed]]
        dim, hidden = task.train.dim, hidden_units(task.train.dim, self.reduction)
        runs = (len(rows) // len(generators),)  # for each generator
        adapters: dict[Branch, ResidualAdapter] = {}
        for branch, word in ratios[0].items():
            own = [run[branch] for run in ratios]
            if any(own):
                ratio = word if isinstance(word, str) else torch.tensor([float(r) for r in own])
                shape = (dim, hidden, self.activation, ratio, runs)
                adapters[branch] = stacked([ResidualAdapter.build(*shape, g) for g in generators])
        weights = task.require_text(self.name)
        branches = Branches(adapters.get("visual"), adapters.get("text"), weights)
        if adapters:
            random = generators if seeds else generators[0]
            work = len(rows) * self._work(task, schedule)
            branches.to(training_device(task, work))
            train_on(task, branches, rows, schedule, work=work, generator=random)
        return branches

    def _choose(
        self,
        task: FewShotTask,
        folds: Sequence[Fold],
        branch: Branch,
        ratios: Ratios,
        schedule: Schedule,
        *,
        first: bool,
    ) -> Choice:
        """The ratio of ``branch``, with the ``first`` the number of steps where it is not given."""
        # A branch still to be chosen stays as it is while this one is.
        known: Ratios = {b: r for b, r in ratios.items() if r != "auto" and b != branch}
        name, steps = f"{branch}_ratio", schedule.steps
        among, mild = list[Any](CANDIDATES), ONE_SHOT_RATIO
        if first and steps is not None and self.steps is None:
            # Without a ratio nothing is trained: one such candidate is enough.
            mild_share = min((len(task.train) / FULL_PICTURES) ** (1 / 3), 1.0)
            shares = [(1.0, 0.0), *STRENGTHS, (mild_share, ONE_SHOT_RATIO)]
            *among, mild = [{name: r, "steps": max(round(s * steps), 1)} for s, r in shares]
            name = f"{name}, steps"

        def evaluate(jobs: list[tuple[Fold, Any]]) -> Iterable[Tensor]:
            # Ratio 0 needs no adapter, so those runs are kept apart from the ones that train one;
            # runs of one pass take equally many steps.
            alike: dict[tuple[bool, Schedule], list[tuple[int, Fold, float]]] = {}
            for number, (fold, value) in enumerate(jobs):
                ratio, own = _read(value, branch, schedule)
                alike.setdefault((ratio == 0, own), []).append((number, fold, ratio))
            logits: dict[int, Tensor] = {}
            parts = [(own, p) for (_, own), runs in alike.items() for p in passes(runs, task, own)]
            for own, part in parts:
                each: list[Ratios] = [{**known, branch: ratio} for _, _, ratio in part]
                branches = self._train(task, each, [fold.fit for _, fold, _ in part], own)
                for run, (number, fold, _) in enumerate(part):
                    held_out = task.train.plain_view[fold.held_out].to(branches.weights.device)
                    with torch.no_grad():
                        logits[number] = task.logit_scale * branches.take(run)(held_out)
            return [logits[number] for number in range(len(jobs))]

        return choose(name, "auto", among, one_shot=mild, task=task, evaluate=evaluate, folds=folds)

    def _fit_near(
        self, task: FewShotTask, folds: Sequence[Fold], auto: list[Branch], schedule: Schedule
    ) -> Fitted | None:
        """Many shots near to CLIP, in a short training; None where it fails or they teach more.

        The adapters of a fold are trained at one ratio and scored at several. Those of the first
        fold then see all shots once more, in the place of a training from the start.
        """
        schedule = for_large(schedule, task.train, **LARGE)
        names, mild = [f"{b}_ratio" for b in auto], dict.fromkeys(auto, ONE_SHOT_RATIO)

        def lasting(epochs: int, count: int) -> Schedule:
            steps = -(-epochs * count // schedule.batch_size)
            return dataclasses.replace(schedule, steps=steps)

        own = [lasting(LARGE["epochs"], len(fold.fit)) for fold in folds]
        trained = {
            f: self._train(task, [mild], [f.fit], o) for f, o in zip(folds, own, strict=True)
        }

        def evaluate(jobs: list[tuple[Fold, Any]]) -> Iterable[Tensor]:
            for fold, values in jobs:
                branches = trained[fold]
                branches.set_ratios(dict(zip(auto, values.values(), strict=True)))
                held_out = task.train.plain_view[fold.held_out].to(branches.weights.device)
                with torch.no_grad():
                    yield task.logit_scale * branches.take(0)(held_out)

        pairs = itertools.product(READ, repeat=len(auto))
        among = [dict(zip(names, pair, strict=True)) for pair in pairs]
        one_shot, option = dict.fromkeys(names, ONE_SHOT_RATIO), ", ".join(names)
        choice = choose(
            option, "auto", among, one_shot=one_shot, task=task, evaluate=evaluate, folds=folds
        )
        losses = choice.selection.loss  # the first one is that of zero-shot CLIP
        taken = losses[among.index(choice.value)] if losses else 0.0
        if not losses or min(losses) < (1 - FAR) * losses[0] or taken >= losses[0]:
            return None
        branches, rows = trained[folds[0]], torch.arange(len(task.train))
        branches.set_ratios(mild)
        more = lasting(1, len(rows))
        train_on(task, branches, [rows], more, work=self._work(task, more))
        chosen: dict[Branch, float] = dict(zip(auto, choice.value.values(), strict=True))
        branches.set_ratios(chosen)
        adapted = branches.take(0)
        for branch in (b for b, ratio in chosen.items() if not ratio):
            setattr(adapted, branch, None)  # it changes nothing
        steps = [int(s.steps or 0) for s in (own[0], more)]
        whole = self._fitted(task, chosen, adapted, dataclasses.replace(more, steps=sum(steps)))
        # Two rounds, each with a warm-up and a cosine of its own.
        rounds = {"steps": steps, "pictures": [len(folds[0].fit), len(rows)]}
        told = {"short_training": {"trained_at_ratio": ONE_SHOT_RATIO, **rounds}}
        return dataclasses.replace(
            whole,
            hyperparameters={**whole.hyperparameters, **told},
            selection=choice.record,
            held_out=choice.held_out,
        )


def _count(module: nn.Module) -> int:
    """How many numbers it trains."""
    return sum(p.numel() for p in module.parameters())


def _read(value: Any, branch: Branch, schedule: Schedule) -> tuple[float, Schedule]:
    """(ratio, schedule) of a candidate."""
    if not isinstance(value, dict):
        return float(value), schedule
    return value[f"{branch}_ratio"], dataclasses.replace(schedule, steps=value["steps"])
