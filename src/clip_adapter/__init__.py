"""CLIP-Adapter: a handful of labelled pictures per class in, an accurate classifier out.

    import clip_adapter

    classifier = clip_adapter.fit("photos/", shots=16)
    print(classifier.predict(["new.jpg"]))
    classifier.save("my-classifier")

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clip_adapter._version import __version__ as __version__

if TYPE_CHECKING:
    from clip_adapter.backbones import list_backbones, load_backbone
    from clip_adapter.classifier import Classifier
    from clip_adapter.datasets.open import load_dataset
    from clip_adapter.errors import ClipAdapterError
    from clip_adapter.estimator import FewShotClassifier
    from clip_adapter.evaluation import Report, evaluate
    from clip_adapter.features.feature_set import FeatureSet
    from clip_adapter.features.files import load_features
    from clip_adapter.features.store import FeatureStore
    from clip_adapter.fitting import fit
    from clip_adapter.methods import Method, make_method, method_names, register
    from clip_adapter.task import FewShotTask

_HOME = {
    "Classifier": "classifier",
    "ClipAdapterError": "errors",
    "FeatureSet": "features.feature_set",
    "FeatureStore": "features.store",
    "FewShotClassifier": "estimator",
    "FewShotTask": "task",
    "Method": "methods",
    "Report": "evaluation",
    "evaluate": "evaluation",
    "fit": "fitting",
    "list_backbones": "backbones",
    "load_backbone": "backbones",
    "load_dataset": "datasets.open",
    "load_features": "features.files",
    "make_method": "methods",
    "method_names": "methods",
    "register": "methods",
}

__all__ = [
    "Classifier",
    "ClipAdapterError",
    "FeatureSet",
    "FeatureStore",
    "FewShotClassifier",
    "FewShotTask",
    "Method",
    "Report",
    "evaluate",
    "fit",
    "list_backbones",
    "load_backbone",
    "load_dataset",
    "load_features",
    "make_method",
    "method_names",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
