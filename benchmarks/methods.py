"""Every feature method on real CLIP ViT-B/32 features: accuracy, choices and seconds.

    python benchmarks/methods.py --features FOLDER [--out benchmarks/METHODS.md]

FOLDER holds the safetensors files that ``SETS`` names, with sets ``train_{K}shot`` and ``test`` or
``eval_{K}shot``. Each run is fitted by the public ``fit`` at the method's defaults and scored by
the public ``evaluate``; a method sees the shots only. Runs are kept in ``results/methods.json`` and
not made again (``--again`` makes those of ``--only``, or all, again), so an interrupted table goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import clip_adapter
from clip_adapter.errors import ClipAdapterError
from clip_adapter.files import write_file
from clip_adapter.fitting import versions
from clip_adapter.methods import get_method
from clip_adapter.training.selection import choice

RESULTS = Path(__file__).parent / "results" / "methods.json"
SEEDS = (1, 2, 3)
# L-BFGS over 1,000 classes takes minutes, and the seed only deals the folds.
ONE_SEED = {("imagenet", "linear-probe")}
ZERO_SHOT = "zero-shot"
BELOW_ZERO_SHOT, BELOW_BEST = 0.1, 0.5


@dataclass(frozen=True)
class Set:
    """A feature file: its title, shots, scored set and whether it has text weights."""

    file: str
    title: str
    shots: tuple[int, ...]
    scored: str
    text: bool


SETS = (
    Set("imagenet", "ImageNet (1,000 classes)", (1, 4), "eval_{}shot", True),
    Set("caltech101_matched", "Caltech101 (60 classes)", (1, 2, 4, 8, 16), "test", True),
    Set("caltech101_vitb16", "Caltech101 (whole split), ViT-B/16", (16,), "test", True),
    Set("ucf101_vitb16", "UCF101 (whole split), ViT-B/16", (16,), "test", True),
    Set("stanford_cars_vitb32", "Stanford Cars, scored on CoOp's val split", (16,), "test", True),
    Set("dtd_vitb16_train", "DTD, train pictures, ViT-B/16", (8,), "eval_{}shot", True),
    Set("whurs19_clip_vitb32", "WHU-RS19", (4, 16), "test", True),
    Set("whurs19_clip_rn50", "WHU-RS19, RN50", (4, 16), "test", True),
    Set("oxford_flowers", "Flowers102, no text weights", (1, 2, 4, 8, 16), "test", False),
    Set("ucf101", "UCF101, no text weights", (1, 2, 4, 8, 16), "test", False),
)
# Accuracy in percent that authors give for the same pictures, backbone and shots; the source.
PUBLISHED = {
    ("caltech101_vitb16", 16, "gda"): (95.79, "GDA's log, logs/architecture.log"),
    ("ucf101_vitb16", 16, "gda"): (84.09, "GDA's log, logs/architecture.log"),
}


@dataclass
class Run:
    """One fit and its score."""

    file: str
    shots: int
    method: str
    seed: int
    top1: float
    seconds: float
    chosen: str
    trained: int
    zero_shot: float | None


def methods(text: bool) -> list[str]:
    """Feature methods that can run, those without a text tower at hand."""
    able = [get_method(name) for name in clip_adapter.method_names()]
    able = [m for m in able if m.reads == "features" and not m.runs_text_tower]
    return [m.name for m in able if text or not m.needs_text]


def plan() -> Iterator[tuple[Set, int, str, int]]:
    """Every (set, shots, method, seed)."""
    for data in SETS:
        for shots in data.shots:
            for method in methods(data.text):
                seeds = SEEDS[:1] if (data.file, method) in ONE_SEED else SEEDS
                yield from ((data, shots, method, seed) for seed in seeds)


def run(folder: Path, data: Set, shots: int, method: str, seed: int) -> Run:
    """Fits and scores once."""
    file = folder / f"{data.file}.safetensors"
    classifier = clip_adapter.fit(f"{file}#train_{shots}shot", method=method, seed=seed)
    report = clip_adapter.evaluate(classifier, f"{file}#{data.scored.format(shots)}")
    info = classifier.info
    curves = info.get("selection", [])
    chosen = "; ".join(choice(c["parameter"], c["chosen"]) for c in curves)
    return Run(
        data.file,
        shots,
        method,
        seed,
        report.top1,
        info["seconds"],
        chosen,
        classifier.parameters,
        report.zero_shot_top1,
    )


def measure(folder: Path, again: bool, only: str | None) -> list[Run]:
    """All runs, the known ones from the file."""
    known: dict[tuple[Any, ...], Run] = {}
    named = None if only is None else only.split(",")
    if RESULTS.exists():
        for record in json.loads(RESULTS.read_text("utf-8"))["runs"]:
            one = Run(**record)
            if not (again and (named is None or one.method in named)):
                known[one.file, one.shots, one.method, one.seed] = one
    wanted = list(plan())
    for number, (data, shots, method, seed) in enumerate(wanted):
        key = (data.file, shots, method, seed)
        if key not in known and (named is None or method in named):
            known[key] = run(folder, data, shots, method, seed)
            one = known[key]
            print(
                f"{number + 1}/{len(wanted)} {data.file} {shots} {method} seed {seed}: "
                f"{one.top1:.2f} % in {one.seconds:.1f} s",
                file=sys.stderr,
            )
            ordered = [asdict(known[k]) for k in sorted(known)]
            text = json.dumps({"versions": versions(), "runs": ordered}, indent=1)
            write_file(RESULTS, text.encode())
    return list(known.values())


def table(runs: list[Run]) -> str:
    """The page, a pure function of the runs."""
    lines = [
        "# Every feature method on real CLIP features",
        "",
        "<!-- Written by `make bench-methods`; a pure function of results/methods.json. -->",
        "",
        "Features of OpenAI's CLIP, ViT-B/32 where nothing else is said; top-1 accuracy in "
        "percent, the mean of three seeds (and the standard deviation), every method at its "
        "defaults. Hyper-parameters are chosen on the shots; what was chosen is that of the first "
        f"seed. Seconds are those of `fit` with {versions()['threads']} thread, one run after the "
        "other on a machine that did other "
        "things as well: take them as an order of magnitude. The shots are given by the files, so "
        "a seed decides the folds and the training, not the draw.",
        "",
    ]
    for data in SETS:
        lines += [f"## {data.title}", ""]
        lines += _matrix(runs, data)
        for shots in data.shots:
            lines += _detail(runs, data, shots)
    lines += _auto(runs) + _published(runs)
    return "\n".join(lines) + "\n"


def _of(runs: list[Run], data: Set, shots: int, method: str) -> list[Run]:
    found = [r for r in runs if (r.file, r.shots, r.method) == (data.file, shots, method)]
    return sorted(found, key=lambda r: r.seed)


def _mean(runs: list[Run]) -> float:
    return statistics.mean(r.top1 for r in runs)


def _matrix(runs: list[Run], data: Set) -> list[str]:
    """Accuracy by method and shots; the best of a column in bold."""
    names = [m for m in methods(data.text) if any(_of(runs, data, k, m) for k in data.shots)]
    best = {
        k: max((_mean(_of(runs, data, k, m)) for m in names if _of(runs, data, k, m)), default=0)
        for k in data.shots
    }
    heads = " | ".join(f"{k} shot{'s' if k > 1 else ''}" for k in data.shots)
    lines = [f"| method | {heads} |", "|---" * (len(data.shots) + 1) + "|"]
    for name in names:
        cells = []
        for k in data.shots:
            of = _of(runs, data, k, name)
            text = f"{_mean(of):.2f}" if of else "-"
            cells.append(f"**{text}**" if of and _mean(of) == best[k] else text)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return [*lines, ""]


def _detail(runs: list[Run], data: Set, shots: int) -> list[str]:
    lines = [
        f"### {data.title}, {shots} shot{'s' if shots > 1 else ''}",
        "",
        "| method | top-1 | seconds | trained | chosen on the shots |",
        "|---|---|---|---|---|",
    ]
    for name in methods(data.text):
        of = _of(runs, data, shots, name)
        if not of:
            continue
        spread = f" ± {statistics.stdev(r.top1 for r in of):.2f}" if len(of) > 1 else ""
        seconds = statistics.mean(r.seconds for r in of)
        lines.append(
            f"| `{name}` | {_mean(of):.2f}{spread} | {seconds:.1f} | {of[0].trained:,} "
            f"| {of[0].chosen or 'nothing'} |"
        )
    return [*lines, ""]


def _auto(runs: list[Run]) -> list[str]:
    """`auto` beside zero-shot and beside the best single method, which only the test set knows."""
    lines = [
        "## `auto`, which sees the shots only",
        "",
        f"It should never be more than {BELOW_ZERO_SHOT} under zero-shot, and within {BELOW_BEST} "
        "of the single method that is best on the test set, which nobody can know beforehand.",
        "",
        "| data | shots | zero-shot | best single | auto | to the best | took | holds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for data in SETS:
        for shots in data.shots:
            auto = _of(runs, data, shots, "auto")
            others = [m for m in methods(data.text) if m != "auto" and _of(runs, data, shots, m)]
            if not auto or not others:
                continue
            best = max(others, key=lambda m: _mean(_of(runs, data, shots, m)))
            top, zero = _mean(_of(runs, data, shots, best)), auto[0].zero_shot
            gap = _mean(auto) - top
            holds = gap >= -BELOW_BEST and (zero is None or _mean(auto) >= zero - BELOW_ZERO_SHOT)
            shown_zero = "-" if zero is None else f"{zero:.2f}"
            took = auto[0].chosen.removeprefix("members = ")
            lines.append(
                f"| {data.file} | {shots} | {shown_zero} | {top:.2f} (`{best}`) "
                f"| {_mean(auto):.2f} | {gap:+.2f} | {took} | {'yes' if holds else '**no**'} |"
            )
    return [*lines, ""]


def _published(runs: list[Run]) -> list[str]:
    """Ours beside the published figure of the same set, backbone, method and shots."""
    lines = [
        "## Beside published figures",
        "",
        "Backbone, data split and number of shots are the same. The prompts are not: these files "
        "have the mean of sentences that a language model wrote for each class, the authors one "
        "or more templates. Nor is the draw: the files have one, the authors the mean of three. "
        "The weight is chosen on the shots here, on validation pictures there.",
        "",
        "| data | shots | method | ours | published | difference | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for (file, shots, method), (accuracy, source) in PUBLISHED.items():
        data = next(d for d in SETS if d.file == file)
        if of := _of(runs, data, shots, method):
            ours = _mean(of)
            lines.append(
                f"| {file} | {shots} | `{method}` | {ours:.2f} | {accuracy:.2f} "
                f"| {ours - accuracy:+.2f} | {source} |"
            )
    return [*lines, ""]


def main() -> int:
    """Measures what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS.parents[1] / "METHODS.md")
    parser.add_argument("--only", help="methods, with commas between; the others are left as known")
    parser.add_argument("--again", action="store_true", help="make known runs again")
    given = parser.parse_args()
    try:
        runs = measure(given.features, given.again, given.only)
    except ClipAdapterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    page = table(runs)
    write_file(given.out, page.encode())
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
