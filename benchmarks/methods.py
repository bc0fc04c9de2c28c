"""Every feature method on real CLIP features: accuracy, choices and seconds.

    python benchmarks/methods.py [--features FOLDER] [--out benchmarks/methods]

With FOLDER, which holds the files that ``SETS`` names, the recipe "peers-features" is run on each
of them, as ``clip-adapter bench run`` does it: what has a result is not run again, and what was
interrupted goes on. METHODS.md, beside the folder of results, is written from the results alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from clip_adapter.bench.benchmark import run_bench
from clip_adapter.bench.data import Environment
from clip_adapter.bench.frame import load_published
from clip_adapter.errors import ClipAdapterError
from clip_adapter.files import write_file
from clip_adapter.training.selection import choice

RECIPE = "peers-features"
BELOW_ZERO_SHOT, BELOW_BEST = 0.1, 0.5
# A feature file: its title and shots.
SETS = {
    "imagenet": ("ImageNet (1,000 classes)", (1, 4)),
    "caltech101_matched": ("Caltech101 (60 classes)", (1, 2, 4, 8, 16)),
    "caltech101_vitb16": ("Caltech101 (whole split), ViT-B/16", (16,)),
    "ucf101_vitb16": ("UCF101 (whole split), ViT-B/16", (16,)),
    "stanford_cars_vitb32": ("Stanford Cars, scored on CoOp's val split", (16,)),
    "dtd_vitb16_train": ("DTD, train pictures, ViT-B/16", (8,)),
    "whurs19_clip_vitb32": ("WHU-RS19", (4, 16)),
    "whurs19_clip_rn50": ("WHU-RS19, RN50", (4, 16)),
    "oxford_flowers": ("Flowers102, no text weights", (1, 2, 4, 8, 16)),
    "ucf101": ("UCF101, no text weights", (1, 2, 4, 8, 16)),
}
# Files of the same pictures and backbone as published figures: (data set, our method, its name).
PUBLISHED = {
    "caltech101_vitb16": ("caltech101", "gda", "GDA"),
    "ucf101_vitb16": ("ucf101", "gda", "GDA"),
}
HEAD = """# Every feature method on real CLIP features

<!-- Written by `make bench-methods`; a pure function of the results in methods/. -->

Features of OpenAI's CLIP, ViT-B/32 where nothing else is said; top-1 accuracy in percent, the \
mean of three seeds (and the standard deviation), every method at its defaults. Hyper-parameters \
are chosen on the shots; what was chosen is that of the first seed. Seconds are those of `fit` \
with 1 thread, one run after the other on a machine that did other things as well: take them as \
an order of magnitude. The shots are given by the files, so a seed decides the folds and the \
training, not the draw.
"""
AUTO = f"""## `auto`, which sees the shots only

It should never be more than {BELOW_ZERO_SHOT} under zero-shot, and within {BELOW_BEST} of the \
single method that is best on the test set, which nobody can know beforehand.
"""
BESIDE = """## Beside published figures

