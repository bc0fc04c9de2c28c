"""The version of this library, said once, and those of what else decides a result."""

from __future__ import annotations

import functools
from collections.abc import Iterable

__version__ = "0.1.0"
PACKAGES = ("clip-adapter", "torch", "open_clip_torch", "scikit-learn", "numpy")


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of ``packages`` that are here."""
    return {package: found for package in packages if (found := _installed(package))}


@functools.cache
def _installed(package: str) -> str:
    from importlib.metadata import distributions

    return next((found.version for found in distributions(name=package)), "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    import platform

    import torch

    return {
        "python": platform.python_version(),
        **installed(PACKAGES),
        "threads": str(torch.get_num_threads()),
    }
