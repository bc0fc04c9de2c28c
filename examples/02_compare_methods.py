"""Some methods at 1 and 8 shots: mean and standard deviation over three few-shot draws.

    python examples/02_compare_methods.py [PHOTOS [BACKBONE]]

The pictures go through the backbone once; the feature store hands their features to every run.
``clip-adapter ls methods`` names the others; those that read images take minutes each.
"""

import statistics
import sys
from pathlib import Path

import clip_adapter
from clip_adapter.demo.task import demo_task

METHODS = ("zero-shot", "tip-adapter-f", "gda", "clip-adapter", "auto")
SHOTS = (1, 8)
SEEDS = (1, 2, 3)


def accuracies(photos: Path, backbone: str, method: str, shots: int) -> list[float]:
    """Top-1 accuracy on the test pictures in percent, one for each seed."""
    found = []
    for seed in SEEDS:
        classifier = clip_adapter.fit(
            photos, method=method, shots=shots, seed=seed, backbone=backbone
        )
        found.append(clip_adapter.evaluate(classifier, photos).top1)
    return found


def main(photos: Path, backbone: str) -> None:
    """Prints the table."""
    print(f"{'method':<16}" + "".join(f"{f'{k} shots':>16}" for k in SHOTS))
    for method in METHODS:
        row = f"{method:<16}"
        for shots in SHOTS:
            found = accuracies(photos, backbone, method, shots)
            row += f"{statistics.mean(found):>9.1f} ± {statistics.stdev(found):>4.1f}"
        print(row)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        Path(given[0]) if given else demo_task(Path("demo-output")),
        given[1] if len(given) > 1 else "demo",
    )
