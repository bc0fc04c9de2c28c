"""``auto``: fits several feature methods, compares them on held-out shots, and takes or blends.

    logits = sum_m  share_m * t_m * logits_m(f)         sum_m share_m = 1

Every candidate m is fitted once, and brings the logits that its own cross-validation gave to the
held-out shots (all candidates hold out the same ones); one without a cross-validation of its own is
fitted again on every fold. The former are those of the winner of a search on these shots, which
flatters them a little. A temperature t_m > 0 makes the losses comparable. Members are then added
one at a time, with replacement, as long as the loss on the held-out shots falls: Caruana et al.,
"Ensemble selection from libraries of models", ICML 2004; the place of validation data is taken by
the shots. The blend is safe: where text weights exist, zero-shot is among the candidates, and a
blend that classifies significantly fewer held-out pictures than zero-shot is not taken. A candidate
that cannot be fitted is left out, and this is told. Candidates are named by their own papers; the
first is CLIP-Adapter (arXiv 2110.04544).

One shot of every class leaves nothing to hold out. Then a fixed few are blended in equal shares,
t_m = S / s_m: s_m is the spread of a member's logits over the classes, on the shots, and S the mean
of the s_m.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.errors import ClipAdapterError, UsageError
from clip_adapter.heads import Head, Mixture
from clip_adapter.methods.base import (
    FewShotTask,
    Method,
    Progress,
    get_method,
    make_method,
    register,
)
from clip_adapter.training.selection import (
    Curve,
    Fold,
    HeldOut,
    folds_of,
    score,
    significantly_worse,
)

# Zero-shot leads, so that a tie falls back on it. The lists, here and for one shot, were compared
# on the validation sets of Caltech101, Flowers102 and UCF101 and on shots of ImageNet that were set
# aside; linear-probe is no member beyond one shot, since its search takes minutes on many classes.
WITH_TEXT = ("zero-shot", "clip-adapter", "gda", "lp++", "clap", "taskres", "tip-adapter-f")
WITHOUT_TEXT = ("gda", "r-2p")
ONE_SHOT_WITH_TEXT = ("clip-adapter", "gda", "lp++", "clap")
ONE_SHOT_WITHOUT_TEXT = ("linear-probe", "r-2p")
# Powers of the square root of two; the ends are far from what any method needed.
TEMPERATURES = tuple(2 ** (i / 2) for i in range(-10, 11))
ROUNDS = 6


@register
@dataclass
class Auto(Method):
    """The best of the feature methods, or a blend of them, chosen on the shots alone.

    Attributes:
        among: names of the candidates with commas between, or "auto": methods that differ in kind,
            those that need no text where the task has none.
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "chooses or blends among the feature methods, on held-out shots"
    citation: ClassVar[str] = (
        "Caruana et al. 2004 (the blending); Gao et al. 2024, arXiv 2110.04544"
    )
    trains: ClassVar[str] = "what the chosen methods train"
    needs_text: ClassVar[bool] = False

    among: str = "auto"

    def __post_init__(self) -> None:
        if self.among != "auto":
            self._named()

    def _named(self) -> list[str]:
        names = [name.strip() for name in self.among.split(",") if name.strip()]
        if not names:
            raise UsageError("among names no method.", allowed="auto, or names with commas")
        for name in names:
            cls = get_method(name)
            if cls.reads != "features" or cls.runs_text_tower or name == self.name:
                raise UsageError(
                    f"among = {self.among!r}: {name} cannot be a candidate.",
                    allowed="methods that read features alone",
                )
        return names

    def fit(self, task: FewShotTask, progress: Progress | None = None) -> Classifier:  # noqa: D102
        folds = folds_of(task.train, task.seed)
        blind = task.classifier_weights is None
        if self.among != "auto":
            names = self._named()
        elif folds:
            names = list(WITHOUT_TEXT if blind else WITH_TEXT)
        else:
            names = list(ONE_SHOT_WITHOUT_TEXT if blind else ONE_SHOT_WITH_TEXT)
        fitted, held, left_out = self._candidates(names, task, folds, progress)
        curve = Curve("members", [])
        if folds:
            weights, last = _choose(curve, held, task.train.labels)
        else:
            weights, last = _equal_shares(fitted, task), None
            curve.chosen = ", ".join(weights)
            curve.rule = "one picture per class leaves none to hold out: a fixed blend"
        classifier = self._blend(task, fitted, weights, curve)
        classifier.info["left_out"] = left_out
        classifier.held_out = last
        return classifier

    def _candidates(
        self,
        names: Sequence[str],
        task: FewShotTask,
        folds: Sequence[Fold],
        progress: Progress | None,
    ) -> tuple[dict[str, Classifier], dict[str, HeldOut], dict[str, str]]:
        """Every candidate fitted, its held-out logits, and why others are left out."""
        fitted: dict[str, Classifier] = {}
        held: dict[str, HeldOut] = {}
        left_out: dict[str, str] = {}
        for number, name in enumerate(names):
            try:
                classifier = make_method(name).fit(task)
                if folds:
                    held[name] = _held_out(name, classifier, task, folds)
                fitted[name] = classifier
            except ClipAdapterError as error:
                if self.among != "auto" or (number + 1 == len(names) and not fitted):
                    raise
                left_out[name] = error.found
                task.say(f"auto goes on without {name}: {error.found}")
            if progress is not None:
                progress(number + 1, len(names))
        return fitted, held, left_out

    def _blend(
        self,
        task: FewShotTask,
        fitted: Mapping[str, Classifier],
        weights: Mapping[str, float],
        curve: Curve,
    ) -> Classifier:
        parts = [(h, w * s) for n, w in weights.items() for h, s in _parts(fitted[n].head)]
        heads, shares = [h for h, _ in parts], [s for _, s in parts]
        members = {
            name: {"weight": weight, **fitted[name].info["hyperparameters"]}
            for name, weight in weights.items()
        }
        return Classifier(
            Mixture(heads, shares, task.logit_scale),
            task.class_names,
            feature_norm=task.train.feature_norm,
            zero_shot_weights=task.classifier_weights,
            info={
                "hyperparameters": {"members": members},
                "selection": [dataclasses.asdict(curve)],
                "candidates": {n: c.info.get("selection", []) for n, c in fitted.items()},
                "trained_parameters": sum(fitted[n].parameters for n in weights),
            },
        )


