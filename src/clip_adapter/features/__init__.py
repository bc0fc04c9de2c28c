"""Features: what a frozen backbone makes of pictures, kept, read and written."""

from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.precomputed import Precomputed, is_feature_file, load_features

__all__ = ["FeatureSet", "Precomputed", "is_feature_file", "load_features"]
