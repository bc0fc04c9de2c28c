"""``Classifier``: what a user keeps. Nearly every method of the field is one of these:

logits = logit_scale * normalize(image_map(f)) @ normalize(W).T + cache(f)       (cosine)
logits = f @ W.T + bias + cache(f)                                               (linear)

f are the features of the frozen backbone, or of a copy of it with a trained change inside.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip_adapter.backbones import Backbone, has_made, load_backbone, resolve_device
from clip_adapter.classifier.folder import read_folder, write_folder
from clip_adapter.errors import ClassifierError, DataError, MissingTextError, UsageError
from clip_adapter.features.feature_set import FeatureNorm, FeatureSet
from clip_adapter.features.pictures import (
    Pictures,
    Unreadable,
    embed_pictures,
    features_in,
    refuse_features,
)
from clip_adapter.heads import Head, Mixture, check_numbers, score_rows
from clip_adapter.hub import classifier_folder
from clip_adapter.keywords import AnswerKeywords
from clip_adapter.reporting import Progress, listening, warn
from clip_adapter.towers import TowerAdapter, tuned
from clip_adapter.wording import html_table, shortened, some_of, told_apart

Inputs = FeatureSet | Pictures
"""Features, also as an array or tensor (N, D), or pictures."""


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
        self._device = "auto"
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

    def logits(
        self,
        inputs: Inputs,
        *,
        unreadable: Unreadable = "mark",
        progress: Progress = None,
        cancel: threading.Event | None = None,
    ) -> Tensor:
        """(N, C) scores of features (N, D), or of pictures.

        Args:
            inputs: features, pictures, or one picture: see :meth:`embed`. Of arrays, 8-bit ones
                (uint8) are pictures, and all others features.
            unreadable: what becomes of pictures that cannot be read. "mark": their rows are NaN,
                and one warning tells how many they are. "stop": one is an error.
            progress: hears how far the work is, see :data:`~clip_adapter.reporting.Progress`.
            cancel: once it is set, the work ends at its next step.

        Raises:
            ClassifierError: features of another dimension.
            DataError: features of length 1, where that of raw ones counts.
            DecodeError: no picture can be read, or with "stop" one cannot.
            CancelledError: ``cancel`` was set.
        """
        with listening(progress, cancel):
            return self._scores(self.head, inputs, unreadable)

    def zero_shot_logits(self, inputs: Inputs) -> Tensor:
        """(N, C) scores of zero-shot CLIP on the same pictures, or on features of the backbone.

        Raises:
            MissingTextError: the classifier was made without text.
        """
        if self.text_weights is None:
            raise MissingTextError(
                "This classifier was made without text weights, so there is no zero-shot "
                "classifier to compare it with.",
                hint="Fit again with a --backbone that has encode_text, or by a file with 'text'.",
            )
        head = Head(self.text_weights, logit_scale=self.head.logit_scale)
        return self._scores(head, inputs, "mark", untouched=True)

    def predict_proba(self, inputs: Inputs, **options: Unpack[AnswerKeywords]) -> np.ndarray:
        """(N, C) probabilities; rows sum to 1. Takes what :meth:`logits` takes.

        The row of a picture that cannot be read is NaN.
        """
        return self.logits(inputs, **options).softmax(-1).numpy()

    def predict(self, inputs: Inputs, **options: Unpack[AnswerKeywords]) -> list[str | None]:
        """N class names. Takes what :meth:`logits` takes.

        The answer for a picture that cannot be read is None.
        """
        logits = self.logits(inputs, **options)
        pairs = zip(logits.argmax(-1).tolist(), logits.isfinite().any(-1).tolist(), strict=True)
        return [self.class_names[i] if readable else None for i, readable in pairs]

    def _scores(
        self,
        head: Head | Mixture,
        inputs: Any,
        unreadable: Unreadable,
        *,
        untouched: bool = False,
    ) -> Tensor:
        rows: Tensor | slice = slice(None)
        norm = getattr(inputs, "feature_norm", None)  # of a FeatureSet alone
        if head.sees_length and (self.feature_norm, norm) == ("raw", "unit"):
            raise DataError(
                "The features have length 1 (feature_norm unit), and the classifier was trained on "
                "raw ones, whose length counts in its scores.",
                hint="Give raw features, or fit again with --feature-norm unit.",
            )
        features = features_in(inputs, head.dim)
        if features is None:
            features = self.embed(inputs, untouched=untouched, unreadable=unreadable)
            rows = ~features.isnan().all(-1)
        if features.ndim != 2 or features.shape[1] != head.dim:
            raise ClassifierError(
                f"Features of shape {tuple(features.shape)}.",
                allowed=f"(N, {head.dim}), made by {self.backbone_name}",
                hint="Embed the pictures with the backbone that the classifier was made with."
                + " The pixels of a picture are given as 8-bit numbers (uint8)."
                * (features.ndim != 2),
            )
        if not len(features) and norm is None:
            warn("There is nothing to classify: 0 pictures, or rows of features, were given.")
        if not torch.isfinite(features[rows]).all():
            raise ClassifierError(
                "The features hold NaN or infinite values.", hint="Remove those rows."
            )
        scores = torch.full((len(features), len(self.class_names)), torch.nan)
        scores[rows] = score_rows(head, features[rows], self.feature_norm)
        return scores

    @property
    def backbone_name(self) -> str:
        """The backbone whose features it takes."""
        return str(self.info.get("backbone") or "an unnamed backbone")

    def backbone(self, device: str | None = None, *, renew: bool = False) -> Backbone:
        """Its backbone, loaded at the first call and checked against the saved fingerprint.

        Args:
            device: None is that of :meth:`load`.
            renew: check one that is loaded anew: its weights may have been trained since.

        Raises:
            ClassifierError: no backbone is known, or its weights are others now.
        """
        if (loaded := self._backbone) is not None:
            return self.use(loaded) if renew and loaded.fingerprint else loaded
        name, give = self.backbone_name, "Classifier.load(folder, backbone=...)"
        if not self.info.get("backbone_fingerprint"):
            raise ClassifierError(
                "It is not known with which weights the features were made that this classifier "
                f"was trained on ({name}), so it cannot read pictures by itself.",
                hint=f"Give it features; or the backbone that made them, if it is an object of "
                f"your own: {give}; or fit it again with --backbone.",
            )
        # Only a GPU is quick with float16.
        kept = self.info.get("dtype") or "float32"
        dtype, runtime = "auto" if kept == "float16" else kept, self.info.get("runtime") or "torch"
        device = device or self._device
        try:
            return self.use(name, device=device, dtype=dtype, runtime=runtime, recorded=True)
        except UsageError as error:
            raise ClassifierError(
                f"The backbone of this classifier, {name!r}, has no name here: {error.found}",
                hint=f"If it is an object of your own, give it: {give}, or classifier.use(...); "
                "if it is of a package, install that.",
            ) from error

    def use(self, backbone: Any, *, same: bool = False, **how: Any) -> Backbone:
        """Take ``backbone`` to read pictures with; it must be the one that made the features.

        Args:
            backbone: a name, a loaded backbone, or an object of one's own, see
                :class:`~clip_adapter.backbones.own.OwnBackbone`.
            same: it is loaded, and is the one; else one without a fingerprint is warned of.
            **how: to load it, as :func:`~clip_adapter.load_backbone` takes it: ``device``, ...

        Raises:
            ClassifierError: it is another one, by its fingerprint or by the features' dimension.
        """
        known = str(self.info.get("backbone_fingerprint") or "")
        loaded = backbone if same and not how else load_backbone(backbone, **how)
        if known and not same and not has_made(loaded, known):
            now, then = told_apart(loaded.fingerprint, known)
            raise ClassifierError(
                f"The weights of {loaded.name} are not those that this classifier was trained "
                f"with, of {self.backbone_name} (now {now}, then {then}).",
                hint=f"Give that one, {self.backbone_name}, with its weights; or fit again.",
            )
        if self.tower_adapter is None and loaded.embed_dim != self.dim:
            raise ClassifierError(
                f"{loaded.name} makes features of {loaded.embed_dim} numbers.",
                allowed=f"{self.dim}, as those that this classifier was trained on",
                hint="Give the backbone that made them.",
            )
        if not (known or same):
            warn(
                f"Whether {loaded.name} has the weights that this classifier was trained with "
                "cannot be checked: no fingerprint of them is on record. With others its answers "
                "mean nothing."
            )
        self._backbone, self._encoder = loaded, self._encoder if loaded is self._backbone else None
        return loaded

    def encoder(self, device: str | None = None) -> Backbone:
        """What makes the features it takes: its backbone, or a copy with what was trained inside.

        Raises:
            ClassifierError: as :meth:`backbone`.
        """
        if self.tower_adapter is None:
            return self.backbone(device)
        if self._encoder is None:
            self._encoder = tuned(self.backbone(device), self.tower_adapter)
        return self._encoder

    def embed(
        self, pictures: Pictures, *, untouched: bool = False, unreadable: Unreadable = "mark"
    ) -> Tensor:
        """Features (N, D) of one picture, or of several in order, all read as files are.

        Args:
            pictures: paths, PIL images, bytes, binary files, or 8-bit pixels in RGB order; see
                :func:`~clip_adapter.features.pictures.embed_pictures`.
            untouched: by the backbone as it was, also where something was trained inside.
            unreadable: as in :meth:`logits`.

        Raises:
            DecodeError: no picture can be read, or with "stop" one cannot.
        """
        refuse_features(pictures)
        encoder = self.backbone() if untouched else self.encoder()
        preprocess = self.info.get("preprocess", "clip")
        return embed_pictures(encoder, pictures, preprocess, unreadable)

    def save(self, folder: str | Path) -> Path:
        """Write safetensors, JSON and a model card into ``folder``. See :mod:`.saving`.

        An older classifier there is replaced in one step; other files there stay.

        Raises:
            ClassifierError: the folder holds other things and no classifier, or cannot be written.
        """
        return write_folder(
            Path(folder),
            head=self.head,
            class_names=self.class_names,
            feature_norm=self.feature_norm,
            text_weights=self.text_weights,
            info=self.info,
            train_digests=self.train_digests,
            tower_adapter=self.tower_adapter,
        )

    @classmethod
    def load(
        cls, folder: str | Path, backbone: Any = None, *, device: str = "auto", warm: bool = False
    ) -> Classifier:
        """Read what :meth:`save` wrote.

        Args:
            folder: may come from anyone: no code in it is run.
            backbone: the object of one's own that it was fitted with; None loads the backbone by
                the name that the folder holds, where it is needed.
            device: where that one shall compute: "auto", "cpu", "cuda", "cuda:1", "mps".
            warm: load the backbone now and classify a black picture, so that the first answer
                takes no longer than the next.

        Raises:
            ClassifierError: missing, damaged, or of a newer format; or made with another backbone.
            UsageError: the device cannot be used, or ``backbone`` is on another one.
        """
        classifier = cls(**read_folder(Path(folder)))
        if backbone is not None:
            classifier.use(backbone, device=device)
        elif device != "auto":
            classifier._device = resolve_device(device)
        if warm:
            classifier.logits(Image.new("RGB", (64, 64)))
        return classifier

    @classmethod
    def from_pretrained(
        cls, name: str, revision: str | None = None, backbone: Any = None, **options: Any
    ) -> Classifier:
        """A saved folder, or a repository of the Hugging Face hub.

        Args:
            name: a folder, ``user/name``, or ``hf-hub:user/name`` where a folder is called alike.
            revision: of the repository.
            backbone: as :meth:`load` takes it.
            **options: likewise.

        Raises:
            ClassifierError: as :meth:`load`, or neither a folder nor a repository.
        """
        return cls.load(classifier_folder(name, revision), backbone, **options)

    def push_to_hub(self, repo: str, *, private: bool = True) -> str:
        """Upload to the Hugging Face hub and return the address; needs ``hf auth login``.

        Raises:
            ClassifierError: not logged in, no network, or refused.
        """
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as scratch:
            folder = self.save(Path(scratch, "classifier"))
            try:
                url = HfApi().create_repo(repo, private=private, exist_ok=True)
                HfApi().upload_folder(
                    repo_id=repo, folder_path=folder, commit_message="Add classifier"
                )
            except Exception as error:  # the hub's client raises a dozen unrelated types
                raise ClassifierError(
                    f"Cannot upload to {repo!r}: {type(error).__name__}.",
                    hint="Run 'hf auth login', check the name (user/name) and the network.",
                ) from error
        return str(url)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the backbone, which is loaded again where it is needed."""
        return self.__dict__ | {"_backbone": None, "_encoder": None}

    def __repr__(self) -> str:
        method = self.info.get("method", "classifier")
        return f"Classifier({method}, {len(self.class_names)} classes, {self.backbone_name})"

    def _repr_html_(self) -> str:
        info, held = self.info, self.info.get("held_out") or {}
        rows = {
            "method": info.get("method"),
            "backbone": info.get("backbone"),
            "classes": f"{len(self.class_names)}: {some_of(map(shortened, self.class_names), 10)}",
            "pictures learned from": info.get("train_pictures"),
            "right by cross-validation (optimistic)": held and f"{held['accuracy']:.1f} %",
            "right on pictures held out": (test := info.get("hold_out", {}).get("top1")) is not None
            and f"{test:.1f} %",
        }
        return html_table(["Classifier"], rows=[(k, str(v)) for k, v in rows.items() if v])
