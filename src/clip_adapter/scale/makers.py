"""What a shard's pictures become: an ``Embedder`` makes features, a ``Predictor`` answers."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clip_adapter.backbones.base import Backbone, runtime_entry
from clip_adapter.classifier import Classifier
from clip_adapter.errors import UsageError
from clip_adapter.features.dropped import BadPicture
from clip_adapter.features.embed import embed, image_key
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.formats import column_of, words_of
from clip_adapter.features.pixels import Views
from clip_adapter.files import file_digest
from clip_adapter.hub import classifier_folder
from clip_adapter.options import SourceOptions
from clip_adapter.paths import CONFIG
from clip_adapter.reporting import listening
from clip_adapter.scale.shards import Item

if TYPE_CHECKING:
    import pyarrow as pa


class Maker(ABC):
    """Embeds pictures, and makes columns of a Parquet file of that.

    Args:
        reading: how pictures are read.
        backbone: what embeds them.
        preprocess: how they are cut to size.

    Raises:
        UsageError: nothing tells the weights of the backbone from those of another one.
    """

    def __init__(self, reading: SourceOptions, backbone: Backbone, preprocess: str) -> None:
        if not backbone.fingerprint:
            raise UsageError(
                f"{backbone.name} has no fingerprint: what it made could not be told from what "
                "another one did.",
                hint="Give it one (docs/add-a-backbone.md).",
            )
        self._reading, self._backbone, self._preprocess = reading, backbone, preprocess

    def key(self) -> dict[str, Any]:
        """All that decides a row, besides the picture's content, as JSON types."""
        backbone, decode = self._backbone, self._reading.decode
        pixels = Views(backbone.preprocess, self._preprocess, 0, decode, backbone.device)
        return image_key(backbone, pixels)

    def about(self) -> dict[str, Any]:
        """Entries of the header of a file."""
        return {
            "backbone": self._backbone.name,
            "backbone_fingerprint": self._backbone.fingerprint,
            "dtype": self._backbone.dtype,
            **runtime_entry(self._backbone),
            "preprocess": self._preprocess,
            "logit_scale": self._backbone.logit_scale,
        }

    def embed(self, items: Sequence[Item]) -> tuple[FeatureSet, list[BadPicture]]:
        """Features of those that can be read; names are places in ``items``."""
        # Two pictures may have one name.
        samples = [dataclasses.replace(item.sample, name=str(i)) for i, item in enumerate(items)]
        with listening(progress=False):
            return embed(
                self._backbone,
                samples,
                [],
                preprocess=self._preprocess,
                batch_size=self._reading.batch_size,
                decode=self._reading.decode,
                unreadable="return",
            )

    @abstractmethod
    def columns(self, features: FeatureSet, items: Sequence[Item]) -> dict[str, pa.Array]:
        """The columns by name, for N pictures; of none, they have the same types."""


class Embedder(Maker):
    """Makes features, with the labels that the shard has.

    Args:
        reading: the backbone, and how pictures are read.

    Raises:
        ClipAdapterError: the backbone cannot be loaded, or has no fingerprint.
    """

    def __init__(self, reading: SourceOptions) -> None:
        super().__init__(reading, reading.load_backbone(), reading.preprocess)

    def columns(self, features: FeatureSet, items: Sequence[Item]) -> dict[str, pa.Array]:
        """See :meth:`Maker.columns`."""
        labels = words_of(item.label for item in items)
        return {"label": labels, "features": column_of(features.plain_view)}


class Predictor(Maker):
    """Makes answers of a saved classifier: ``label``, ``probability``, ``label_2``, ...

    Args:
        reading: how pictures are read; the backbone, where it is an object of one's own.
        classifier: a folder, or a name on the hub.
        top: answers per picture.

    Raises:
        ClipAdapterError: the classifier or its backbone cannot be loaded, or has no fingerprint.
    """

    def __init__(self, reading: SourceOptions, classifier: str, top: int) -> None:
        folder = classifier_folder(classifier)
        self._classifier = Classifier.load(folder, reading.backbone)
        preprocess = self._classifier.info.get("preprocess", "clip")
        super().__init__(reading, self._classifier.encoder(reading.device), preprocess)
        # It names the other files by their digests.
        self._digest = file_digest(folder / CONFIG)
        self._top = min(top, len(self._classifier.class_names))

    def key(self) -> dict[str, Any]:
        """See :meth:`Maker.key`; the classifier decides too."""
        return super().key() | {"classifier": self._digest, "top": self._top}

    def columns(self, features: FeatureSet, items: Sequence[Item]) -> dict[str, pa.Array]:
        """See :meth:`Maker.columns`."""
        import pyarrow as pa

        names = self._classifier.class_names
        best = self._classifier.logits(features).softmax(-1).topk(self._top, dim=-1)
        columns = dict[str, pa.Array]()
        for rank in range(self._top):
            end = f"_{rank + 1}" if rank else ""
            columns[f"label{end}"] = words_of(names[i] for i in best.indices[:, rank].tolist())
            columns[f"probability{end}"] = pa.array(best.values[:, rank].numpy())
        return columns
