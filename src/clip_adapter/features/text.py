"""``text_weights``: class names, templates and descriptions into classifier weights."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from clip_adapter.backbones.base import Backbone
from clip_adapter.backbones.own import OwnBackbone
from clip_adapter.datasets.templates import fill
from clip_adapter.errors import UsageError
from clip_adapter.features.store import FeatureStore, content_digest, open_shelf
from clip_adapter.nn.cosine import normalize
from clip_adapter.reporting import log
from clip_adapter.wording import listed, some_of

_SHOWN = 40  # characters of a name that was cut
# 1 - cosine of two text weights. Names that CLIP reads as one are off by 1e-7, the nearest of 196
# kinds of cars by 5e-3.
_ALIKE = 1e-4
_BLOCK = 1024  # rows compared with all others at once


def text_weights(
    backbone: Backbone,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    descriptions: Sequence[Sequence[str]] | None = None,
    store: FeatureStore | None = None,
) -> Tensor:
    """Classifier weights (C, D) of unit length, from C class names and T templates.

    Per class, the features of its texts are scaled to unit length, averaged, and scaled again.
    Its texts are the T filled templates and its descriptions, each of the same weight. Source:
    CLIP, section 3.1.4 (prompt ensembling), and CuPL (arXiv 2209.03320) for the descriptions; with
    one template it is the plain text feature.

    Args:
        backbone: encodes the texts.
        class_names: C names.
        templates: T templates with one ``{}`` each; none where there are descriptions alone.
        descriptions: C lists of sentences, of any length from 1 on.
        store: where text features are kept; None keeps nothing.

    Raises:
        UsageError: a template without ``{}``, or no template or class.
        BackboneError: the tokenizer cannot be had.
    """
    if not class_names or not (templates or descriptions):
        raise UsageError(f"{len(class_names)} class names and {len(templates)} templates.")
    if wrong := [template for template in templates if template.count("{}") != 1]:
        raise UsageError(
            f"The template {wrong[0]!r} has {wrong[0].count('{}')} places for the class name.",
            allowed="one {} per template, as in 'a photo of a {}.'",
        )
    sentences = [()] * len(class_names) if descriptions is None else descriptions
    texts = [
        [*(fill(template, name) for template in templates), *own]
        for name, own in zip(class_names, sentences, strict=True)
    ]
    features = _encode(backbone, list(dict.fromkeys(chain.from_iterable(texts))), store)
    means = [normalize(torch.stack([features[t] for t in own])).mean(0) for own in texts]
    return normalize(torch.stack(means))


def alike_note(weights: Tensor | None, class_names: Sequence[str]) -> str:
    """A line on the classes whose text ``weights`` (C, D) are equal or nearly so; "" for none.

    Without weights, on those of one name.
    """
    if weights is None:
        same = [f"{n} are called {name!r}" for name, n in Counter(class_names).items() if n > 1]
        return f"Of the classes, {some_of(same)}: give other names." if same else ""
    rows, alike = normalize(weights.float()), defaultdict(list)
    for start in range(0, len(rows), _BLOCK):
        close = rows[start : start + _BLOCK] @ rows.T > 1 - _ALIKE
        for row, first in enumerate(close.int().argmax(1).tolist(), start):
            alike[first].append(class_names[row])
    groups = [" and ".join(map(repr, names[:3])) for names in alike.values() if len(names) > 1]
    if not groups:
        return ""
    return (
        f"Text cannot tell these classes apart: {some_of(groups)}. To CLIP, names that "
        "differ in case, in spaces or beyond its limit are one; give other names (--class-names)."
    )


def _encode(backbone: Backbone, texts: list[str], store: FeatureStore | None) -> dict[str, Tensor]:
    """The raw feature (D,) of each text."""
    key = {"kind": "text", "fingerprint": backbone.fingerprint, "dtype": backbone.dtype}
    shelf = open_shelf(store, backbone, key)
    digests = [content_digest(text.encode("utf-8", "surrogatepass")) for text in texts]
    features, missing = shelf.get(digests)
    if missing:
        new = [texts[i] for i in missing]
        _warn_of_cuts(backbone, new)
        encoded = backbone.encode_text(new)
        with shelf.lock():
            shelf.put([digests[i] for i in missing], encoded)
        features, _ = shelf.get(digests)
    assert features is not None  # noqa: S101  (every text was kept, or was put there)
    return dict(zip(texts, features, strict=True))


def _warn_of_cuts(backbone: Backbone, texts: list[str]) -> None:
    """Say which texts lose their end in the text tower."""
    if isinstance(backbone, OwnBackbone):  # cuts as it sees fit
        return
    tokens = backbone.tokenize(texts)
    full = (tokens[:, -1] != backbone.tokenize([""])[0, -1]).nonzero().flatten().tolist()
    if not full:
        return
    # a text is cut when its last letter makes no difference
    shorter = backbone.tokenize([texts[i].rstrip()[:-1] for i in full])
    cut = [texts[i] for i, row in zip(full, shorter, strict=True) if torch.equal(row, tokens[i])]
    if cut:
        log.warning(
            f"Cut at {tokens.shape[1]} tokens, the text tower's limit: "
            f"{listed(text[:_SHOWN] + '...' for text in cut)}."
        )
