"""Features: what a frozen backbone makes of pictures, kept, read and written."""

from clip_adapter.features.embed import BadPicture, embed
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import Precomputed, load_features, write_features
from clip_adapter.features.store import FeatureStore
from clip_adapter.features.text import text_weights

__all__ = [
    "BadPicture",
    "FeatureSet",
    "FeatureStore",
    "Precomputed",
    "embed",
    "load_features",
    "text_weights",
    "write_features",
]
