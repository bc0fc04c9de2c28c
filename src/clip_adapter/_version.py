"""The version of this library, said once, and those of what else decides a result."""

__version__ = "0.1.0"
PACKAGES = ("clip-adapter", "torch", "open_clip_torch", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    import platform
    from importlib.metadata import distributions
    from itertools import islice

    import torch

    return {
        "python": platform.python_version(),
        **{p: found.version for p in PACKAGES for found in islice(distributions(name=p), 1)},
        "threads": str(torch.get_num_threads()),
    }
