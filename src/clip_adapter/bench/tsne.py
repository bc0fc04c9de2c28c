"""Features of the test pictures in the plane, by t-SNE: what figure 6 of the paper shows."""

from __future__ import annotations

from typing import Any

import torch

from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.heads import Head
from clip_adapter.nn import normalize

# More points hide each other.
MOST = 1000
PERPLEXITY = 30.0


def in_the_plane(classifier: Classifier, features: FeatureSet, seed: int) -> dict[str, Any]:
    """Points of the features as ``classifier`` compares them with its class weights.

    Where only the class weights were learnt (CoOp), they are the features of CLIP.

    Args:
        classifier: with one cosine head.
        features: of the test pictures; ``MOST`` of them are drawn at random.
        seed: of the draw and of t-SNE.

    Returns:
        ``points`` (n, 2), ``labels`` (n,), ``class_names``, and ``silhouette``: how far the
        classes lie apart among the features before t-SNE, -1 to 1.

    Raises:
        UsageError: the classifier does not compare features with class weights.
    """
    head = classifier.head
    if not isinstance(head, Head) or head.kind != "cosine":
        raise UsageError(
            f"{classifier.info.get('method')} has no features to show.",
            allowed="methods that compare one feature with class weights",
        )
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(features), generator=draw)[:MOST].sort().values
    shown = features.plain_view[rows]
    with torch.no_grad():
        mapped = shown if head.image_map is None else head.image_map(shown)
        unit = normalize(mapped).numpy()
    labels = features.labels[rows].numpy()
    with threadpool_limits(1):  # the order of sums decides where points end
        tsne = TSNE(perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), init="pca", random_state=seed)
        points = tsne.fit_transform(unit)
        apart = silhouette_score(unit, labels, metric="cosine")
    return {
        "points": [[round(float(x), 3), round(float(y), 3)] for x, y in points],
        "labels": labels.tolist(),
        "class_names": features.class_names,
        "silhouette": float(apart),
    }
