"""The gradient loop and the selection of hyper-parameters; both see the shots only."""

from clip_adapter.training.folds import Fold, folds_of
from clip_adapter.training.loop import Schedule, train_on, training_device
from clip_adapter.training.selection import choose

__all__ = ["Fold", "Schedule", "choose", "folds_of", "train_on", "training_device"]
