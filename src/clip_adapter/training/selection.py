"""Choosing a hyper-parameter by cross-validation on the shots. No other data is seen.

Candidates are compared by their loss on shots that they did not train on (``folds.py``). The loss,
not the accuracy: on a few hundred pictures it orders the candidates with far less noise. Three
things keep it honest:

* Classes count alike, however many pictures they have, and what no picture can tell counts nothing.
* Every candidate is read at its best temperature, so that none wins by being sure or timid; and a
  picture costs at most a bounded loss, since its label may be wrong.
* There is a reference: what is taken where nothing can be held out. It is left only for a candidate
  whose loss is lower by more than ``DOUBT`` standard errors of the paired difference.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_adapter.heads import Head
from clip_adapter.task import FewShotTask, HeldOutLogits
from clip_adapter.training.folds import Fold, folds_of

# Powers of the square root of two; the ends are far from what any method needed.
TEMPERATURES = tuple(2 ** (i / 2) for i in range(-10, 11))
# A picture is taken to have a wrong label with this probability: log(C / 0.1) is all it can cost.
WRONG = 0.1
# So many standard errors of the difference must be gained before the reference is left.
DOUBT = 1.5

# Said where there are no folds.
NOTHING_HELD_OUT = "too few classes have two pictures, so that one could be held out"

Candidate = Any
Evaluate = Callable[[list[tuple[Fold, Candidate]]], Iterable[Tensor]]


@dataclass(frozen=True)
class Selection:
    """What cross-validation saw of each candidate.

    Attributes:
        parameter: its name.
        candidates: its values; for several parameters at once, one {parameter: value} each.
        accuracy: percent correct on held-out pictures, mean over the classes, one per candidate.
        loss: mean bounded cross entropy on them at the best temperature, nats, in the same way.
        pictures: how many different pictures were held out.
        chosen: the candidate taken.
        rule: why, in words.
    """

    parameter: str
    candidates: list[Any]
    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    pictures: int = 0
    chosen: Any = 0.0
    rule: str = ""


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` took.

    Attributes:
        value: of the parameter.
        selection: what was seen; empty where the value was given.
        held_out: what the choice said of the held-out shots, where there were any.
    """

    value: Any
    selection: Selection
    held_out: HeldOutLogits | None = None

    @property
    def record(self) -> list[dict[str, Any]]:
        """The selection for the classifier's record, unless the value was given."""
        return [dataclasses.asdict(self.selection)] if self.selection.rule else []


def choose(
    parameter: str,
    given: Any,
    among: Sequence[Candidate],
    *,
    one_shot: Candidate,
    task: FewShotTask,
    evaluate: Evaluate,
    folds: Sequence[Fold] | None = None,
) -> Choice:
    """What was given; else what the held-out shots speak for; else ``one_shot``.

    Args:
        parameter: its name.
        given: the option: "auto", or the value to take.
        among: the candidates; ``one_shot`` is added where it is missing.
        one_shot: the reference, taken where no class has two pictures, and in doubt.
        task: the shots.
        evaluate: as in :func:`cross_validate`.
        folds: of the shots; None: by :func:`~clip_adapter.training.folds.folds_of`.
    """
    if given != "auto":
        return Choice(given, Selection(parameter, [given], chosen=given))
    candidates, labels = list(among) if one_shot in among else [one_shot, *among], task.train.labels
    folds = folds_of(task.train, task.seed) if folds is None else folds
    # What is held out of one class alone would speak for a candidate that always says it.
    if folds and len(labels[gathered(folds)[0]].unique()) > 1:
        reference = candidates.index(one_shot)
        return cross_validate(parameter, candidates, folds, labels, evaluate, reference)
    rule = f"{NOTHING_HELD_OUT}: {shown(one_shot)}"
    return Choice(one_shot, Selection(parameter, candidates, chosen=one_shot, rule=rule))


def cross_validate(
    parameter: str,
    candidates: Sequence[Candidate],
    folds: Sequence[Fold],
    labels: Tensor,
    evaluate: Evaluate,
    reference: int = 0,
) -> Choice:
    """Compare the candidates on what the folds hold out, and choose.

    Args:
        parameter: its name.
        candidates: its values.
        folds: at least one.
        labels: (N,) of all shots.
        evaluate: gives the held-out logits (n, C) of every (fold, candidate), in the order given.
            Fitting may be one batched pass; a generator keeps the memory small.
        reference: number of the candidate that is left only on evidence.
    """
    rows, weight = gathered(folds)
    # The reference is scored first, and each of the others against it as it comes.
    order = [reference, *(i for i in range(len(candidates)) if i != reference)]
    results = iter(evaluate([(f, candidates[i]) for i in order for f in folds]))
    scores: dict[int, tuple[float, float]] = {}
    best, lowest, kept, start = reference, 0.0, torch.empty(0), torch.empty(0)
    for number in order:
        logits = torch.cat([next(results) for _ in folds])
        hits, losses = score(logits, labels[rows], weight)
        scores[number] = 100 * mean(hits, weight), mean(losses, weight)
        if number == reference:
            start, kept = losses, logits
        elif (gain := cautious(losses - start, weight, rows)) < lowest:
            best, lowest, kept = number, gain, logits
    pictures = len(rows.unique())
    measured = f"{pictures} held-out pictures, classes counting alike"
    if best != reference:
        safe = shown(candidates[reference])
        rule = f"on {measured}, its loss is lower than that of {safe} beyond doubt"
    elif scores[best][1] == min(loss for _, loss in scores.values()):
        rule = f"lowest loss on {measured}"
    else:
        rule = f"kept: on {measured}, another has a lower loss, but not beyond doubt"
    selection = Selection(
        parameter,
        list(candidates),
        accuracy=[scores[i][0] for i in range(len(scores))],
        loss=[scores[i][1] for i in range(len(scores))],
        pictures=pictures,
        chosen=candidates[best],
        rule=rule,
    )
    return Choice(candidates[best], selection, HeldOutLogits(kept.cpu(), rows, weight))