def _parts(head: Head | Mixture) -> list[tuple[Head, float]]:
    """The heads of ``head`` with their shares."""
    if isinstance(head, Mixture):
        return list(zip(head.members, head.shares, strict=True))
    return [(head, 1.0)]


def _held_out(
    name: str, classifier: Classifier, task: FewShotTask, folds: Sequence[Fold]
) -> HeldOut:
    """The candidate's logits of the held-out shots: its own, or by fitting it on every fold."""
    rows = torch.cat([f.held_out for f in folds])
    own = classifier.held_out
    if own is not None and torch.equal(own.rows, rows):
        return own
    parts = []
    for fold in folds:
        part = dataclasses.replace(task, train=task.train.subset(fold.fit))
        parts.append(make_method(name).fit(part).logits(task.train.subset(fold.held_out)))
    return HeldOut(torch.cat(parts), rows)


def _choose(
    curve: Curve, held: Mapping[str, HeldOut], labels: Tensor
) -> tuple[dict[str, float], HeldOut]:
    """The weight of every member (share times temperature), and the blend's held-out logits."""
    names = list(held)
    rows = held[names[0]].rows
    target = labels[rows]
    warmth = {n: _temperature(h.logits, target) for n, h in held.items()}
    logits = {n: warmth[n] * h.logits for n, h in held.items()}
    scores = {n: score(x, target) for n, x in logits.items()}
    safe = scores["zero-shot"][0] if "zero-shot" in scores else None
    curve.candidates = names
    curve.accuracy = [100 * scores[n][0].double().mean().item() for n in names]
    curve.loss = [scores[n][1].mean().item() for n in names]
    curve.pictures = len(rows)

    def allowed(hits: Tensor) -> bool:
        return safe is None or not significantly_worse(hits, safe)

    able = [n for n in names if allowed(scores[n][0])]
    first = min(able, key=lambda n: scores[n][1].mean().item())
    counts = {first: 1}
    total, loss = logits[first], scores[first][1].mean().item()
    for size in range(2, ROUNDS + 1):
        trials = {n: score((total + logits[n]) / size, target) for n in able}
        best = min(trials, key=lambda n: trials[n][1].mean().item())
        hits, losses = trials[best]
        if losses.mean().item() >= loss or not allowed(hits):
            break
        counts[best] = counts.get(best, 0) + 1
        total, loss = total + logits[best], losses.mean().item()
    rounds = sum(counts.values())
    curve.chosen = ", ".join(f"{n} x {c}" if c > 1 else n for n, c in counts.items())
    curve.rule = (
        f"lowest loss on {curve.pictures} held-out pictures ({loss:.3f} nats); "
        f"{first} alone has the lowest of the single methods ({scores[first][1].mean():.3f})"
    )
    weights = {n: warmth[n] * c / rounds for n, c in counts.items()}
    return weights, HeldOut(total / rounds, rows)


def _temperature(logits: Tensor, target: Tensor) -> float:
    """The factor at which ``logits`` (n, C) have the lowest loss."""
    losses = [F.cross_entropy(t * logits, target).item() for t in TEMPERATURES]
    return TEMPERATURES[min(range(len(losses)), key=losses.__getitem__)]


def _equal_shares(fitted: Mapping[str, Classifier], task: FewShotTask) -> dict[str, float]:
    """Weights by which the logits of all members spread alike over the classes with pictures."""
    present = task.train.labels.unique()
    if len(present) < 2:  # one column has no spread
        present = torch.arange(len(task.class_names))
    spread = {n: c.logits(task.train)[:, present].std(1).mean().item() for n, c in fitted.items()}
    mean = sum(spread.values()) / len(spread)
    return {n: mean / max(s, 1e-6) / len(spread) for n, s in spread.items()}
