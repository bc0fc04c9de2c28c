"""The gradient loop and the selection of hyper-parameters; both see the shots only."""

from clip_adapter.training.folds import HELD_OUT_ENOUGH, Fold, folds_of
from clip_adapter.training.loop import Schedule, log_prior, train_on, training_device
from clip_adapter.training.recipes import (
    fast_schedule,
    for_large,
    hidden_units,
    is_large,
    official_schedule,
    passes,
)
from clip_adapter.training.selection import (
    NOTHING_HELD_OUT,
    Choice,
    Selection,
    cautious,
    choose,
    choose_and_train,
    gathered,
    held_out_scores,
    mean,
    score,
)

__all__ = [
    "HELD_OUT_ENOUGH",
    "NOTHING_HELD_OUT",
    "Choice",
    "Fold",
    "Schedule",
    "Selection",
    "cautious",
    "choose",
    "choose_and_train",
    "fast_schedule",
    "folds_of",
    "for_large",
    "gathered",
    "held_out_scores",
    "hidden_units",
    "is_large",
    "log_prior",
    "mean",
    "official_schedule",
    "passes",
    "score",
    "train_on",
    "training_device",
]