def choose_and_train(
    parameter: str,
    given: Any,
    among: Sequence[Candidate],
    *,
    one_shot: Candidate,
    task: FewShotTask,
    train: Callable[[list[Tensor], Candidate], list[Head]],
    plain: Tensor,
    folds: Sequence[Fold] | None = None,
) -> tuple[Choice, Head]:
    """:func:`choose`, where all folds of a candidate train in one pass, and the head of all shots.

    Args:
        parameter: as for :func:`choose`, as what is not named here.
        given: the option.
        among: the candidates.
        one_shot: the reference.
        task: the shots.
        train: a head for each tensor of row indices, at the candidate.
        plain: (N, D), what held-out shots are scored on.
        folds: of the shots.
    """

    def evaluate(jobs: list[tuple[Fold, Candidate]]) -> Iterator[Tensor]:
        for candidate, group in itertools.groupby(jobs, operator.itemgetter(1)):
            own = [fold for fold, _ in group]
            yield from held_out_scores(train([f.fit for f in own], candidate), own, plain)

    choice = choose(
        parameter, given, among, one_shot=one_shot, task=task, evaluate=evaluate, folds=folds
    )
    (head,) = train([torch.arange(len(task.train))], choice.value)
    return choice, head


@torch.no_grad()
def held_out_scores(heads: Iterable[Head], folds: Sequence[Fold], plain: Tensor) -> list[Tensor]:
    """Logits (m, C) of what each fold holds out of ``plain`` (N, D), by the head of the fold."""
    return [head(plain[fold.held_out]) for head, fold in zip(heads, folds, strict=True)]


def gathered(folds: Sequence[Fold]) -> tuple[Tensor, Tensor]:
    """(n,) rows held out by all folds, and their weights (n,), which sum to at most 1."""
    rows = torch.cat([f.held_out for f in folds])
    even = torch.full((len(rows),), 1 / max(len(rows), 1), dtype=torch.float64)
    own = [f.weight for f in folds if f.weight is not None]
    return rows, torch.cat(own) if len(own) == len(folds) else even


def score(logits: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(hits (n,), bounded losses (n,) at the best temperature) of logits (n, C) on any device."""
    labels = labels.to(logits.device)
    hits = (logits.argmax(-1) == labels).cpu().double()
    if not bool(logits.isfinite().all()):
        # They cost more than any that are numbers.
        return hits, torch.full((len(logits),), -2 * math.log(WRONG / logits.shape[-1])).double()
    return hits, bounded(logits, labels, temperature(logits, labels, weight))


def bounded(logits: Tensor, labels: Tensor, factor: float) -> Tensor:
    """(n,) losses, nats: cross entropy with a share of the pictures labelled at random."""
    right = -F.cross_entropy(factor * logits, labels, reduction="none").cpu().double()
    return -torch.log((1 - WRONG) * right.exp() + WRONG / logits.shape[-1])


def temperature(logits: Tensor, labels: Tensor, weight: Tensor) -> float:
    """The factor at which ``logits`` (n, C) have the lowest loss: the best of a few, then between.

    The loss is bounded, so it may have more than one dip.
    """

    @functools.cache
    def loss(place: int) -> float:
        return mean(bounded(logits, labels, TEMPERATURES[place]), weight)

    place, last = min(range(0, len(TEMPERATURES), 4), key=loss), len(TEMPERATURES) - 1
    for step in (2, 1):
        place = min((place, max(place - step, 0), min(place + step, last)), key=loss)
    return TEMPERATURES[place]


def mean(values: Tensor, weight: Tensor) -> float:
    """The weighted mean of ``values`` (n,)."""
    return float((values * weight).sum() / weight.sum())


def cautious(difference: Tensor, weight: Tensor, rows: Tensor) -> float:
    """The mean of a paired ``difference`` (n,) of losses, plus ``DOUBT`` times its standard error.

    Below 0 it is an improvement beyond doubt; few pictures leave much doubt. A picture that was
    held out in several folds, as ``rows`` (n,) tell, is one picture.
    """
    _, place = rows.unique(return_inverse=True)
    count = int(place.max()) + 1
    nought = torch.zeros(count, dtype=weight.dtype)
    share = nought.index_add(0, place, weight / weight.sum())
    summed = nought.index_add(0, place, difference * weight / weight.sum())
    centre = float(summed.sum())
    pictures = 1 / float(share.square().sum())  # if all counted alike
    spread = float((share * (summed / share - centre).square()).sum())
    return centre + DOUBT * math.sqrt(spread / max(pictures - 1, 0.5))


def choice(parameter: str, chosen: Candidate) -> str:
    """What was chosen, for people: ``visual_ratio = 0.2``, or as :func:`shown` for several."""
    return shown(chosen) if isinstance(chosen, Mapping) else f"{parameter} = {shown(chosen)}"


def shown(candidate: Candidate) -> str:
    """A candidate for people: ``0.2``, or ``cache_weight 1, cache_sharpness 5.5``."""
    if isinstance(candidate, Mapping):
        return ", ".join(f"{name} {shown(value)}" for name, value in candidate.items())
    return f"{candidate:g}" if isinstance(candidate, int | float) else str(candidate)
