"""``Classifier``: what a user keeps, and how it is saved."""

from clip_adapter.classifier.classifier import Classifier

__all__ = ["Classifier"]
