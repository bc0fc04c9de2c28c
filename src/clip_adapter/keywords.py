"""What functions take as ``**keywords``, by name and type, for editors and type checkers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from clip_adapter.datasets.class_names import ClassNames
from clip_adapter.features.pictures import Unreadable
from clip_adapter.known_names import Runtime
from clip_adapter.options import Decode, Dtype, Norm, Preprocess
from clip_adapter.reporting import Progress


class SourceKeywords(TypedDict, total=False):
    """The fields of :class:`~clip_adapter.options.SourceOptions`, which says what they mean."""

    backbone: str | Any
    views: int
    prompts: Sequence[str]
    descriptions: str | Path | None
    class_names: ClassNames | None
    root: str | Path | None
    preprocess: Preprocess
    decode: Decode
    device: str
    dtype: Dtype
    runtime: Runtime
    batch_size: int | None
    cache: str | Path | None
    strict: bool
    feature_norm: Norm


class AnswerKeywords(TypedDict, total=False):
    """What :meth:`~clip_adapter.Classifier.logits` takes beside its inputs."""

    unreadable: Unreadable
    progress: Progress
    cancel: threading.Event | None