Backbone, data split and number of shots are the same. The prompts are not: these files have the \
mean of sentences that a language model wrote for each class, the authors one or more templates. \
Nor is the draw: the files have one, the authors the mean of three. The weight is chosen on the \
shots here, on validation pictures there.
"""


def measure(features: Path, out: Path) -> None:
    """Do what has no result yet, one run after the other."""
    environment = Environment(out=str(out), features=str(features))
    for name, (_, shots) in SETS.items():
        overrides = {"datasets": [name], "shots": list(shots)}
        run_bench(
            [RECIPE], profile="features", environment=environment, overrides=overrides, jobs=1
        )


def cells(out: Path) -> Any:
    """A row for each data set, number of shots and method, over its seeds."""
    paths = sorted((out / "results").rglob("*.json"))
    records = [json.loads(p.read_bytes()) for p in paths if not p.name.endswith(".failed.json")]
    runs: Any = pd.json_normalize(records, max_level=1).rename(
        columns=lambda n: n.removeprefix("run.")
    )
    runs["chosen"] = [
        "; ".join(choice(*chosen) for chosen in record["chosen"].items()) for record in records
    ]
    runs = runs.sort_values(["dataset", "shots", "method", "seed"])
    found = runs.groupby(["dataset", "shots", "method"], as_index=False).agg(
        top1=("top1", "mean"),
        deviation=("top1", "std"),
        seconds=("train_seconds", "mean"),
        trained=("trained_parameters", "first"),
        chosen=("chosen", "first"),
        zero_shot=("zero_shot_top1", "first"),
    )
    return found.round(9)  # the error of a sum is no difference


def page(found: Any) -> str:
    """METHODS.md, a pure function of the :func:`cells`."""
    parts, auto, beside = [HEAD], list[dict[str, Any]](), list[dict[str, Any]]()
    published = load_published().query("table == 0 and backbone == 'ViT-B/16'")
    for name, (title, every) in SETS.items():
        own = found[found.dataset == name]
        parts += [f"## {title}\n", matrix(own)]
        for shots in sorted(set(own.shots) & set(every)):
            rows = own[own.shots == shots].set_index("method")
            parts += [f"### {title}, {words(shots)}\n", detail(rows)]
            auto.append({"data": name, "shots": shots, **judged(rows)})
            dataset, method, row = PUBLISHED.get(name, ("", "", ""))
            where = (published.dataset == dataset) & (published.row == row)
            for figure in published[where & (published.shots == shots)].itertuples():
                ours = rows.top1[method]
                texts = [f"`{method}`", f"{ours:.2f}", f"{figure.value:.2f}"]
                texts += [f"{ours - figure.value:+.2f}", figure.source]
                heads = ["method", "ours", "published", "difference", "source"]
                beside.append(
                    {"data": name, "shots": shots, **dict(zip(heads, texts, strict=True))}
                )
    return "\n".join([*parts, AUTO, table(pd.DataFrame(auto)), BESIDE, table(pd.DataFrame(beside))])


def matrix(own: Any) -> str:
    """Accuracy by method and shots; the best of a column in bold."""
    top1 = own.pivot(index="method", columns="shots", values="top1")
    texts = top1.map("{:.2f}".format).where(top1.notna(), "-")
    return table(texts.mask(top1 == top1.max(), "**" + texts + "**").rename(columns=words))


def detail(rows: Any) -> str:
    """Accuracy, seconds, trained parameters and choices by method."""
    spread = (" ± " + rows.deviation.map("{:.2f}".format)).where(rows.deviation.notna(), "")
    columns = {
        "top-1": rows.top1.map("{:.2f}".format) + spread,
        "seconds": rows.seconds.map("{:.1f}".format),
        "trained": rows.trained.map("{:,}".format),
        "chosen on the shots": rows.chosen.replace("", "nothing"),
    }
    return table(pd.DataFrame(columns))


def judged(rows: Any) -> dict[str, str]:
    """``auto`` beside zero-shot and the best single method, which only the test set knows."""
    auto, others = rows.loc["auto"], rows.drop("auto").top1
    gap, zero = auto.top1 - others.max(), auto.zero_shot
    holds = gap >= -BELOW_BEST and not auto.top1 < zero - BELOW_ZERO_SHOT
    return {
        "zero-shot": "-" if pd.isna(zero) else f"{zero:.2f}",
        "best single": f"{others.max():.2f} (`{others.idxmax()}`)",
        "auto": f"{auto.top1:.2f}",
        "to the best": f"{gap:+.2f}",
        "took": auto.chosen.removeprefix("members = "),
        "holds": "yes" if holds else "**no**",
    }


def table(frame: Any) -> str:
    """A pipe table; methods, where they are the index, come first."""
    if frame.index.name == "method":
        frame = frame.rename(index="`{}`".format).rename_axis(columns=None).reset_index()
    return frame.to_markdown(index=False, disable_numparse=True, tablefmt="github") + "\n"


def words(shots: int) -> str:
    """``1 shot``, ``2 shots``."""
    return f"{shots} shot{'s' * (shots > 1)}"


def main() -> int:
    """Measure what is missing, where there are features, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", type=Path, help="without it, nothing is run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "methods")
    given = parser.parse_args()
    try:
        if given.features:
            measure(given.features, given.out)
    except ClipAdapterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    write_file(given.out.parent / "METHODS.md", page(cells(given.out)).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
