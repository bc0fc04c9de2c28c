"""A folder of pictures in, a classifier out: fit, evaluate, predict, save and load.

    python examples/01_first_classifier.py [PHOTOS [BACKBONE]]

PHOTOS has folders train/CLASS and test/CLASS; without it, the demo's pictures are rendered.
"""

import sys
from pathlib import Path

import clip_adapter
from clip_adapter.demo.task import demo_task


def main(photos: Path, backbone: str) -> None:
    """The whole way, once."""
    classifier = clip_adapter.fit(photos, shots=4, backbone=backbone)
    (chosen,) = classifier.info["selection"]
    print(f"{classifier}\nblended: {chosen['chosen']}")

    report = clip_adapter.evaluate(classifier, photos)
    print(*report.lines(), sep="\n")

    pictures = sorted((photos / "test").glob("*/*"))[:3]
    for picture, label in zip(pictures, classifier.predict(pictures), strict=True):
        print(f"{picture.relative_to(photos)}: {label}")

    folder = classifier.save(Path("first-classifier"))
    again = clip_adapter.Classifier.load(folder)
    same = again.predict(pictures) == classifier.predict(pictures)
    print(f"saved as {folder}, and loaded again; the same answers: {same}")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        Path(given[0]) if given else demo_task(Path("demo-output")),
        given[1] if len(given) > 1 else "demo",
    )
