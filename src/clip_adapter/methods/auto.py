"""``auto``: fits several feature methods and blends them, as far as held-out shots speak for it.

    logits = sum_m  share_m * t_m * logits_m(f)         sum_m share_m = 1

Every candidate m is fitted once, and brings the logits of the held-out shots (all candidates hold
out the same ones): those of its own selection, which flatters the winner of a search a little, or
those of a fit on every fold. t_m = S / s_m makes the candidates equally loud: s_m is the spread of
a member's logits over the classes, and S the mean of the s_m.

There is a fixed mild blend of methods that keep near to CLIP. It is what one picture per class
gets. Where shots can be held out it is where the search starts: members are added one at a time,
with replacement, as long as the held-out loss falls beyond doubt (Caruana et al., "Ensemble
selection from libraries of models", ICML 2004; the place of validation data is taken by the shots,
that of a lower loss by one that is lower by over 1.5 standard errors). Classes count alike, and
what is meant by loss and doubt is said in ``training/selection.py``. A candidate that cannot be
fitted is left out, and this is told. Candidates are named by their own papers; the first is
CLIP-Adapter (arXiv 2110.04544).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clip_adapter.errors import CancelledError, ClipAdapterError, UsageError
from clip_adapter.methods.base import (
    FewShotTask,
    Fitted,
    HeldOutLogits,
    Method,
    Mixture,
    get_method,
    make_method,
    register,
)
from clip_adapter.reporting import listening, log, track
from clip_adapter.training import (
    NOTHING_HELD_OUT,
    Fold,
    Selection,
    cautious,
    folds_of,
    gathered,
    mean,
    score,
)

# The shares of the mild blend; candidates that it leaves out have 0. It and the list were compared
# on the tuning part of the zoo (benchmarks/zoo).
WITH_TEXT = {
    "zero-shot": 0.0,
    "wise-ft": 0.45,
    "linear-adapter": 0.2,
    "gda": 0.25,
    "clap": 0.1,
}
WITHOUT_TEXT = {"gda": 0.65, "r-2p": 0.35}
# A member is added as so much of what the mild blend weighs.
PART, ROUNDS = 0.5, 12


@register(
    name="auto",
    summary="blends the feature methods, as far as held-out shots speak for it",
    citation="Caruana et al. 2004 (the blending); Gao et al. 2024, arXiv 2110.04544",
    trains="what the chosen methods train",
    needs_text=False,
)
class Auto(Method):
    """The best of the feature methods, or a blend of them, chosen on the shots alone.

    Attributes:
        among: names of the candidates with commas between, or "auto": methods that differ in kind,
            those that need no text where the task has none.
    """

    among: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._mild():
            raise UsageError("among names no method.", allowed="auto, or names with commas")
        for name in self._mild():
            cls = get_method(name)
            if cls.reads != "features" or cls.runs_text_tower or name == self.name:
                raise UsageError(
                    f"among = {self.among!r}: {name} cannot be a candidate.",
                    allowed="methods that read features alone",
                )

    def _mild(self, *, text: bool = True) -> dict[str, float]:
        """The candidates with their shares of the mild blend: alike, where they were named."""
        if self.among == "auto":
            return WITH_TEXT if text else WITHOUT_TEXT
        return {name.strip(): 1.0 for name in self.among.split(",") if name.strip()}

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        text = task.text_weights is not None
        if not text:
            task.check_two_classes(self.name)
        folds = folds_of(task.train, task.seed, text=text)
        mild = self._mild(text=text)
        names = [n for n, share in mild.items() if folds or share]
        fitted, left_out = self._candidates(names, task, folds)
        some = {n: mild[n] for n in fitted if mild[n] > 0} or dict.fromkeys(fitted, 1.0)
        shares = {n: share / sum(some.values()) for n, share in some.items()}
        loudness = _loudness(fitted, task)
        rule = f"{NOTHING_HELD_OUT}: a fixed mild blend" + " that keeps near to CLIP" * text
        selection, held_out = Selection("members", list(fitted), rule=rule), None
        if folds:
            scores = {n: loudness[n] * f.held_out.logits for n, f in fitted.items() if f.held_out}
            shares, selection, held_out = _search(scores, shares, task.train.labels, folds)
        weights = {n: s * loudness[n] for n, s in shares.items()}
        members = {
            n: {"weight": weights[n], **fitted[n].hyperparameters, "share": round(share, 4)}
            for n, share in shares.items()
        }
        chosen = ", ".join(f"{100 * s:.0f} % {n}" for n, s in shares.items())
        return Fitted(
            Mixture([fitted[n].head for n in weights], [*weights.values()], task.logit_scale),
            {"members": members},
            trained_parameters=sum(fitted[n].trained_parameters for n in shares),
            selection=[dataclasses.asdict(selection) | {"chosen": chosen}],
            held_out=held_out,
            details={
                "candidates": {n: list(f.selection) for n, f in fitted.items()},
                "left_out": left_out,
            },
        )

    def _candidates(
        self, names: Sequence[str], task: FewShotTask, folds: Sequence[Fold]
    ) -> tuple[dict[str, Fitted], dict[str, str]]:
        """Every candidate with its logits of what ``folds`` hold out; why others are left out.

        The logits are those of its own selection, or of a fit on every fold.
        """
        fitted, left_out = dict[str, Fitted](), dict[str, str]()
        for name in track(names, "Training", unit="methods"):
            method = make_method(name)
            try:
                with listening(progress=False):
                    result = method.fit(task)
                    own = result.held_out
                    if folds and (own is None or not torch.equal(own.rows, gathered(folds)[0])):
                        logits = method.held_out_logits(task, folds)
                        own = HeldOutLogits(torch.cat(list(logits)), *gathered(folds))
                fitted[name] = dataclasses.replace(result, held_out=own)
            except CancelledError:
                raise
            except ClipAdapterError as error:
                if self.among != "auto" or (name == names[-1] and not fitted):
                    raise
                left_out[name] = error.found
                log.warning(f"auto goes on without {name}: {error.found}")
        return fitted, left_out


def _loudness(fitted: Mapping[str, Fitted], task: FewShotTask) -> dict[str, float]:
    """Factors by which the logits of all candidates spread alike over the classes with pictures."""
    present = task.train.labels.unique()
    if len(present) < 2:  # one column has no spread
        present = torch.arange(len(task.class_names))
    spread = dict[str, float]()
    for name, f in fitted.items():
        logits = f.held_out.logits if f.held_out else f.logits(task.train)
        spread[name] = logits[:, present].std(1).mean().item()
    return {n: sum(spread.values()) / len(spread) / max(s, 1e-6) for n, s in spread.items()}


def _search(
    logits: Mapping[str, Tensor],
    mild: Mapping[str, float],
    labels: Tensor,
    folds: Sequence[Fold],
) -> tuple[dict[str, float], Selection, HeldOutLogits]:
    """Shares of the members, the record of their choice, and the blend's held-out logits.

    Args:
        logits: (n, C) of every candidate, equally loud.
        mild: the shares to start from.
        labels: (N,) of all shots.
        folds: of them.
    """
    rows, weight = gathered(folds)
    target, pictures, counts = labels[rows], len(rows.unique()), dict(mild)

    def blend(counts: Mapping[str, float]) -> Tensor:
        size = sum(counts.values())
        return torch.stack([c / size * logits[n] for n, c in counts.items() if c]).sum(0)

    hits, losses = score(blend(counts), target, weight)
    start = f", against {100 * mean(hits, weight):.1f} % and {mean(losses, weight):.3f}"
    for _ in range(ROUNDS):
        trials = [{**counts, n: counts.get(n, 0.0) + PART} for n in logits]
        scores = [score(blend(trial), target, weight) for trial in trials]
        gains = [cautious(own - losses, weight, rows) for _, own in scores]
        best = min(range(len(gains)), key=gains.__getitem__)
        if gains[best] >= 0:
            break
        (hits, losses), counts = scores[best], trials[best]
    more = ", ".join(n for n, share in counts.items() if share > mild.get(n, 0.0))
    alone = [score(x, target, weight) for x in logits.values()]
    selection = Selection(
        "members",
        list(logits),
        accuracy=[100 * mean(own, weight) for own, _ in alone],
        loss=[mean(own, weight) for _, own in alone],
        pictures=pictures,
        rule=f"a mild blend is where it starts; {pictures} held-out pictures speak for "
        + (f"more of {more}: " if more else "nothing else beyond doubt: ")
        + f"{100 * mean(hits, weight):.1f} % of them right, loss {mean(losses, weight):.3f}"
        + (start if more else ""),
    )
    held_out = HeldOutLogits(blend(counts), rows, weight)
    return {n: c / sum(counts.values()) for n, c in counts.items()}, selection, held_out
