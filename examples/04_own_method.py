"""A method of your own: registered, it is fitted, evaluated and saved like the built-in ones.

    python examples/04_own_method.py [PHOTOS [BACKBONE]]

A package makes its methods known by the entry point group ``clip_adapter.methods``.
"""

import sys
from pathlib import Path
from typing import Annotated

import torch

import clip_adapter
from clip_adapter.demo.task import demo_task
from clip_adapter.methods.base import Bounds, FewShotTask, Fitted, Head, Method, register
from clip_adapter.nn import normalize


@register(
    name="mean-and-text",
    summary="class means blended with the text weights, no training",
    citation="Snell et al. 2017, arXiv 1703.05175 (the class means)",
    trains="nothing",
)
class MeanAndText(Method):
    """W' = r M + (1 - r) W, with M (C, D) the mean of each class's unit features.

    Attributes:
        ratio: r, the share of the pictures against the text, 0 to 1.
    """

    ratio: Annotated[float, Bounds(least=0, most=1)] = 0.5

    def fit(self, task: FewShotTask) -> Fitted:
        """Reads every shot once; a class without one keeps its text weight."""
        text = task.require_text(self.name)
        features, labels = normalize(task.train.features).mean(0), task.train.labels
        sums = torch.zeros_like(text).index_add(0, labels, features)
        absent = torch.bincount(labels, minlength=len(text)) == 0
        means = torch.where(absent[:, None], text, normalize(sums))
        weights = self.ratio * means + (1 - self.ratio) * text
        return Fitted(Head(weights, logit_scale=task.logit_scale), {"ratio": self.ratio})


def main(photos: Path, backbone: str) -> None:
    """Fits it by its name."""
    classifier = clip_adapter.fit(
        photos, method="mean-and-text", options={"ratio": 0.4}, shots=4, backbone=backbone
    )
    print(*clip_adapter.evaluate(classifier, photos).lines(), sep="\n")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        Path(given[0]) if given else demo_task(Path("demo-output")),
        given[1] if len(given) > 1 else "demo",
    )
