"""``Classifier``: what a user keeps. Nearly every method of the field is one of these:

logits = logit_scale * normalize(image_map(f)) @ normalize(W).T + cache(f)       (cosine)
logits = f @ W.T + bias + cache(f)                                               (linear)

f are the features of the frozen backbone, or of a copy of it with a trained change inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clip_adapter.errors import ClassifierError, MissingTextError
from clip_adapter.features.feature_set import FeatureNorm, FeatureSet
from clip_adapter.heads import Head, Mixture, check_numbers, score_rows
from clip_adapter.towers import TowerAdapter, tuned

if TYPE_CHECKING:
    from PIL.Image import Image

    from clip_adapter.backbones.base import Backbone

    Picture = str | Path | Image
    Inputs = Tensor | np.ndarray | FeatureSet | Picture | Sequence[Picture]


class Classifier:
    """A trained few-shot classifier over features or pictures.

    Args:
        head: what was learnt.
        class_names: C names in label order.
        feature_norm: "raw" or "unit": the features that ``head`` was trained on.
        text_weights: the text weights (C, D) it is compared with, or None.
        info: a plain record of how it was made (JSON types only); see :meth:`save`.
        train_digests: of the training pictures, to tell when a test picture was one of them.
        tower_adapter: what was trained inside the visual tower, or None. Features that are given
            to the classifier are then those of :meth:`encoder`.

    Raises:
        ClassifierError: a learnt number, a scale or a share is NaN or infinite.
    """

    def __init__(
        self,
        head: Head | Mixture,
        class_names: Sequence[str],
        *,
        feature_norm: FeatureNorm = "raw",
        text_weights: Tensor | None = None,
        info: dict[str, Any] | None = None,
        train_digests: Sequence[str] = (),
        tower_adapter: TowerAdapter | None = None,
    ) -> None:
        check_numbers(head, tower_adapter)
        self.head = head.eval().requires_grad_(False)
        self.class_names = list(class_names)
        self.feature_norm: FeatureNorm = feature_norm
        self.text_weights = text_weights
        self.info: dict[str, Any] = dict(info or {})
        self.train_digests = frozenset(train_digests)
        self.tower_adapter = tower_adapter and tower_adapter.eval().requires_grad_(False).cpu()
        self._backbone: Backbone | None = None
        self._encoder: Backbone | None = None

    @property
    def dim(self) -> int:
        """D, the size of the features it takes."""
        return self.head.dim

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return int(self.info.get("trained_parameters", 0))

    def logits(self, inputs: Inputs) -> Tensor:
        """(N, C) scores of features (N, D), or of pictures (paths or PIL images).

        Raises:
            ClassifierError: features of another dimension.
            DecodeError: a picture cannot be read.
        """
        return score_rows(self.head, self._features(inputs, self.dim), self.feature_norm)

    def zero_shot_logits(self, inputs: Inputs) -> Tensor:
        """(N, C) scores of zero-shot CLIP on the same pictures, or on features of the backbone.

        Raises:
            MissingTextError: the classifier was made without text.
        """
        if self.text_weights is None:
            raise MissingTextError(
                "This classifier was made without text weights, so there is no zero-shot "
                "classifier to compare it with.",
                hint="Fit it again with --backbone, or with a feature file that holds 'text'.",
            )
        head = Head(self.text_weights, logit_scale=self.head.logit_scale)
        features = self._features(inputs, head.dim, untouched=True)
        return score_rows(head, features, self.feature_norm)

    def predict_proba(self, inputs: Inputs) -> np.ndarray:
        """(N, C) probabilities; rows sum to 1."""
        return self.logits(inputs).softmax(-1).numpy()

    def predict(self, inputs: Inputs) -> list[str]:
        """N class names."""
        return [self.class_names[i] for i in self.logits(inputs).argmax(-1).tolist()]

    def _features(self, inputs: Inputs, dim: int, untouched: bool = False) -> Tensor:
        if isinstance(inputs, FeatureSet):
            features = inputs.plain_view
        elif isinstance(inputs, Tensor | np.ndarray):
            features = torch.as_tensor(inputs).float()
        else:
            features = self.embed(inputs, untouched=untouched)
        if features.ndim != 2 or features.shape[1] != dim:
            raise ClassifierError(
                f"Features of shape {tuple(features.shape)}.",
                allowed=f"(N, {dim}), made by {self.backbone_name}",
                hint="Embed the pictures with the backbone that the classifier was made with.",
            )
        if not torch.isfinite(features).all():
            raise ClassifierError(
                "The features hold NaN or infinite values.", hint="Remove those rows."
            )
        return features

    @property
    def backbone_name(self) -> str:
        """The backbone whose features it takes."""
        return str(self.info.get("backbone") or "an unnamed backbone")

    def backbone(self, device: str = "auto") -> Backbone:
        """Its backbone, loaded at the first call and checked against the saved fingerprint.

        Raises:
            ClassifierError: no backbone is known, or its weights are others now.
        """
        if self._backbone is None:
            from clip_adapter.backbones import load_backbone

            fingerprint = self.info.get("backbone_fingerprint")
            if not fingerprint:
                raise ClassifierError(
                    "This classifier was trained on features from a file; the backbone that made "
                    f"them was not used here ({self.backbone_name}), so it cannot read pictures.",
                    hint="Give it features, or fit it again with --backbone.",
                )
            backbone = load_backbone(
                self.backbone_name, device=device, dtype=self.info.get("dtype", "float32")
            )
            if backbone.fingerprint != fingerprint:
                raise ClassifierError(
                    f"The weights of {self.backbone_name} are not the ones this classifier was "
                    f"trained with ({backbone.fingerprint[:12]}, then {fingerprint[:12]}).",
                    hint="Restore the weights, or fit the classifier again.",
                )
            self._backbone = backbone
        return self._backbone

    def encoder(self, device: str = "auto") -> Backbone:
        """What makes the features it takes: its backbone, or a copy with what was trained inside.

        Raises:
            ClassifierError: as :meth:`backbone`.
        """
        if self.tower_adapter is None:
            return self.backbone(device)
        if self._encoder is None:
            self._encoder = tuned(self.backbone(device), self.tower_adapter)
        return self._encoder

    def embed(self, pictures: Picture | Sequence[Picture], *, untouched: bool = False) -> Tensor:
        """Features (N, D) of one picture or a list: paths or PIL images.

        Args:
            pictures: what to embed.
            untouched: by the backbone as it was, also where something was trained inside.

        Raises:
            DecodeError: a picture cannot be read; its name is told.
        """
        from clip_adapter.features.pictures import embed_pictures

        if isinstance(pictures, str) or not isinstance(pictures, Sequence):
            items = [pictures]
        else:
            items = list(pictures)
        encoder = self.backbone() if untouched else self.encoder()
        return embed_pictures(encoder, items, self.info.get("preprocess", "clip"))

    def save(self, folder: str | Path) -> Path:
        """Writes ``folder``: safetensors, JSON and a model card. See :mod:`.saving`."""
        from clip_adapter.classifier.saving import save_classifier

        return save_classifier(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Classifier:
        """Reads what :meth:`save` wrote.

        Raises:
            ClassifierError: missing, damaged, or of a newer format.
        """
        from clip_adapter.classifier.saving import load_classifier

        return load_classifier(Path(folder))

    @classmethod
    def from_pretrained(cls, name: str, revision: str | None = None) -> Classifier:
        """A saved folder, or a repository of the Hugging Face hub (``user/name``)."""
        from clip_adapter.classifier.saving import from_pretrained

        return from_pretrained(name, revision)

    def push_to_hub(self, repo: str, *, private: bool = True) -> str:
        """Uploads to the Hugging Face hub and returns the address; needs ``hf auth login``."""
        from clip_adapter.classifier.saving import push_to_hub

        return push_to_hub(self, repo, private=private)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the backbone, which is loaded again where it is needed."""
        return self.__dict__ | {"_backbone": None, "_encoder": None}

    def __repr__(self) -> str:
        method = self.info.get("method", "classifier")
        return f"Classifier({method}, {len(self.class_names)} classes, {self.backbone_name})"
