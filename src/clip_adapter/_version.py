"""The version of this library, said once, and those of what else decides a result."""

from __future__ import annotations

from collections.abc import Iterable

__version__ = "0.1.0"
PACKAGES = ("clip-adapter", "torch", "open_clip_torch", "scikit-learn", "numpy")


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of ``packages`` that are here."""
    from importlib.metadata import distributions
    from itertools import islice

    return {p: found.version for p in packages for found in islice(distributions(name=p), 1)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    import platform

    import torch

    return {
        "python": platform.python_version(),
        **installed(PACKAGES),
        "threads": str(torch.get_num_threads()),
    }
