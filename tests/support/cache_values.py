"""The values of a cache, in plain arithmetic."""

import numpy as np


def cache_values(labels, classes):
    """One-hot labels, raised so that all classes sum alike; absent ones get the others' mean."""
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    shots = len(labels) / present
    values = np.zeros((len(labels), classes))
    for row, label in enumerate(labels):
        values[row, label] = shots / counts[label]
        values[row, counts == 0] = values[row, label] / present
    return values
